// @ts-check
/** Follows a growing page, but only for somebody who is at its end: whoever scrolled up to read is left in peace. */

const NEAR_PX = 80;
/** With less than this left to see, a button that leads there would only be in the way. */
const FAR_PX = 240;

export class Follower {
  /** @param {HTMLElement} jump the button that leads back to the end */
  constructor(jump) {
    this.jump = jump;
    this.following = true;
    this.page = /** @type {HTMLElement} */ (document.scrollingElement);
    window.addEventListener("scroll", () => this.#look(), { passive: true });
    window.addEventListener("resize", () => this.#look());
    jump.addEventListener("click", () => this.toEnd());
  }

  /**
   * Make a change that may lengthen the page.
   * @param {() => void} change
   * @param {HTMLElement | null} upTo what to follow to the end of, null = the whole page
   */
  around(change, upTo) {
    change();
    if (!this.following) return this.#show();
    if (upTo === null) this.#scroll();
    else this.#reveal(upTo);
    this.#look();
  }

  toEnd() {
    this.following = true;
    this.#scroll();
    this.#show();
  }

  /**
   * Scroll so far that the end of `element` shows, unless that would carry its beginning far away.
   * @param {HTMLElement} element
   */
  #reveal(element) {
    const covered = /** @type {HTMLElement} */ (document.querySelector("footer")).getBoundingClientRect().top;
    const hidden = element.getBoundingClientRect().bottom - covered;
    if (hidden > 0 && hidden < window.innerHeight / 2) this.page.scrollTop += hidden;
  }

  #scroll() {
    this.page.scrollTop = this.page.scrollHeight;
  }

  #look() {
    this.following = this.#distance() < NEAR_PX;
    this.#show();
  }

  #distance() {
    return this.page.scrollHeight - this.page.clientHeight - this.page.scrollTop;
  }

  #show() {
    this.jump.hidden = this.following || this.#distance() < FAR_PX;
  }
}

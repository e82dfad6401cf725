// @ts-check
/** Follows a growing page, but only for somebody who is at its end: whoever scrolled up to read is left in peace. */

const NEAR_PX = 80;

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

  /** Make a change that may lengthen the page. @param {() => void} change */
  around(change) {
    change();
    if (this.following) this.#scroll();
    this.#show();
  }

  toEnd() {
    this.following = true;
    this.#scroll();
    this.#show();
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
    this.jump.hidden = this.following || this.#distance() < NEAR_PX;
  }
}

// @ts-check
/**
 * A glance at a source while the pointer or the focus is on its mark. It may be hovered itself, and Escape puts it away
 * (WCAG 1.4.13). A click on the mark opens the source beside the conversation, so nothing in here needs to be reached.
 */

import { plainExcerpt } from "./documents.js";
import { el, langAttribute } from "./elements.js";
import { t } from "./i18n.js";

/** @typedef {import("./baton.js").Source} Source */

const SHOW_MS = 120;
const HIDE_MS = 160;
const GAP_PX = 8;
const EXCERPT_CHARS = 280;

export class Peek {
  /** @param {HTMLElement} node */
  constructor(node) {
    this.node = node;
    /** @type {HTMLElement | null} */
    this.mark = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    node.addEventListener("pointerenter", () => clearTimeout(this.timer));
    node.addEventListener("pointerleave", () => this.later());
    window.addEventListener("scroll", () => this.hide(), { passive: true });
  }

  get isOpen() {
    return !this.node.hidden;
  }

  /** @param {HTMLElement} mark @param {Source} source */
  soon(mark, source) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.show(mark, source), SHOW_MS);
  }

  /** The pointer has left: hide, unless it comes back or goes on to the glance itself. */
  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.hide(), HIDE_MS);
  }

  /** @param {HTMLElement} mark @param {Source} source */
  show(mark, source) {
    clearTimeout(this.timer);
    if (!mark.isConnected) return;
    this.hide();
    this.mark = mark;
    const text = plainExcerpt(source.snippet, EXCERPT_CHARS);
    this.node.replaceChildren(
      el(
        "p",
        { class: "peek-title", lang: langAttribute(source.title) },
        source.title,
        source.page ? el("span", { class: "page" }, t("source.page", source.page)) : null,
      ),
      el("p", { lang: langAttribute(text) }, text),
    );
    this.node.hidden = false;
    mark.setAttribute("aria-describedby", this.node.id);
    this.#place(mark.getBoundingClientRect());
  }

  hide() {
    clearTimeout(this.timer);
    this.mark?.removeAttribute("aria-describedby");
    this.mark = null;
    this.node.hidden = true;
  }

  /** Above the mark where there is room, otherwise below. @param {DOMRect} mark */
  #place(mark) {
    const { width, height } = this.node.getBoundingClientRect();
    const left = Math.min(
      mark.left + mark.width / 2 - width / 2,
      document.documentElement.clientWidth - width - GAP_PX,
    );
    const above = mark.top - height - GAP_PX;
    this.node.style.left = `${Math.max(GAP_PX, left)}px`;
    this.node.style.top = `${above >= GAP_PX ? above : mark.bottom + GAP_PX}px`;
  }
}

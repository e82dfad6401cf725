// @ts-check
/** The sources under an answer: cited ones first, the rest apart once the answer says which it cited. */

import { plainExcerpt } from "./documents.js";
import { el, icon, langAttribute } from "./elements.js";
import { t } from "./i18n.js";

/** @typedef {import("./baton.js").Source} Source */
/** @typedef {import("./baton.js").AnswerState} AnswerState */

const EXCERPT_CHARS = 160;

export class SourcesView {
  /** @param {(n: number, opener: HTMLElement) => void} open */
  constructor(open) {
    this.open = open;
    this.element = el("section", { class: "sources", hidden: true });
    this.key = "";
    /** @type {number | null} */
    this.current = null;
  }

  /** @param {AnswerState} state */
  update(state) {
    const numbers = state.sources.map((source) => source.n);
    const key = JSON.stringify([numbers, state.cited, state.finished, t("sources.label")]);
    if (key === this.key) return;
    this.key = key;
    this.element.hidden = state.sources.length === 0;
    const heading = el("h3", {}, t(state.cited ? "sources.cited" : "sources.found"));
    this.element.setAttribute("aria-label", t("sources.label"));
    // While the answer is written, one line that scrolls sideways: the text keeps the screen.
    this.element.classList.toggle("strip", !state.finished);
    const parts = state.cited ? this.#told(state.sources, state.cited) : [this.#cards(state.sources, "found")];
    this.element.replaceChildren(heading, ...parts);
    this.mark(this.current);
  }

  /** Make the card of source `n` stand out, and bring it to light if it is folded away. @param {number | null} n */
  mark(n) {
    this.current = n;
    for (const card of this.element.querySelectorAll(".source")) {
      const current = /** @type {HTMLElement} */ (card).dataset.n === String(n);
      card.classList.toggle("current", current);
      const folded = current ? card.closest("details") : null;
      if (folded) folded.open = true;
    }
  }

  /** @param {readonly Source[]} sources @param {readonly number[]} cited */
  #told(sources, cited) {
    const used = sources.filter((source) => cited.includes(source.n));
    const rest = sources.filter((source) => !cited.includes(source.n));
    return [
      used.length > 0 && this.#cards(used, "cited"),
      rest.length > 0 &&
        el(
          "details",
          { class: "uncited" },
          el("summary", {}, t("sources.uncited", rest.length)),
          this.#cards(rest, "uncited"),
        ),
    ].filter((node) => node !== false);
  }

  /** @param {readonly Source[]} sources @param {string} kind */
  #cards(sources, kind) {
    return el(
      "ul",
      {},
      sources.map((source) => el("li", {}, this.#card(source, kind))),
    );
  }

  /** @param {Source} source @param {string} kind */
  #card(source, kind) {
    /** @type {HTMLElement} */
    const card = el(
      "button",
      { type: "button", class: `source ${kind}`, "data-n": source.n, onclick: () => this.open(source.n, card) },
      el("span", { class: "number" }, String(source.n)),
      el(
        "span",
        { class: "text", lang: langAttribute(source.title) },
        el("span", { class: "title" }, source.title),
        source.page ? el("span", { class: "page" }, t("source.page", source.page)) : null,
        // Several passages of one document are common: their words tell them apart.
        el(
          "span",
          { class: "excerpt", lang: langAttribute(source.snippet) },
          plainExcerpt(source.snippet, EXCERPT_CHARS),
        ),
      ),
      icon("chevron"),
    );
    return card;
  }
}

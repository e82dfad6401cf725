// @ts-check
/** One source beside the conversation (a sheet from below on phones): its passage, and the way to the original. */

import { openWithToken, originalUrl } from "./documents.js";
import { el, icon, langAttribute } from "./elements.js";
import { t } from "./i18n.js";
import { renderMarkdown } from "./markdown.js";

/** @typedef {import("./baton.js").Source} Source */
/**
 * `shown` is told which source is on display, null when the panel closes.
 * @typedef {{ sources: readonly Source[], cited: readonly number[] | null, n: number, opener: HTMLElement | null,
 *   shown: (n: number | null) => void }} View
 */

const WIDE = window.matchMedia("(min-width: 1000px)");

export class SourcePanel {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {() => string | null} token
   * @param {() => void} closed called when nothing else takes the focus
   */
  constructor(dialog, token, closed) {
    this.dialog = dialog;
    this.token = token;
    this.closed = closed;
    /** @type {View | null} */
    this.view = null;
    dialog.addEventListener("close", () => this.#closed());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    WIDE.addEventListener("change", () => this.view && this.dialog.open && this.#place());
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** @param {View} view */
  open(view) {
    if (this.view && this.view.shown !== view.shown) this.view.shown(null);
    this.view = view;
    this.show(view.n);
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  /** @param {number} n */
  show(n) {
    const view = this.view;
    const source = view?.sources.find((candidate) => candidate.n === n);
    if (!view || !source) return;
    view.n = n;
    const heading = el("h2", { id: "source-title", tabindex: "-1", lang: langAttribute(source.title) }, source.title);
    this.dialog.replaceChildren(
      this.#bar(view),
      el("div", { class: "panel-body" }, heading, this.#facts(source, view), ...this.#body(source)),
    );
    if (!this.dialog.open) this.#place();
    heading.focus({ preventScroll: true });
    view.shown(n);
  }

  /** In the language that is chosen now. */
  refresh() {
    if (this.view && this.dialog.open) this.show(this.view.n);
  }

  /** Beside the conversation where there is room; otherwise above it, and then it keeps the focus inside. */
  #place() {
    const view = this.view;
    if (this.dialog.open) {
      this.moving = true;
      this.dialog.close();
    }
    document.body.classList.toggle("with-panel", WIDE.matches);
    if (WIDE.matches) this.dialog.show();
    else this.dialog.showModal();
    this.view = view;
  }

  #closed() {
    // The event comes after `#place` has opened the dialog again.
    if (this.moving) {
      this.moving = false;
      return;
    }
    const view = this.view;
    this.view = null;
    document.body.classList.remove("with-panel");
    view?.shown(null);
    // The browser has given the focus back by itself, and this event comes later: it must not take it away again.
    const focused = document.activeElement;
    if (focused && focused !== document.body && !this.dialog.contains(focused)) return;
    if (view?.opener?.isConnected) view.opener.focus({ preventScroll: true });
    else this.closed();
  }

  /** @param {View} view */
  #bar(view) {
    const at = view.sources.findIndex((source) => source.n === view.n);
    /** @param {string} label @param {string} name @param {number} to */
    const step = (label, name, to) =>
      el(
        "button",
        {
          type: "button",
          class: "quiet",
          "aria-label": t(label),
          title: t(label),
          disabled: !view.sources[to],
          onclick: () => this.show(view.sources[to].n),
        },
        icon(name),
      );
    return el(
      "div",
      { class: "panel-bar" },
      el("span", { class: "number" }, String(view.n)),
      el("span", { class: "position" }, t("source.position", { at: at + 1, of: view.sources.length })),
      step("source.previous", "back", at - 1),
      step("source.next", "chevron", at + 1),
      el(
        "button",
        {
          type: "button",
          class: "quiet",
          "aria-label": t("source.close"),
          title: t("source.close"),
          onclick: () => this.close(),
        },
        icon("cross"),
      ),
    );
  }

  /** @param {Source} source @param {View} view */
  #facts(source, view) {
    const cited = view.cited && t(view.cited.includes(source.n) ? "source.cited" : "source.uncited");
    const facts = [source.page ? t("source.page", source.page) : null, cited].filter(Boolean);
    return facts.length > 0 && el("p", { class: "facts" }, facts.join(" · "));
  }

  /** @param {Source} source */
  #body(source) {
    const failure = el("p", { class: "failure", role: "alert" });
    const link = el(
      "a",
      {
        class: "original",
        href: originalUrl(source),
        target: "_blank",
        rel: "noopener",
        onclick: (/** @type {Event} */ event) => this.#openOriginal(event, source, failure),
      },
      t("source.open"),
      icon("external"),
      el("span", { class: "visually-hidden" }, ` (${t("source.opens")})`),
    );
    const passage = el("blockquote", {
      class: "rich",
      "aria-label": t("source.passage"),
      lang: langAttribute(source.snippet),
    });
    renderMarkdown(passage, source.snippet, { version: "", citation: () => null });
    // A document may say where to go; only its original is a place that we lead to.
    for (const outward of passage.querySelectorAll("a")) outward.replaceWith(...outward.childNodes);
    return [passage, link, failure];
  }

  /** @param {Event} event @param {Source} source @param {HTMLElement} failure */
  #openOriginal(event, source, failure) {
    const token = this.token();
    if (!token) return;
    event.preventDefault();
    failure.textContent = "";
    void openWithToken(originalUrl(source), source.title, token, (message) => {
      failure.textContent = message;
    });
  }
}

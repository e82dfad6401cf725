// @ts-check
/**
 * The list of conversations: beside the open one where there is room, otherwise a drawer over it. Its entries are links,
 * so they open in other tabs too, and "back" works.
 */

import { addressOf } from "./address.js";
import { ConversationError, conversations, deleteConversation } from "./conversations.js";
import { become, el, icon, langAttribute } from "./elements.js";
import { ago, t } from "./i18n.js";
import { recall, remember } from "./storage.js";
import { conversationProblem } from "./thread.js";

/** @typedef {import("./baton.js").BatonClient} BatonClient */
/** @typedef {import("./conversations.js").Summary} Summary */
/**
 * @typedef {{ aside: HTMLElement, drawer: HTMLDialogElement, nav: HTMLElement, documents: HTMLElement, toggle: HTMLElement,
 *   confirm: HTMLDialogElement }} Parts
 */
/**
 * `open` gives the conversation that is open and whether something runs in it; `deleted` is told the id.
 * @typedef {{ open: () => { id: string | null, running: boolean }, deleted: (id: string) => void,
 *   announce: (text: string) => void }} Hooks
 */

const WIDE = window.matchMedia("(min-width: 1180px)");
const SOON_MS = 400;
const RUNNING_MS = 5_000;

export class Sidebar {
  /** @param {BatonClient} client @param {Parts} parts @param {Hooks} hooks */
  constructor(client, parts, hooks) {
    this.client = client;
    this.parts = parts;
    this.hooks = hooks;
    /** @type {Summary[] | null} */
    this.summaries = null;
    /** @type {ConversationError | null} */
    this.failure = null;
    this.loads = 0;
    this.shared = false;
    this.key = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.wanted = recall(localStorage, "conversations") !== "closed";
    parts.toggle.addEventListener("click", () => this.#toggle());
    parts.drawer.addEventListener("close", () => this.#place());
    parts.drawer.addEventListener("click", (event) => {
      const target = /** @type {HTMLElement} */ (event.target);
      if (target === parts.drawer || target.closest("a")) parts.drawer.close();
    });
    WIDE.addEventListener("change", () => this.#place());
    client.addEventListener("hello", (event) => {
      this.shared = /** @type {CustomEvent} */ (event).detail.auth === "off";
      this.render();
    });
    this.#place();
  }

  /** Load the list a little later: several reasons in a row are one. @param {number} [ms] */
  soon(ms = SOON_MS) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.load(), ms);
  }

  async load() {
    clearTimeout(this.timer);
    if (this.client.state !== "online") return;
    const number = ++this.loads;
    let summaries = this.summaries;
    /** @type {ConversationError | null} */
    let failure = null;
    try {
      summaries = await conversations(this.client);
    } catch (error) {
      failure = /** @type {ConversationError} */ (error);
    }
    if (number !== this.loads) return; // who asked later knows better
    Object.assign(this, { summaries, failure });
    this.render();
    const { id } = this.hooks.open();
    if (this.summaries?.some((each) => isRunning(each) && each.conversation_id !== id) && !document.hidden)
      this.soon(RUNNING_MS);
  }

  render() {
    const { id, running } = this.hooks.open();
    const key = JSON.stringify([
      this.summaries,
      this.failure?.code,
      this.shared,
      id,
      running,
      t("conversations.label"),
    ]);
    if (key === this.key) return;
    this.key = key;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const entries = (this.summaries ?? []).map((each) => this.#entry(each, id, running));
    const wanted = /** @type {HTMLElement} */ (this.parts.nav.cloneNode());
    wanted.append(
      ...[
        el("div", { class: "history-bar" }, el("h2", { id: "history-title" }, t("conversations.label")), this.#close()),
        this.failure && this.#problem(this.failure),
        !this.failure && this.summaries?.length === 0 && el("p", { class: "empty" }, t("conversations.empty")),
        entries.length > 0 && el("ul", {}, entries),
        this.shared && el("p", { class: "shared" }, t("conversations.shared")),
      ].filter((node) => node !== false && node !== null),
    );
    become(this.parts.nav, wanted);
    // What has moved to another place has lost it.
    if (focused && this.parts.nav.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** @param {Summary} summary @param {string | null} open @param {boolean} running whether in the open one something runs */
  #entry(summary, open, running) {
    const { conversation_id: id, title } = summary;
    const isOpen = id === open;
    const runs = isOpen ? running : isRunning(summary);
    const facts = [ago(summary.updated_ms), t("conversations.questions", summary.turns)];
    const label = t("conversations.delete", title);
    return el(
      "li",
      { "data-key": id },
      el(
        "a",
        { href: addressOf(id), "aria-current": isOpen && "page" },
        el("span", { class: "title", lang: langAttribute(title) }, title || t("conversations.untitled")),
        runs
          ? el("span", { class: "facts runs" }, el("span", { class: "dot" }), t("conversations.running"))
          : el("span", { class: "facts" }, facts.join(" · ")),
      ),
      el(
        "button",
        { type: "button", class: "quiet", "aria-label": label, title: label, onclick: () => this.#ask(id) },
        icon("trash"),
      ),
    );
  }

  /** @param {string} id */
  #link(id) {
    return /** @type {HTMLElement | null} */ (this.parts.nav.querySelector(`li[data-key="${CSS.escape(id)}"] a`));
  }

  /** @param {ConversationError} error */
  #problem(error) {
    return el(
      "div",
      { class: "problem", role: "alert" },
      el("p", {}, conversationProblem(error)),
      el("button", { type: "button", class: "quiet", onclick: () => this.load() }, t("error.retry")),
    );
  }

  #close() {
    return el(
      "button",
      {
        type: "button",
        class: "quiet",
        "aria-label": t("conversations.hide"),
        title: t("conversations.hide"),
        onclick: () => this.#toggle(),
      },
      icon("cross"),
    );
  }

  // --- deleting ---

  /** @param {string} id */
  #ask(id) {
    const { confirm } = this.parts;
    const summary = this.summaries?.find((each) => each.conversation_id === id);
    if (!summary) return;
    /** @type {HTMLElement} */
    const failure = el("p", { class: "failure", role: "alert" });
    const sure = el("button", { type: "button", class: "primary danger" }, t("conversations.delete.sure"));
    const leave = el("button", { type: "button", class: "quiet", onclick: () => confirm.close() }, t("token.cancel"));
    sure.addEventListener("click", () => void this.#delete(summary, failure));
    confirm.replaceChildren(
      el(
        "div",
        { class: "dialog-body" },
        el("h2", { id: "confirm-title" }, t("conversations.delete.title")),
        el("p", { lang: langAttribute(summary.title) }, summary.title),
        el("p", {}, t("conversations.delete.text")),
        failure,
        el("div", { class: "actions" }, leave, sure),
      ),
    );
    confirm.showModal();
    leave.focus();
  }

  /** @param {Summary} summary @param {HTMLElement} failure */
  async #delete(summary, failure) {
    const id = summary.conversation_id;
    failure.textContent = "";
    try {
      await deleteConversation(this.client, id);
    } catch (error) {
      // Gone is gone, whoever deleted it.
      if (/** @type {ConversationError} */ (error).code !== "not_found") {
        failure.textContent = conversationProblem(/** @type {ConversationError} */ (error));
        return;
      }
    }
    this.loads += 1; // a list that was asked for before still has it
    this.soon();
    const at = this.summaries?.findIndex((each) => each.conversation_id === id) ?? -1;
    this.summaries = (this.summaries ?? []).filter((each) => each.conversation_id !== id);
    this.parts.confirm.close();
    this.hooks.deleted(id);
    this.render();
    this.hooks.announce(t("conversations.deleted"));
    const next = this.summaries[Math.min(at, this.summaries.length - 1)];
    ((next && this.#link(next.conversation_id)) ?? this.parts.toggle).focus();
  }

  // --- where it is ---

  get isOpen() {
    return WIDE.matches ? this.wanted : this.parts.drawer.open;
  }

  /** Open it, where something happens in it that somebody should see. */
  reveal() {
    if (!this.isOpen) this.#toggle();
  }

  #toggle() {
    const { drawer, toggle } = this.parts;
    if (WIDE.matches) {
      this.wanted = !this.wanted;
      remember(localStorage, "conversations", this.wanted ? null : "closed");
    } else if (drawer.open) drawer.close();
    else drawer.showModal();
    this.#place();
    if (this.isOpen) this.soon(0);
    else toggle.focus();
  }

  #place() {
    const { aside, drawer, nav, documents, toggle } = this.parts;
    if (WIDE.matches && drawer.open) drawer.close();
    const home = WIDE.matches ? aside : drawer;
    if (nav.parentElement !== home) home.append(nav, documents);
    aside.hidden = !WIDE.matches || !this.wanted;
    document.body.classList.toggle("with-history", !aside.hidden);
    toggle.setAttribute("aria-expanded", String(this.isOpen));
  }
}

/** @param {Summary} summary */
function isRunning({ running }) {
  return Array.isArray(running) ? running.length > 0 : Boolean(running);
}

// @ts-check
/** One question with its steps, answer, sources and timings. It shows an `AnswerState` and keeps nothing else. */

import { citationRanges, marksIn } from "./baton.js";
import { el, icon, langAttribute } from "./elements.js";
import { has, language, t } from "./i18n.js";
import { renderMarkdown } from "./markdown.js";
import { metaNodes } from "./meta.js";
import { SourcesView } from "./sources.js";
import { StepsView } from "./steps.js";
import { supports, withSigns } from "./support.js";

/** @typedef {import("./baton.js").Answer} Answer */
/** @typedef {import("./baton.js").AnswerState} AnswerState */
/** @typedef {import("./baton.js").Source} Source */
/**
 * What a turn asks of the page around it. `around` makes a change and keeps the scroll position right; `waits` says
 * whether the question waits for the one before it; `recall` fetches the steps of an answer of the past.
 * @typedef {{
 *   openSource: (turn: TurnView, n: number, opener: HTMLElement) => void,
 *   peek: import("./peek.js").Peek,
 *   retry: (turn: TurnView, options: import("./baton.js").QueryOptions) => void,
 *   cancel: (turn: TurnView) => void,
 *   waits: (turn: TurnView) => boolean,
 *   recall: (turn: TurnView) => Promise<void>,
 *   connected: () => boolean,
 *   around: (change: () => void, upTo: HTMLElement | null) => void,
 *   announce: (text: string) => void,
 * }} Page
 */

/** A mark that is still being written would flash as text. */
const UNFINISHED_MARK = /(?:[[\u3010][\d, ]{0,20}|[*_`~]{1,3})$/;
/** Share of the time that rendering may take. */
const RENDER_SHARE = 0.25;

let count = 0;

export class TurnView {
  /** @param {Answer} answer @param {Page} page */
  constructor(answer, page) {
    this.answer = answer;
    this.page = page;
    this.stopping = false;
    /** What the notes and the last line show now, so that they are only rebuilt when that changes. */
    this.notesKey = "";
    this.metaKey = "";
    this.scheduled = false;
    const id = `question-${(count += 1)}`;
    this.steps = new StepsView();
    this.sources = new SourcesView((n, opener) => page.openSource(this, n, opener));
    this.text = el("div", { class: "answer rich" });
    this.notes = el("div", { class: "notes" });
    this.meta = el("div", { class: "meta" });
    this.question = el("h2", { id });
    this.element = el(
      "article",
      { class: "turn", "aria-labelledby": id, "data-request": answer.requestId },
      this.question,
      this.steps.element,
      this.text,
      this.notes,
      this.sources.element,
      this.meta,
    );
    /** How much of it was announced; what ended before it was shown is no news. */
    this.announced = answer.finished ? 2 : 0;
    this.lastCost = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.countdown = undefined;
    answer.addEventListener("frame", () => this.schedule());
    answer.addEventListener("wait", () => this.schedule());
    this.steps.element.addEventListener("toggle", () => this.#recall());
    /** Which source is open, and what the pointer or the focus is on. @type {{ n: number | null, over: HTMLElement | null }} */
    this.shown = { n: null, over: null };
    for (const kind of ["pointerover", "focusin"]) this.element.addEventListener(kind, (event) => this.#look(event));
    for (const kind of ["pointerout", "focusout"]) this.element.addEventListener(kind, () => this.#lookAway());
    if (this.stored) this.steps.element.open = false;
    this.render();
  }

  /** Make source `n` stand out among the sources; null = none. A field, so that it is the same function every time. */
  showSource = (/** @type {number | null} */ n) => {
    this.sources.mark(n);
    this.shown.n = n;
    this.#light();
  };

  /** Whether this is an answer of the past, of which only what was kept is there. */
  get stored() {
    return this.answer.finished && this.answer.frames.length === 0;
  }

  /** Somebody wants to see the steps of an answer of the past: its log may still be there. */
  async #recall() {
    if (!this.stored || !this.steps.element.open || this.recalled) return;
    this.recalled = true;
    await this.page.recall(this);
    this.metaKey = "";
    this.schedule();
  }
  recalled = false;

  /** @returns {AnswerState} */
  get state() {
    return this.answer.state;
  }

  /** Render soon: once per frame of the screen at most, and less often where rendering is slow. */
  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    const run = () => {
      this.scheduled = false;
      // Somebody has gone on to another conversation: nobody sees this one, and it must not scroll that one.
      if (!this.element.isConnected) return;
      // What comes with the end of an answer, its sources and timings, must not move the text that is being read.
      this.page.around(() => this.render(), this.state.finished ? this.text : null);
    };
    const wait = this.lastCost > 8 ? this.lastCost / RENDER_SHARE : 0;
    // A page in the background gets no animation frames.
    if (wait > 0 || document.hidden) setTimeout(run, wait);
    else requestAnimationFrame(run);
  }

  render() {
    const started = performance.now();
    const { state } = this;
    this.element.dataset.phase = state.phase;
    this.element.classList.toggle("waits", this.page.waits(this));
    this.question.textContent = this.answer.query || t("question.unknown");
    this.question.lang = langAttribute(this.question.textContent) ?? "";
    this.steps.update(
      state,
      this.page.connected(),
      this.#waitingText(),
      this.stored ? (this.recalled ? "gone" : "kept") : "",
    );
    this.#renderText(state);
    this.sources.update(state);
    this.#renderNotes(state);
    this.#renderMeta(state);
    this.#announce(state);
    this.lastCost = performance.now() - started;
  }

  /** Why the question has to be asked again, and when; empty if it has not. */
  #waitingText() {
    const { waiting } = this.answer;
    if (this.page.waits(this)) return t("steps.queued");
    if (!waiting) return "";
    const seconds = Math.max(1, Math.ceil((waiting.until - Date.now()) / 1000));
    return t("steps.busy", { why: errorTitle(waiting), seconds });
  }

  /** Forget what depends on the language, and show all of it again. */
  translate() {
    this.metaKey = "";
    this.notesKey = "";
    this.render();
  }

  /** @param {AnswerState} state */
  #renderText(state) {
    const streaming = !state.finished && state.text !== "";
    const text = streaming ? state.text.replace(UNFINISHED_MARK, "") : state.text;
    this.text.hidden = text === "";
    this.text.classList.toggle("streaming", streaming);
    this.text.setAttribute("aria-busy", String(!state.finished));
    const lang = langAttribute(text);
    if (lang) this.text.lang = lang;
    const titles = new Map(state.sources.map((source) => [source.n, source]));
    const version = `${language()} ${state.sources.map((source) => source.n).join()}`;
    const marks = state.citations ? citationRanges(text, state.citations) : marksIn(text, state.sources);
    const signed = withSigns(text, supports(text, marks));
    renderMarkdown(this.text, signed, { version, citation: (n) => this.#citation(titles.get(n)) });
    if (this.shown.n !== null) this.#light();
  }

  /** @param {Event} event */
  #look(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const over = /** @type {HTMLElement | null} */ (target.closest(".answer .cite, button.source"));
    if (over === this.shown.over) return;
    this.shown.over = over;
    this.#light();
    const source = this.state.sources.find((each) => each.n === Number(over?.dataset.n));
    if (!over?.matches(".cite") || !source) return;
    if (event.type === "pointerover" && /** @type {PointerEvent} */ (event).pointerType !== "touch")
      this.page.peek.soon(over, source);
    else if (over.matches(":focus-visible")) this.page.peek.show(over, source);
  }

  #lookAway() {
    if (this.shown.over?.matches(".cite")) this.page.peek.later();
    this.shown.over = null;
    this.#light();
  }

  /** Light up what the open source and the mark or source under the pointer support. */
  #light() {
    const { n, over } = this.shown;
    /** @type {Set<string | undefined>} */
    const lit = new Set(over?.matches(".cite") ? [over.dataset.support] : []);
    const wanted = new Set([String(n), over?.matches(".cite") ? "" : over?.dataset.n]);
    for (const mark of /** @type {NodeListOf<HTMLElement>} */ (this.text.querySelectorAll(".cite")))
      if (wanted.has(mark.dataset.n)) lit.add(mark.dataset.support);
    for (const part of /** @type {NodeListOf<HTMLElement>} */ (this.text.querySelectorAll(".supported")))
      part.classList.toggle("lit", lit.has(part.dataset.support));
  }

  /** @param {import("./baton.js").Source | undefined} source */
  #citation(source) {
    if (!source) return null;
    const name = t("source.name", source);
    /** @type {HTMLElement} */
    const mark = el(
      "button",
      {
        type: "button",
        class: "cite",
        "data-n": source.n,
        "aria-label": name,
        onclick: () => this.page.openSource(this, source.n, mark),
      },
      String(source.n),
    );
    return mark;
  }

  /** @param {AnswerState} state */
  #renderNotes(state) {
    const key = JSON.stringify([
      state.error,
      state.finishReason,
      state.resets,
      state.recovered,
      state.text === "",
      this.stopping,
      state.finished,
      this.page.waits(this),
    ]);
    if (key === this.notesKey) return;
    this.notesKey = key;
    clearTimeout(this.countdown);
    const notes = noteTexts(state, this.stopping).map((text) => el("p", { class: "note" }, text));
    if (this.page.waits(this) && !this.stopping) notes.push(this.#takeBackButton());
    this.notes.replaceChildren(...notes, ...(state.error ? [this.#errorCard(state.error)] : []));
  }

  /** For a question that waits: out of the queue again. */
  #takeBackButton() {
    return el(
      "button",
      { type: "button", class: "quiet take-back", onclick: () => this.page.cancel(this) },
      icon("cross"),
      t("question.cancel"),
    );
  }

  /** @param {NonNullable<AnswerState["error"]>} error */
  #errorCard(error) {
    const card = el(
      "div",
      { class: "error-card" },
      icon("warning"),
      el(
        "div",
        {},
        el("h3", {}, errorTitle(error)),
        error.message && el("p", { lang: langAttribute(error.message) }, error.message),
        el("p", { class: "error-code" }, t("error.code", error.code)),
      ),
    );
    if (error.retryable) card.append(this.#retryButton(error.retryAfterMs ?? 0));
    return card;
  }

  /** @param {number} waitMs */
  #retryButton(waitMs) {
    const button = /** @type {HTMLButtonElement} */ (
      el("button", { type: "button", class: "retry", onclick: () => this.page.retry(this, {}) }, t("error.retry"))
    );
    const until = performance.now() + waitMs;
    const tick = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      button.disabled = left > 0;
      button.textContent = left > 0 ? t("error.retry.in", left) : t("error.retry");
      if (left > 0) this.countdown = setTimeout(tick, 250);
    };
    tick();
    return button;
  }

  /** @param {AnswerState} state */
  #renderMeta(state) {
    const key = JSON.stringify([state.phase, state.timings, this.answer.requestId]);
    if (key === this.metaKey) return;
    this.metaKey = key;
    this.meta.hidden = state.phase !== "done";
    if (state.phase !== "done") return;
    const again = this.answer.query ? () => this.page.retry(this, { cache: false }) : null;
    this.meta.replaceChildren(
      ...metaNodes({ state, requestId: this.answer.requestId, again, announce: this.page.announce }),
    );
  }

  /**
   * To screen readers: sources once, then nothing until the end, because a text that grows cannot be listened to.
   * @param {AnswerState} state
   */
  #announce(state) {
    if (this.announced === 0 && state.sources.length > 0 && !state.finished) {
      this.announced = 1;
      this.page.announce(t("announce.sources", state.sources.length));
    }
    if (this.announced < 2 && state.finished) {
      this.announced = 2;
      if (state.error) this.page.announce(`${errorTitle(state.error)}. ${state.error.message}`);
      else if (state.finishReason === "cancelled") this.page.announce(t("answer.cancelled"));
      else this.page.announce(t("answer.complete", state.cited?.length ?? 0));
    }
  }
}

/** @param {{ code: string }} error */
function errorTitle(error) {
  return t(has(`error.${error.code}`) ? `error.${error.code}` : "error.title");
}

/** @param {AnswerState} state @param {boolean} stopping */
function noteTexts(state, stopping) {
  const notes = [];
  if (state.resets > 0) notes.push(t("answer.reset"));
  if (!state.recovered) notes.push(t("answer.unrecovered"));
  if (stopping && !state.finished) notes.push(t("answer.stopping"));
  if (state.phase !== "done") return notes;
  if (state.finishReason === "cancelled") notes.push(t(state.text ? "answer.cancelled" : "answer.cancelled.empty"));
  else if (state.finishReason !== "stop" && has(`answer.${state.finishReason}`))
    notes.push(t(`answer.${state.finishReason}`));
  else if (!state.text) notes.push(t("answer.empty"));
  return notes;
}

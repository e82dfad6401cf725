// @ts-check
/** One question with its steps, answer, sources and timings. It shows an `AnswerState` and keeps nothing else. */

import { copyText } from "./clipboard.js";
import { el, icon, langAttribute } from "./elements.js";
import { duration, has, language, t } from "./i18n.js";
import { renderMarkdown } from "./markdown.js";
import { SourcesView } from "./sources.js";
import { StepsView } from "./steps.js";

/** @typedef {import("./baton.js").Answer} Answer */
/** @typedef {import("./baton.js").AnswerState} AnswerState */
/**
 * What a turn asks of the page around it. `around` makes a change and keeps the scroll position right.
 * @typedef {{
 *   openSource: (turn: TurnView, n: number, opener: HTMLElement) => void,
 *   retry: (query: string) => void,
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
    const question = el("h2", { id, lang: langAttribute(answer.query) }, answer.query);
    this.element = el(
      "article",
      { class: "turn", "aria-labelledby": id, "data-request": answer.requestId },
      question,
      this.steps.element,
      this.text,
      this.notes,
      this.sources.element,
      this.meta,
    );
    this.announced = 0;
    this.lastCost = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.countdown = undefined;
    answer.addEventListener("frame", () => this.schedule());
    answer.addEventListener("wait", () => this.schedule());
    this.render();
  }

  /** Make source `n` stand out among the sources; null = none. A field, so that it is the same function every time. */
  showSource = (/** @type {number | null} */ n) => this.sources.mark(n);

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
    this.steps.update(state, this.page.connected(), this.#waitingText());
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
    renderMarkdown(this.text, text, { version, citation: (n) => this.#citation(titles.get(n)) });
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
        title: name,
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
    ]);
    if (key === this.notesKey) return;
    this.notesKey = key;
    clearTimeout(this.countdown);
    const notes = noteTexts(state, this.stopping).map((text) => el("p", { class: "note" }, text));
    this.notes.replaceChildren(...notes, ...(state.error ? [this.#errorCard(state.error)] : []));
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
      el(
        "button",
        { type: "button", class: "retry", onclick: () => this.page.retry(this.answer.query) },
        t("error.retry"),
      )
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
    const key = JSON.stringify([state.phase, state.timings]);
    if (key === this.metaKey) return;
    this.metaKey = key;
    this.meta.hidden = state.phase !== "done";
    if (state.phase === "done")
      this.meta.replaceChildren(...(state.text ? [this.#copyButton()] : []), timingsNode(state));
  }

  #copyButton() {
    const label = el("span", {}, t("answer.copy"));
    const copy = async () => {
      const copied = await copyText(plainAnswer(this.state));
      label.textContent = t(copied ? "answer.copied" : "answer.copy.failed");
      this.page.announce(label.textContent);
      setTimeout(() => (label.textContent = t("answer.copy")), 2000);
    };
    return el("button", { type: "button", class: "quiet copy", onclick: copy }, icon("copy"), label);
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

/** @param {AnswerState} state */
function timingsNode(state) {
  const times = state.timings ?? {};
  const facts = [
    ["time.ttfb", times.ttfb_ms, duration],
    ["time.ttft", times.ttft_ms, duration],
    ["time.retrieval", times.retrieval_ms || null, duration],
    [
      "time.rate",
      times.tokens_per_second,
      (/** @type {number} */ rate) => t("time.tokens", rate.toFixed(rate < 10 ? 1 : 0)),
    ],
  ].filter(([, value]) => typeof value === "number");
  const list = el("dl", { class: "timings", "aria-label": t("time.label") });
  for (const [key, value, format] of facts)
    list.append(el("div", {}, el("dt", {}, t(key)), el("dd", {}, format(value))));
  if (state.cache === "hit") list.append(el("div", {}, el("dt", {}, t("time.cache"))));
  return list;
}

/** The answer as text to paste elsewhere, with the sources it cites. @param {AnswerState} state */
function plainAnswer(state) {
  const cited = state.sources.filter((source) => state.cited?.includes(source.n));
  const lines = cited.map(
    (source) => `[${source.n}] ${source.title}${source.page ? `, ${t("source.page", source.page)}` : ""}`,
  );
  return lines.length > 0 ? `${state.text.trim()}\n\n${t("sources.label")}\n${lines.join("\n")}` : state.text.trim();
}

// @ts-check
/** The timeline of one answer: what happened, what is happening, and how long each took. */

import { el, icon, langAttribute } from "./elements.js";
import { duration, has, t } from "./i18n.js";

/** @typedef {import("./baton.js").Step} Step */
/** @typedef {import("./baton.js").AnswerState} AnswerState */

const SHORT_RESULT = 120;
const SHORT_ARGUMENTS = 120;
/** More of an argument or a result than this helps nobody, and costs the browser. */
const MAX_SHOWN = 50_000;
const FIRST_CHARS = 80;
const TICK_MS = 100;
const MARKS = { running: "spinner", done: "check", failed: "cross", stopped: "square" };

export class StepsView {
  constructor() {
    this.summary = el("summary");
    this.list = el("ol");
    this.element = /** @type {HTMLDetailsElement} */ (
      el("details", { class: "steps", open: true }, this.summary, this.list)
    );
    /** @type {{ key: string, row: HTMLElement, status: string, since: number, time: HTMLElement }[]} */
    this.rows = [];
    /** @type {"" | "kept" | "gone"} */
    this.past = "";
    this.startedAt = performance.now();
    /** @type {number | null} */
    this.tookMs = null;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
  }

  /**
   * @param {AnswerState} state
   * @param {boolean} connected
   * @param {string} waiting why the question is answered later
   * @param {"" | "kept" | "gone"} past whether the steps of an answer of the past may still be there; empty: a new one
   */
  update(state, connected, waiting, past) {
    this.past = past;
    const lines = this.#lines(state, connected, waiting);
    while (this.rows.length > lines.length) this.rows.pop()?.row.remove();
    lines.forEach((line, index) => this.#row(line, index));
    if (state.finished) this.tookMs ??= performance.now() - this.startedAt;
    this.#tick();
    if (!state.finished) this.timer ??= setInterval(() => this.#tick(), TICK_MS);
    else this.stop();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = undefined;
  }

  collapse() {
    this.element.open = false;
  }

  /**
   * The steps, with a line for what the page itself is doing.
   * @param {AnswerState} state
   * @param {boolean} connected
   * @param {string} waiting
   * @returns {Step[]}
   */
  #lines(state, connected, waiting) {
    /** @type {Step} */
    const own = {
      kind: "stage",
      id: "own",
      stage: "own",
      status: "running",
      label: "",
      labels: 0,
      count: null,
      elapsedMs: null,
      startedAt: 0,
      endedAt: null,
      progress: [],
    };
    if (this.past) return [{ ...own, status: "stopped", label: t(`steps.${this.past}`) }];
    if (state.finished) return [...state.steps];
    if (!connected) return [...state.steps, { ...own, label: t("steps.waiting") }];
    if (waiting) return [...state.steps, { ...own, label: waiting }];
    if (state.steps.length === 0) return [{ ...own, label: t("steps.sent") }];
    return [...state.steps];
  }

  /**
   * Rows are rebuilt only when their step changed, so that an opened result stays open.
   * @param {Step} step
   * @param {number} index
   */
  #row(step, index) {
    const key = JSON.stringify([step, t("steps.label")]);
    const before = this.rows[index];
    if (before?.key === key) return;
    const since = before && before.row.dataset.step === step.id ? before.since : performance.now();
    const time = el("span", { class: "time" }, timeOf(step));
    const row = rowNode(step, time);
    if (before) before.row.replaceWith(row);
    else this.list.append(row);
    this.rows[index] = { key, row, status: step.status, since, time };
  }

  #tick() {
    const now = performance.now();
    for (const { status, since, time } of this.rows) {
      if (status === "running") time.textContent = duration(now - since);
    }
    const count = this.past
      ? t("steps.label")
      : `${t("steps.summary", this.rows.length)} · ${duration(this.tookMs ?? now - this.startedAt)}`;
    if (this.summary.textContent !== count) this.summary.textContent = count;
  }
}

/** @param {Step} step */
function timeOf(step) {
  if (step.elapsedMs !== null) return duration(step.elapsedMs);
  if (step.endedAt && step.startedAt) return duration(step.endedAt - step.startedAt);
  return "";
}

/** @param {Step} step @param {HTMLElement} time */
function rowNode(step, time) {
  const mark = el(
    "span",
    { class: "mark" },
    icon(MARKS[step.status]),
    el("span", { class: "visually-hidden" }, `${t(`step.${step.status}`)}: `),
  );
  const body = step.kind === "tool" ? toolBody(step) : stageBody(step);
  return el(
    "li",
    { class: `step ${step.kind} ${step.status}`, "data-step": step.id },
    mark,
    el("div", { class: "what" }, body),
    time,
  );
}

/** @param {Step} step */
function stageBody(step) {
  const name = has(`stage.${step.stage}`) ? t(`stage.${step.stage}`) : "";
  // While it runs, the worker's own words; afterwards they are over, unless they say what came out.
  if (step.label && (step.status === "running" || !name))
    return [el("strong", { lang: langAttribute(step.label) }, step.label)];
  const understood = step.stage === "understanding" && step.labels > 1;
  const outcome = step.elapsedMs !== null || step.count !== null || understood ? step.label : "";
  const counted = step.stage === "retrieving" && step.count !== null && !outcome.includes(String(step.count));
  return [
    el("strong", {}, name || step.stage),
    outcome && el("span", { class: "detail", lang: langAttribute(outcome) }, outcome),
    counted && el("span", { class: "count" }, t("step.passages", step.count)),
  ];
}

/** @param {Step} step */
function toolBody(step) {
  const progress = step.progress.at(-1);
  return [
    el("strong", {}, t("stage.tool")),
    step.name && callNode(step.name, step.arguments),
    step.status === "running" && progress && el("span", { class: "detail", lang: langAttribute(progress) }, progress),
    step.result !== undefined && resultNode(step),
  ];
}

/** The call as code; where its arguments are long, all of them on demand. @param {string} name @param {any} value */
function callNode(name, value) {
  const pairs = value !== null && typeof value === "object" ? Object.entries(value) : [];
  const text = pairs.map(([key, argument]) => `${key}: ${JSON.stringify(argument)}`).join(", ");
  if (text.length <= SHORT_ARGUMENTS) return el("code", { class: "call" }, `${name}(${text})`);
  const summary = el("code", { class: "call" }, `${name}(${text.slice(0, FIRST_CHARS)}…)`);
  return onDemand("arguments", el("summary", {}, summary), JSON.stringify(value, null, 2), t("tool.arguments"));
}

/** @param {Step} step */
function resultNode(step) {
  const result = String(step.result);
  const line = oneLine(result);
  const text = step.status === "failed" ? `${t("tool.failed")}: ${line}` : line;
  if (result.length <= SHORT_RESULT) return el("span", { class: "result", lang: langAttribute(result) }, text);
  const summary = el("summary", { lang: langAttribute(result) }, `${text.slice(0, FIRST_CHARS)}…`);
  return onDemand("result", summary, result, t("tool.result"));
}

/** @param {string} kind @param {HTMLElement} summary @param {string} whole @param {string} label */
function onDemand(kind, summary, whole, label) {
  const text = whole.length > MAX_SHOWN ? `${whole.slice(0, MAX_SHOWN)}…` : whole;
  return el("details", { class: kind }, summary, el("pre", { tabindex: "0", "aria-label": label }, text));
}

/** Lists and line breaks as one line. @param {string} text */
function oneLine(text) {
  const lines = text.slice(0, 2 * SHORT_RESULT).split("\n");
  return lines
    .map((line) => line.replace(/^[\s#>*-]+/, "").trim())
    .filter(Boolean)
    .join(" ");
}

// @ts-check
/** The last line of an answer: copy it, ask again, how long it took, and what it was made with. */

import { copyText } from "./clipboard.js";
import { el, icon } from "./elements.js";
import { duration, has, t } from "./i18n.js";

/** @typedef {import("./baton.js").AnswerState} AnswerState */
/**
 * @typedef {{ state: AnswerState, requestId: string, again: (() => void) | null, announce: (text: string) => void }} About
 */

/** @param {About} about */
export function metaNodes(about) {
  const { state, again } = about;
  return [
    ...(state.text ? [copyButton(about)] : []),
    ...(again ? [againButton(again)] : []),
    state.cache === "hit" && el("span", { class: "badge", title: t("cache.hit.title") }, icon("bolt"), t("cache.hit")),
    timingsNode(state),
    detailsNode(about),
  ].filter((node) => node !== false && node !== null);
}

/** @param {About} about */
function copyButton({ state, announce }) {
  const label = el("span", {}, t("answer.copy"));
  const copy = async () => {
    const copied = await copyText(plainAnswer(state));
    label.textContent = t(copied ? "answer.copied" : "answer.copy.failed");
    announce(label.textContent);
    setTimeout(() => (label.textContent = t("answer.copy")), 2000);
  };
  return el("button", { type: "button", class: "quiet copy", onclick: copy }, icon("copy"), label);
}

/** @param {() => void} again */
function againButton(again) {
  const label = t("answer.again.title");
  return el(
    "button",
    { type: "button", class: "quiet again", onclick: again, "aria-label": label, title: label },
    icon("again"),
    el("span", {}, t("answer.again")),
  );
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
  if (facts.length === 0) return null;
  const list = el("dl", { class: "timings", "aria-label": t("time.label") });
  for (const [key, value, format] of facts)
    list.append(el("div", {}, el("dt", {}, t(key)), el("dd", {}, format(value))));
  return list;
}

/** @param {About} about */
function detailsNode({ state, requestId }) {
  const used = state.usage;
  const facts = [
    ["detail.request", requestId],
    ["detail.fingerprint", state.fingerprint],
    ["detail.cache", state.cache && (has(`cache.${state.cache}`) ? t(`cache.${state.cache}`) : state.cache)],
    ["detail.variant", state.variant],
    ["detail.tokens", used?.completion_tokens ? t("detail.tokens.of", used) : null],
  ].filter(([, value]) => value);
  const list = el("dl", {});
  for (const [key, value] of facts)
    list.append(el("div", {}, el("dt", {}, t(String(key))), el("dd", {}, String(value))));
  return el("details", { class: "about" }, el("summary", {}, t("detail.label")), list);
}

/** The answer as text to paste elsewhere, with the sources it cites. @param {AnswerState} state */
function plainAnswer(state) {
  const cited = state.sources.filter((source) => state.cited?.includes(source.n));
  const lines = cited.map(
    (source) => `[${source.n}] ${source.title}${source.page ? `, ${t("source.page", source.page)}` : ""}`,
  );
  return lines.length > 0 ? `${state.text.trim()}\n\n${t("sources.label")}\n${lines.join("\n")}` : state.text.trim();
}

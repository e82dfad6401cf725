// @ts-check
/** The way from a source to its original document, at the passage where the browser can. */

import { el, languageOf } from "./elements.js";
import { t } from "./i18n.js";

/** @typedef {import("./baton.js").Source} Source */

const FRAGMENT_CHARS = 48;
const LEAST_CHARS = 4;
const ENOUGH = 24;
const MAX_SNIPPET = 500;

/**
 * Address of the original, with the page of a PDF or the start of the passage for the browser to scroll to.
 * @param {Source} source
 */
export function originalUrl(source) {
  const address = `/documents/${encodeURIComponent(source.document_id)}`;
  if (source.page) return `${address}#page=${source.page}`;
  return address + textFragment(source.snippet);
}

/**
 * `#:~:text=…` for the first line of a passage that says enough, or nothing. A browser only matches whole words
 * inside one block of the page, and the page shows no Markdown marks, so both are cut away.
 * @param {string} snippet
 */
export function textFragment(snippet) {
  const lines = snippet
    .slice(0, MAX_SNIPPET)
    .split("\n")
    .map((line) => firstWords(plainLine(line)));
  // Rather the passage's text than its heading, which may come more than once.
  const words = lines.find((line) => width(line) >= ENOUGH) ?? lines.find((line) => line.length >= LEAST_CHARS);
  return words ? `#:~:text=${encodeURIComponent(words).replaceAll("-", "%2D")}` : "";
}

/** Room that a text takes, in Latin letters; a Chinese character takes two. @param {string} text */
function width(text) {
  return text.length + (text.match(/\p{Script=Han}/gu)?.length ?? 0);
}

/** The beginning of a passage on one line, without Markdown's marks. @param {string} snippet @param {number} most */
export function plainExcerpt(snippet, most) {
  const lines = snippet.slice(0, most).split("\n");
  const words = lines.map((line) =>
    line
      .replace(/^[\s#>*+|-]+/, "")
      .replace(/[*_`|]+/g, "")
      .trim(),
  );
  return words.filter(Boolean).join(" · ") + (snippet.length > most ? "…" : "");
}

/** @param {string} line */
function plainLine(line) {
  const text = line.replace(/^[\s#>*+\-|\u2026.]+/, "").replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1");
  // The longest run without marks: they may or may not be in the page's text.
  const runs = text.split(/[*_`|<>[\]{}\\~]+|\u2026/).map((run) => run.trim());
  return runs.find((run) => run.length >= LEAST_CHARS) ?? "";
}

/** The first words, up to a bounded length, ending where a word ends. @param {string} text */
function firstWords(text) {
  if (text.length <= FRAGMENT_CHARS) return text;
  if (!("Segmenter" in Intl)) return text.slice(0, FRAGMENT_CHARS).replace(/\s+\S*$/, "");
  let end = 0;
  for (const word of new Intl.Segmenter(languageOf(text) ?? "en", { granularity: "word" }).segment(text)) {
    if (word.index + word.segment.length > FRAGMENT_CHARS) break;
    end = word.index + word.segment.length;
  }
  return text.slice(0, end).trim();
}

/**
 * Open an original that only a token may read: a link cannot carry one, so it is fetched and shown from memory.
 * @param {Source} source
 * @param {string} token
 * @param {(message: string) => void} failed
 */
export async function openWithToken(source, token, failed) {
  // Opened before the wait, while this still counts as the click's doing.
  const tab = window.open("about:blank", "_blank");
  try {
    const url = `/documents/${encodeURIComponent(source.document_id)}`;
    const response = await fetch(url, { headers: { Authorization: `Bearer ${token}` } });
    if (!response.ok) throw new Error(failureText(response.status));
    const blob = await response.blob();
    if (tab) showBlob(tab, blob.type.startsWith("text/html") ? await withStyles(blob) : blob, source);
  } catch (error) {
    tab?.close();
    failed(`${t("source.failed")}: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {number} status */
function failureText(status) {
  if (status === 401 || status === 403) return t("source.denied");
  return status === 404 ? t("source.missing") : `HTTP ${status}`;
}

/**
 * The page with its style sheet named in full: an address in memory has nothing that `/static/…` could be relative to.
 * @param {Blob} blob
 */
async function withStyles(blob) {
  const html = (await blob.text()).replaceAll('href="/static/', `href="${location.origin}/static/`);
  return new Blob([html], { type: "text/html;charset=utf-8" });
}

/**
 * A PDF goes to the browser's viewer; anything else into a frame without scripts, forms or this page's origin.
 * @param {Window} tab
 * @param {Blob} blob
 * @param {Source} source
 */
function showBlob(tab, blob, source) {
  const address = URL.createObjectURL(blob);
  if (blob.type.startsWith("application/pdf")) {
    tab.location.href = source.page ? `${address}#page=${source.page}` : address;
    return;
  }
  const frame = el("iframe", { sandbox: "", src: address, title: source.title });
  Object.assign(frame.style, {
    position: "fixed",
    inset: "0",
    width: "100%",
    height: "100%",
    border: "0",
    background: "#fff",
  });
  tab.document.title = source.title;
  tab.document.body.replaceChildren(frame);
}

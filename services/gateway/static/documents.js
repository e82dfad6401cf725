// @ts-check
/** The way from a source to its original document, at the passage where the browser can. */

import { el, languageOf } from "./elements.js";
import { t } from "./i18n.js";

/** @typedef {import("./baton.js").Source} Source */

const FRAGMENT_CHARS = 48;
const LEAST_CHARS = 4;
const ENOUGH = 24;
const MAX_SNIPPET = 500;

/** Addresses that a source may lead to: those of this server's documents, with the passage marked. */
const DOCUMENT = /^\/documents\/[0-9a-f]{32}(\?passage=\d{1,9}#passage)?$/;

/**
 * Address of the document with the passage marked. Where the source names none, that of the original, with the page of
 * a PDF or the start of the passage for the browser to scroll to.
 * @param {Source} source
 */
export function originalUrl(source) {
  if (DOCUMENT.test(source.url ?? "")) return source.url;
  const address = documentUrl(source.document_id);
  if (source.page) return `${address}#page=${source.page}`;
  return address + textFragment(source.snippet);
}

/** @param {string} documentId */
export function documentUrl(documentId) {
  return `/documents/${encodeURIComponent(documentId)}`;
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
 * Open a document that only a token may read: a link cannot carry one, so it is fetched and shown from memory.
 * @param {string} url
 * @param {string} title
 * @param {string} token
 * @param {(message: string) => void} failed
 */
export async function openWithToken(url, title, token, failed) {
  // Opened before the wait, while this still counts as the click's doing.
  const tab = window.open("about:blank", "_blank");
  try {
    if (tab) await new Shown(tab, url, title, token).show(url);
  } catch (error) {
    tab?.close();
    failed(`${t("source.failed")}: ${error instanceof Error ? error.message : error}`);
  }
}

/** A document in a tab of its own, with the ways on that its page would have as links. */
class Shown {
  /** @param {Window} tab @param {string} url @param {string} title @param {string} token */
  constructor(tab, url, title, token) {
    this.tab = tab;
    this.path = url.split(/[?#]/)[0];
    this.title = title;
    this.token = token;
    /** Where the page lies in memory. @type {string | null} */
    this.shown = null;
  }

  /** @param {string} url */
  async show(url) {
    const at = new URL(url, location.href);
    const wanted = at.hash;
    at.hash = "";
    at.searchParams.set("bare", "1");
    const response = await this.#fetch(at);
    const blob = await response.blob();
    // A PDF goes to the browser's viewer; anything else into a frame without scripts, forms or this page's origin.
    if (blob.type.startsWith("application/pdf")) this.tab.location.href = URL.createObjectURL(blob) + wanted;
    else this.#frame(await withStyles(blob), wanted, response.headers.get("Baton-Part"));
  }

  /** @param {URL} at */
  async #fetch(at) {
    const headers = { Authorization: `Bearer ${this.token}`, "Accept-Language": document.documentElement.lang };
    const response = await fetch(at, { headers, cache: "no-store" });
    if (!response.ok) throw new Error(failureText(response.status));
    return response;
  }

  /** @param {Blob} blob @param {string} fragment @param {string | null} part as in `2/7`; null: the page is all there is */
  #frame(blob, fragment, part) {
    if (this.shown) URL.revokeObjectURL(this.shown);
    this.shown = URL.createObjectURL(blob);
    const src = this.shown + fragment;
    const frame = el("iframe", { sandbox: "", src, title: this.title });
    Object.assign(frame.style, { flex: "1", width: "100%", border: "0" });
    // Where styles and the frame's size come late, the browser has gone to a place that has moved since.
    if (fragment) frame.addEventListener("load", () => frame.setAttribute("src", src), { once: true });
    const bar = el("p", {}, ...(part ? this.#ways(part) : []));
    Object.assign(bar.style, { display: part ? "flex" : "none", gap: "1em", margin: "0", padding: "0.5em" });
    const { body, head, documentElement: root } = this.tab.document;
    Object.assign(body.style, { display: "flex", flexDirection: "column", position: "fixed", inset: "0", margin: "0" });
    this.tab.document.title = this.title;
    root.lang = document.documentElement.lang;
    root.style.colorScheme = getComputedStyle(document.documentElement).colorScheme;
    if (!head.querySelector("meta")) head.append(el("meta", { name: "viewport", content: "width=device-width" }));
    body.replaceChildren(bar, frame);
    frame.focus();
  }

  /** @param {string} part */
  #ways(part) {
    const [at, of] = part.split("/").map(Number);
    /** @param {string} label @param {string} query @param {boolean} there */
    const way = (label, query, there) =>
      there && el("button", { type: "button", onclick: () => void this.#go(query) }, t(label));
    return [
      way("source.earlier", `?part=${at - 1}`, at > 1),
      way("source.later", `?part=${at + 1}`, at < of),
      el("button", { type: "button", onclick: () => void this.#save() }, t("source.file")),
    ];
  }

  /** @param {string} query */
  async #go(query) {
    await this.show(this.path + query).catch((error) => this.#fail(error));
  }

  async #save() {
    try {
      const response = await this.#fetch(new URL(`${this.path}?original=1`, location.href));
      const blob = await response.blob();
      const named = /filename\*=utf-8''([^;]+)/.exec(response.headers.get("Content-Disposition") ?? "");
      const href = URL.createObjectURL(blob);
      if (blob.type.startsWith("application/pdf")) this.tab.location.href = href;
      else el("a", { href, download: named ? decodeURIComponent(named[1]) : this.title }).click();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** @param {unknown} error */
  #fail(error) {
    const why = error instanceof Error ? error.message : error;
    this.tab.document.body.append(el("p", { role: "alert" }, `${t("source.failed")}: ${why}`));
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

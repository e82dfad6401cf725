// @ts-check
/** The inline part of the Markdown subset: emphasis, code, links, addresses and citation marks, as DOM nodes. */

import { el } from "./elements.js";

/**
 * `citation` gives the node for `[n]`, or null where there is no such source; `version` changes whenever the same text
 * would look different.
 * @typedef {{ citation: (n: number) => Node | null, version: string }} Context
 */

const MAX_DEPTH = 6;

const SPECIAL = /[\\`*_~![\u3010]|https?:\/\//g;
const LINK = /!?\[([^\][\n]{0,300})\]\(<?([^\s()<>]{1,2000})>?(?:\s+"[^"\n]{0,300}")?\)/y;
const CITATION = /[[\u3010]((?:\d{1,3})(?:\s?[,\uff0c\u3001]\s?\d{1,3}){0,19})[\]\u3011]/y;
// Chinese text runs on right after an address, without a space: its letters and punctuation end one.
const ADDRESS = /https?:\/\/[^\s<>"'`\u201c\u201d\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]{1,2000}/y;
const ESCAPE = /\\([\\`*_{}[\]()#+\-.!>~|])/y;
const EMPHASIS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "s"],
  ["*", "em"],
  ["_", "em"],
];
const WORD = /[\p{Letter}\p{Number}]/u;

/** @param {string} text @param {Context} context @param {number} [depth] @returns {Node[]} */
export function inline(text, context, depth = 0) {
  /** @type {Node[]} */
  const nodes = [];
  /** Markers that have no closing partner further on, so that each is searched for once. @type {Set<string>} */
  const unclosed = new Set();
  let plain = "";
  for (let at = 0; at < text.length;) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    if (next === text.length) break;
    const found = special(text, next, context, depth, unclosed);
    if (found) {
      if (plain) nodes.push(document.createTextNode(plain));
      plain = "";
      nodes.push(...found.nodes);
      at = found.end;
    } else {
      plain += text[next];
      at = next + 1;
    }
  }
  if (plain) nodes.push(document.createTextNode(plain));
  return nodes;
}

/** @typedef {{ nodes: Node[], end: number } | null} Found */

/**
 * What stands at `at`, if it is more than text.
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 * @param {number} depth
 * @param {Set<string>} unclosed
 * @returns {Found}
 */
function special(text, at, context, depth, unclosed) {
  const escaped = match(ESCAPE, text, at);
  if (escaped) return { nodes: [document.createTextNode(escaped[1])], end: at + 2 };
  if (text[at] === "`") return codeSpan(text, at, unclosed);
  const link = match(LINK, text, at);
  if (link) return { nodes: [linkNode(link[2], link[1] || link[2])], end: at + link[0].length };
  const citation = match(CITATION, text, at);
  if (citation) return citationNodes(citation, at, context);
  const address = match(ADDRESS, text, at);
  if (address) {
    const url = address[0].replace(/[.,;:!?)\]*_~]+$/, "");
    return { nodes: [linkNode(url, url)], end: at + url.length };
  }
  return depth < MAX_DEPTH ? emphasis(text, at, context, depth, unclosed) : null;
}

/** @param {RegExp} pattern sticky @param {string} text @param {number} at */
function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** @param {string} text @param {number} at @param {Set<string>} unclosed @returns {Found} */
function codeSpan(text, at, unclosed) {
  const ticks = /** @type {RegExpExecArray} */ (match(/`+/y, text, at))[0];
  if (unclosed.has(ticks)) return { nodes: [document.createTextNode(ticks)], end: at + ticks.length };
  const end = text.indexOf(ticks, at + ticks.length);
  if (end < 0) {
    unclosed.add(ticks);
    return { nodes: [document.createTextNode(ticks)], end: at + ticks.length };
  }
  return { nodes: [el("code", {}, text.slice(at + ticks.length, end))], end: end + ticks.length };
}

/**
 * `[2]`, `[1, 3]`: one node per source that exists; the mark stays text when none does.
 * @param {RegExpExecArray} found
 * @param {number} at
 * @param {Context} context
 * @returns {Found}
 */
function citationNodes(found, at, context) {
  const numbers = found[1].split(/[,\uff0c\u3001]/).map((part) => Number.parseInt(part, 10));
  const nodes = numbers.map((n) => context.citation(n));
  if (!nodes.every((node) => node !== null)) return null;
  return { nodes: /** @type {Node[]} */ (nodes), end: at + found[0].length };
}

/**
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 * @param {number} depth
 * @param {Set<string>} unclosed
 * @returns {Found}
 */
function emphasis(text, at, context, depth, unclosed) {
  for (const [marker, tag] of EMPHASIS) {
    if (!text.startsWith(marker, at) || unclosed.has(marker)) continue;
    const from = at + marker.length;
    if (from >= text.length || /\s/.test(text[from])) return null;
    if (marker[0] === "_" && at > 0 && WORD.test(text[at - 1])) return null;
    const end = closing(text, from + 1, marker);
    if (end < 0) {
      unclosed.add(marker);
      continue;
    }
    return { nodes: [el(tag, {}, inline(text.slice(from, end), context, depth + 1))], end: end + marker.length };
  }
  return null;
}

/** Where the closing marker stands, or -1. @param {string} text @param {number} from @param {string} marker */
function closing(text, from, marker) {
  for (let end = text.indexOf(marker, from); end >= 0; end = text.indexOf(marker, end + 1)) {
    const after = text[end + marker.length] ?? "";
    if (/\s/.test(text[end - 1])) continue;
    if (marker === "*" && (after === "*" || text[end - 1] === "*")) continue;
    if (marker[0] === "_" && WORD.test(after)) continue;
    return end;
  }
  return -1;
}

/** @param {string} address @param {string} label */
function linkNode(address, label) {
  const href = safeAddress(address);
  if (!href) return document.createTextNode(label);
  return el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
}

/** The address if a click on it can only open a page or a mail, otherwise null. @param {string} address */
export function safeAddress(address) {
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

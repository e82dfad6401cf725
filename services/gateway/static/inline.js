// @ts-check
/** The inline part of the Markdown subset: emphasis, code, links, addresses and citation marks, as DOM nodes. */

import { el } from "./elements.js";
import { CLOSE, SIGN, signNumber, withoutSigns } from "./support.js";

/**
 * `citation` gives the node for `[n]`, or null where there is no such source; `version` changes whenever the same text
 * would look different. Where the text holds the signs of support.js, what they enclose is told apart by its number,
 * and so are the marks behind it.
 * @typedef {{ citation: (n: number) => Node | null, version: string }} Context
 */

const MAX_DEPTH = 6;

const SPECIAL = /[\\`*_~![\u3010\ufdda\ufddb]|https?:\/\//g;
const LINK = /!?\[([^\][\n]{0,300})\]\(<?([^\s()<>]{1,2000})>?(?:\s+"[^"\n]{0,300}")?\)/y;
const CITATION = /[[\u3010]((?:\d{1,3})(?:\s?[,\uff0c\u3001]\s?\d{1,3}){0,19})[\]\u3011]/y;
// Chinese text runs on right after an address, without a space: its letters and punctuation end one.
const ADDRESS = /https?:\/\/[^\s<>"'`\u201c\u201d\u3000-\u303f\u4e00-\u9fff\uff00-\uffef\ufdd0-\ufddf]{1,2000}/y;
const ESCAPE = /\\([\\`*_{}[\]()#+\-.!>~|])/y;
const EMPHASIS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "s"],
  ["*", "em"],
  ["_", "em"],
];
const WORD = /[\p{Letter}\p{Number}]/u;

/**
 * Which support the text is in, and behind which one; empty = none.
 * @typedef {{ within: string, behind: string }} Place
 */

/** @param {string} text @param {Context} context @returns {Node[]} */
export function inline(text, context) {
  return run(text, context, 0, { within: "", behind: "" });
}

/** @param {string} text @param {Context} context @param {number} depth @param {Place} place @returns {Node[]} */
function run(text, context, depth, place) {
  /** @type {Node[]} */
  const nodes = [];
  /** Markers that have no closing partner further on, so that each is searched for once. @type {Set<string>} */
  const unclosed = new Set();
  let plain = "";
  const flush = () => {
    if (plain) nodes.push(placed(document.createTextNode(plain), place));
    if (plain.trim()) place.behind = "";
    plain = "";
  };
  for (let at = 0; at < text.length;) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    if (next === text.length) break;
    const sign = match(SIGN, text, next);
    if (sign) {
      flush();
      Object.assign(
        place,
        sign[1] ? { within: signNumber(sign[1]), behind: "" } : { within: "", behind: place.within },
      );
      at = next + sign[0].length;
      continue;
    }
    const found = special(text, next, context, depth, unclosed, place, flush);
    if (found) {
      flush();
      nodes.push(...found.nodes);
      at = found.end;
    } else {
      plain += text[next];
      at = next + 1;
    }
  }
  flush();
  return nodes;
}

/** A piece of the text, told apart if it is supported. @param {Node} node @param {Place} place */
function placed(node, place) {
  return place.within ? el("span", { class: "supported", "data-support": place.within }, node) : node;
}

/** @typedef {{ nodes: Node[], end: number } | null} Found */

/**
 * What stands at `at`, if it is more than text.
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 * @param {number} depth
 * @param {Set<string>} unclosed
 * @param {Place} place
 * @param {() => void} flush what was read so far has its place before `place` may change
 * @returns {Found}
 */
function special(text, at, context, depth, unclosed, place, flush) {
  /** @param {Node} node @param {number} length @returns {Found} */
  const one = (node, length) => ({ nodes: [placed(node, place)], end: at + length });
  const escaped = match(ESCAPE, text, at);
  if (escaped) return one(document.createTextNode(escaped[1]), 2);
  if (text[at] === "`") {
    const [node, length] = codeSpan(text, at, unclosed);
    flush();
    const found = one(node, length);
    // A mark inside of code is none in the page, so what it would end goes no further.
    if (text.slice(at, at + length).includes(CLOSE)) place.within = "";
    return found;
  }
  const link = match(LINK, text, at);
  if (link) return one(linkNode(link[2], link[1] || link[2]), link[0].length);
  const citation = match(CITATION, text, at);
  if (citation) return citationNodes(citation, at, context, place, flush);
  const address = match(ADDRESS, text, at);
  if (address) {
    const url = address[0].replace(/[.,;:!?)\]*_~]+$/, "");
    return one(linkNode(url, url), url.length);
  }
  return depth < MAX_DEPTH ? emphasis(text, at, context, depth, unclosed, place, flush) : null;
}

/** @param {RegExp} pattern sticky @param {string} text @param {number} at */
function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** @param {string} text @param {number} at @param {Set<string>} unclosed @returns {[Node, number]} */
function codeSpan(text, at, unclosed) {
  const ticks = /** @type {RegExpExecArray} */ (match(/`+/y, text, at))[0];
  const end = unclosed.has(ticks) ? -1 : text.indexOf(ticks, at + ticks.length);
  if (end < 0) {
    unclosed.add(ticks);
    return [document.createTextNode(ticks), ticks.length];
  }
  return [el("code", {}, withoutSigns(text.slice(at + ticks.length, end))), end + ticks.length - at];
}

/**
 * `[2]`, `[1, 3]`: one node per source that exists; the mark stays text when none does.
 * @param {RegExpExecArray} found
 * @param {number} at
 * @param {Context} context
 * @param {Place} place
 * @param {() => void} flush
 * @returns {Found}
 */
function citationNodes(found, at, context, place, flush) {
  const numbers = found[1].split(/[,\uff0c\u3001]/).map((part) => Number.parseInt(part, 10));
  const nodes = numbers.map((n) => context.citation(n));
  if (!nodes.every((node) => node !== null)) return null;
  flush();
  for (const node of nodes) if (place.behind && node instanceof HTMLElement) node.dataset.support = place.behind;
  return { nodes: /** @type {Node[]} */ (nodes), end: at + found[0].length };
}

/**
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 * @param {number} depth
 * @param {Set<string>} unclosed
 * @param {Place} place
 * @param {() => void} flush
 * @returns {Found}
 */
function emphasis(text, at, context, depth, unclosed, place, flush) {
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
    flush();
    return { nodes: [el(tag, {}, run(text.slice(from, end), context, depth + 1, place))], end: end + marker.length };
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

/** @param {string} signedAddress @param {string} signedLabel */
function linkNode(signedAddress, signedLabel) {
  const label = withoutSigns(signedLabel);
  const href = safeAddress(withoutSigns(signedAddress));
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

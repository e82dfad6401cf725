// @ts-check
/**
 * A safe subset of Markdown, built as DOM nodes: headings, lists, quotes, code, emphasis, links and citation marks.
 * HTML in the text stays text, images become links, and only http, https and mailto links are links.
 * Every step is linear in the length of the text, because the text comes from models and documents.
 */

import { el, icon } from "./elements.js";
import { t } from "./i18n.js";

/** @typedef {{ type: string, raw: string, text: string, level?: number, info?: string, items?: Item[],
 *   children?: Block[], ordered?: boolean, start?: number }} Block */
/** @typedef {{ text: string, children: Block[] }} Item */
/** `citation` gives the node for `[n]`, or null where there is no such source. @typedef {{ citation: (n: number) => Node | null, version: string }} Context */

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]{0,30})/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const LIST = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const MAX_DEPTH = 6;

/** @param {string} text @param {number} [depth] @returns {Block[]} */
export function parseBlocks(text, depth = 0) {
  const lines = text.split("\n");
  /** @type {Block[]} */
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, end] = readBlock(lines, at, depth);
    blocks.push({ ...block, raw: lines.slice(at, end).join("\n") });
    at = end;
  }
  return blocks;
}

/** The block that begins at line `at`, and the line after it. @param {string[]} lines @param {number} at @param {number} depth @returns {[Omit<Block, "raw">, number]} */
function readBlock(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return readCode(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ type: "heading", level: heading[1].length, text: heading[2] }, at + 1];
  if (RULE.test(line)) return [{ type: "rule", text: "" }, at + 1];
  if (QUOTE.test(line) && depth < MAX_DEPTH) {
    const end = runOf(lines, at, (next) => QUOTE.test(next));
    const text = lines.slice(at, end).map((next) => next.replace(QUOTE, "$1"));
    return [{ type: "quote", text: "", children: parseBlocks(text.join("\n"), depth + 1) }, end];
  }
  if (LIST.test(line) && depth < MAX_DEPTH) return readList(lines, at, depth);
  const end = Math.max(at + 1, runOf(lines, at, (next) => Boolean(next.trim()) && !startsBlock(next)));
  return [{ type: "paragraph", text: lines.slice(at, end).join("\n").trim() }, end];
}

/** @param {string} line */
function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || LIST.test(line);
}

/** @param {string[]} lines @param {number} at @param {(line: string) => boolean} belongs */
function runOf(lines, at, belongs) {
  let end = at;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return end;
}

/** A fence that is still open runs to the end: the rest has not been streamed yet. @param {string[]} lines @param {number} at @param {RegExpExecArray} fence @returns {[Omit<Block, "raw">, number]} */
function readCode(lines, at, fence) {
  const end = runOf(lines, at + 1, (line) => !(line.trim().startsWith(fence[1]) && /^[`~]+$/.test(line.trim())));
  return [{ type: "code", info: fence[2], text: lines.slice(at + 1, end).join("\n") }, Math.min(end + 1, lines.length)];
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {[Omit<Block, "raw">, number]} */
function readList(lines, at, depth) {
  const [, margin, marker] = /** @type {RegExpExecArray} */ (LIST.exec(lines[at]));
  const ordered = /\d/.test(marker);
  /** @type {string[][]} */
  const items = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const item = LIST.exec(line);
    const indent = line.length - line.trimStart().length;
    if (item && indent <= margin.length + 1) {
      if (/\d/.test(item[2]) !== ordered) break;
      items.push([item[3]]);
    } else if (line.trim()) {
      if (indent <= margin.length && (startsBlock(line) || !lines[end - 1].trim())) break;
      items[items.length - 1].push(line);
    } else {
      const next = lines[end + 1] ?? "";
      if (!LIST.test(next) && next.length - next.trimStart().length <= margin.length) break;
      items[items.length - 1].push("");
    }
  }
  const start = ordered ? Number.parseInt(marker, 10) : undefined;
  return [{ type: "list", ordered, start, text: "", items: items.map((item) => readItem(item, depth)) }, end];
}

/** @param {string[]} lines @param {number} depth @returns {Item} */
function readItem(lines, depth) {
  const rest = runOf(lines, 1, (line) => Boolean(line.trim()) && !startsBlock(line));
  const text = lines.slice(0, rest).map((line) => line.trim());
  const inner = lines.slice(rest);
  const margin = Math.min(...inner.filter((line) => line.trim()).map((line) => line.length - line.trimStart().length), 99);
  return { text: text.join("\n"), children: parseBlocks(inner.map((line) => line.slice(margin)).join("\n"), depth + 1) };
}

// --- blocks to nodes --------------------------------------------------------------------------------------------------

/** @type {WeakMap<Element, string[]>} */
const shown = new WeakMap();

/**
 * Show `text` in `container`. Blocks that did not change keep their nodes, so streaming neither flickers nor costs more
 * and more.
 * @param {HTMLElement} container
 * @param {string} text
 * @param {Context} context `version` changes whenever the same text would look different
 */
export function renderMarkdown(container, text, context) {
  const blocks = parseBlocks(text);
  const keys = blocks.map((block) => `${context.version}\n${block.raw}`);
  const before = shown.get(container) ?? [];
  let same = 0;
  while (same < keys.length && keys[same] === before[same]) same += 1;
  const focused = [...container.querySelectorAll("button")].indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
  while (container.children.length > same) container.lastElementChild?.remove();
  container.append(...blocks.slice(same).map((block) => blockNode(block, context)));
  if (focused >= 0 && document.activeElement === document.body) {
    container.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  }
  shown.set(container, keys);
}

/** @param {Block} block @param {Context} context @returns {HTMLElement} */
function blockNode(block, context) {
  switch (block.type) {
    case "heading":
      // The page's own headings are h1 and h2.
      return el(`h${Math.min(6, 2 + (block.level ?? 1))}`, {}, inline(block.text, context));
    case "rule":
      return el("hr");
    case "quote":
      return el("blockquote", {}, (block.children ?? []).map((inner) => blockNode(inner, context)));
    case "list":
      return listNode(block, context);
    case "code":
      return codeNode(block);
    default:
      return el("p", {}, inline(block.text, context));
  }
}

/** @param {Block} block @param {Context} context */
function listNode(block, context) {
  const items = (block.items ?? []).map((item) =>
    el("li", {}, inline(item.text, context), item.children.map((child) => blockNode(child, context))),
  );
  return el(block.ordered ? "ol" : "ul", { start: block.start !== 1 && block.start }, items);
}

/** @param {Block} block */
function codeNode(block) {
  const copy = el(
    "button",
    { type: "button", class: "quiet", "aria-label": t("code.copy"), onclick: () => copyText(block.text) },
    icon("copy"),
  );
  return el(
    "figure",
    { class: "code" },
    el("figcaption", {}, el("span", {}, block.info || " "), copy),
    el("pre", { tabindex: "0" }, el("code", {}, block.text)),
  );
}

/** Whether it worked. @param {string} text @returns {Promise<boolean>} */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/** The way that also works on a plain http address. @param {string} text */
function copyBySelection(text) {
  const field = /** @type {HTMLTextAreaElement} */ (el("textarea", { class: "visually-hidden", "aria-hidden": "true" }));
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

// --- inline -----------------------------------------------------------------------------------------------------------

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
  for (let at = 0; at < text.length; ) {
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

/** What stands at `at`, if it is more than text. @param {string} text @param {number} at @param {Context} context @param {number} depth @param {Set<string>} unclosed @returns {Found} */
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

/** `[2]`, `[1, 3]`: one node per source that exists; the mark stays text when none does. @param {RegExpExecArray} found @param {number} at @param {Context} context @returns {Found} */
function citationNodes(found, at, context) {
  const numbers = found[1].split(/[,\uff0c\u3001]/).map((part) => Number.parseInt(part, 10));
  const nodes = numbers.map((n) => context.citation(n));
  if (!nodes.every((node) => node !== null)) return null;
  return { nodes: /** @type {Node[]} */ (nodes), end: at + found[0].length };
}

/** @param {string} text @param {number} at @param {Context} context @param {number} depth @param {Set<string>} unclosed @returns {Found} */
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

// @ts-check
/**
 * A safe subset of Markdown, built as DOM nodes: headings, lists, quotes, code, tables, and what inline.js knows.
 * HTML in the text stays text, images become links, and only http, https and mailto links are links.
 * Every step is linear in the length of the text, because the text comes from models and documents.
 */

import { copyText } from "./clipboard.js";
import { el, icon } from "./elements.js";
import { t } from "./i18n.js";
import { inline } from "./inline.js";
import { withoutSigns } from "./support.js";

/** @typedef {{ type: string, raw: string, text: string, level?: number, info?: string, items?: Item[],
 *   children?: Block[], rows?: string[][], ordered?: boolean, start?: number }} Block */
/** @typedef {{ text: string, children: Block[] }} Item */
/** @typedef {import("./inline.js").Context} Context */

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]{0,30})/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const LIST = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_RULE = /^ {0,3}\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;
const MAX_COLUMNS = 50;
const MAX_DEPTH = 6;

/** @param {string} text @param {number} [depth] @returns {Block[]} */
export function parseBlocks(text, depth = 0) {
  const lines = text.split("\n");
  /** @type {Block[]} */
  const blocks = [];
  for (let at = 0; at < lines.length;) {
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

/**
 * The block that begins at line `at`, and the line after it.
 * @param {string[]} lines
 * @param {number} at
 * @param {number} depth
 * @returns {[Omit<Block, "raw">, number]}
 */
function readBlock(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return readCode(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ type: "heading", level: heading[1].length, text: heading[2].trim() }, at + 1];
  if (RULE.test(line)) return [{ type: "rule", text: "" }, at + 1];
  if (QUOTE.test(line) && depth < MAX_DEPTH) {
    const end = runOf(lines, at, (next) => QUOTE.test(next));
    const text = lines.slice(at, end).map((next) => next.replace(QUOTE, "$1"));
    return [{ type: "quote", text: "", children: parseBlocks(text.join("\n"), depth + 1) }, end];
  }
  if (LIST.test(line) && depth < MAX_DEPTH) return readList(lines, at, depth);
  if (line.includes("|") && (lines[at + 1] ?? "").includes("|") && TABLE_RULE.test(lines[at + 1])) {
    const end = runOf(lines, at, (next) => next.includes("|"));
    const rows = lines.slice(at, end).map(readCells);
    return [{ type: "table", text: "", rows: rows.filter((_, index) => index !== 1) }, end];
  }
  const end = runOf(lines, at + 1, (next) => Boolean(next.trim()) && !startsBlock(next));
  return [{ type: "paragraph", text: lines.slice(at, end).join("\n").trim() }, end];
}

/** @param {string} line */
function readCells(line) {
  const cells = line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|", MAX_COLUMNS);
  return cells.map((cell) => cell.trim());
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

/**
 * A fence that is still open runs to the end: the rest has not been streamed yet.
 * @param {string[]} lines
 * @param {number} at
 * @param {RegExpExecArray} fence
 * @returns {[Omit<Block, "raw">, number]}
 */
function readCode(lines, at, fence) {
  const end = runOf(lines, at + 1, (line) => !(line.trim().startsWith(fence[1]) && /^[`~]+$/.test(line.trim())));
  const text = withoutSigns(lines.slice(at + 1, end).join("\n"));
  return [{ type: "code", info: fence[2], text }, Math.min(end + 1, lines.length)];
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
  let margin = Infinity;
  for (const line of inner) if (line.trim()) margin = Math.min(margin, line.length - line.trimStart().length);
  return {
    text: text.join("\n"),
    children: parseBlocks(inner.map((line) => line.slice(margin)).join("\n"), depth + 1),
  };
}

// --- blocks to nodes --------------------------------------------------------------------------------------------------

/** @type {WeakMap<Element, string[]>} */
const shown = new WeakMap();

/**
 * Show `text` in `container`. Blocks that did not change keep their nodes, so streaming neither flickers nor costs more
 * and more.
 * @param {HTMLElement} container
 * @param {string} text
 * @param {Context} context
 */
export function renderMarkdown(container, text, context) {
  const blocks = parseBlocks(text);
  const keys = blocks.map((block) => `${context.version}\n${block.raw}`);
  const before = shown.get(container) ?? [];
  let same = 0;
  while (same < keys.length && keys[same] === before[same]) same += 1;
  const focused = [...container.querySelectorAll("button")].indexOf(
    /** @type {HTMLButtonElement} */ (document.activeElement),
  );
  while (container.children.length > same) container.lastElementChild?.remove();
  for (const block of blocks.slice(same)) container.append(blockNode(block, context));
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
      return el(
        "blockquote",
        {},
        (block.children ?? []).map((inner) => blockNode(inner, context)),
      );
    case "list":
      return listNode(block, context);
    case "code":
      return codeNode(block);
    case "table":
      return tableNode(block, context);
    default:
      return el("p", {}, inline(block.text, context));
  }
}

/** @param {Block} block @param {Context} context */
function listNode(block, context) {
  const items = (block.items ?? []).map((item) =>
    el(
      "li",
      {},
      inline(item.text, context),
      item.children.map((child) => blockNode(child, context)),
    ),
  );
  return el(block.ordered ? "ol" : "ul", { start: block.start !== 1 && block.start }, items);
}

/** @param {Block} block @param {Context} context */
function tableNode(block, context) {
  const [head, ...body] = block.rows ?? [];
  /** @param {string} tag */
  const cells = (tag) => (/** @type {string} */ cell) => el(tag, {}, inline(cell, context));
  const rows = body.map((row) => el("tr", {}, row.map(cells("td"))));
  const table = el("table", {}, el("thead", {}, el("tr", {}, head.map(cells("th")))), el("tbody", {}, rows));
  // A wide table scrolls by itself, also by keyboard.
  return el("div", { class: "table", tabindex: "0" }, table);
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

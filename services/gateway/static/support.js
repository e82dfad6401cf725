// @ts-check
/**
 * Which part of an answer each citation supports. No DOM.
 *
 * The rule: what stands before the mark, back to the end of the sentence, line, table cell or citation before. A mark
 * behind a full stop supports the sentence that ends there. Marks that stand together support the same.
 */

/** @typedef {import("./baton.js").Citation} Citation */
/** `marks` are the numbers. @typedef {{ start: number, end: number, marks: number[] }} Support */

/** Characters that no text should hold (Unicode's noncharacters), to carry the supports through Markdown. */
const OPEN = "\ufdda";
export const CLOSE = "\ufddb";
const FIRST_DIGIT = 0xfdd0;
const SIGNS = /[\ufdd0-\ufddf]/g;
/** A sign with its number, as the text holds it; the second group is there for the end of a support. */
export const SIGN = /\ufdda([\ufdd0-\ufdd9]+)|(\ufddb)/y;

const ABBREVIATIONS = new Set(
  (
    "mr mrs ms dr prof sr jr st no nos vs etc e.g i.e eg ie cf al approx max min fig figs eq sec ch p pp vol ed inc ltd " +
    "co corp dept gov u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec"
  ).split(" "),
);
const LONGEST_WORD = 8;
/** Ends of sentences, lines and cells. Runs are bounded, so that no text makes the search slow. */
const BOUNDARY =
  /[\u3002\uff01\uff1f][\u201d\u2019\u300d\u300f\uff09\u300b)"'*_]{0,5}|[.!?\u2026][)"'\u201d\u2019\]*_]{0,5}\s|\n|\|/g;
/** What may stand between the end of a sentence and its mark, and between marks that stand together. */
const ENDING = /[\s.!?\u2026\u3002\uff01\uff1f\uff1b;:\uff1a,\uff0c)"'\u201d\u2019\u300d\u300f\uff09\u300b*_~]/;
/** What begins a line in Markdown without being said. */
const LEAD = /(?:[ \t\u3000]|[-*+\u2022](?=\s)|\d{1,9}[.)](?=\s)|#{1,6}(?=\s)|>|\|)*/y;
const SAYS_SOMETHING = /[\p{Letter}\p{Number}]/u;

/**
 * The supported parts of `text`, in order; they do not overlap.
 * @param {string} text
 * @param {readonly Citation[]} marks in UTF-16 units, in order: what `citationRanges` or `marksIn` of baton.js give
 * @returns {Support[]}
 */
export function supports(text, marks) {
  /** @type {Support[]} */
  const found = [];
  let floor = 0;
  const line = { start: 0 };
  for (let at = 0; at < marks.length;) {
    const first = at;
    for (at += 1; at < marks.length && together(text, marks[at - 1].end, marks[at].start);) at += 1;
    const start = beginning(text, floor, marks[first].start, line);
    const end = withoutTrailingSpace(text, start, marks[first].start);
    floor = marks[at - 1].end;
    if (SAYS_SOMETHING.test(text.slice(start, end)))
      found.push({ start, end, marks: marks.slice(first, at).map((mark) => mark.n) });
  }
  return found;
}

/** @param {string} text @param {number} from @param {number} to */
function together(text, from, to) {
  return to >= from && to - from <= 2 && /^[ ,\uff0c\u3001]*$/.test(text.slice(from, to));
}

/** @param {string} text @param {number} floor @param {number} end */
function withoutTrailingSpace(text, floor, end) {
  while (end > floor && /\s/.test(text[end - 1])) end -= 1;
  return end;
}

/**
 * Where the sentence before a mark at `end` begins. `line` is where the line of `floor` begins, and is moved on.
 * @param {string} text
 * @param {number} floor
 * @param {number} end
 * @param {{ start: number }} line
 */
function beginning(text, floor, end, line) {
  let last = end;
  // A full stop right before the mark ends the sentence that is meant, not the one before it.
  while (last > floor && text[last - 1] !== "\n" && ENDING.test(text[last - 1])) last -= 1;
  let start = floor;
  for (const [boundary, at] of boundaries(text, floor, last)) {
    if (endsPart(text, at, boundary, line.start)) start = at + boundary.length;
    if (boundary.endsWith("\n")) line.start = at + boundary.length;
  }
  if (start === floor && floor > 0) while (start < last && ENDING.test(text[start])) start += 1;
  LEAD.lastIndex = start;
  const lead = start === line.start ? (LEAD.exec(text)?.[0].length ?? 0) : leadingSpace(text, start);
  return Math.min(last, start + lead);
}

/** @param {string} text @param {number} from @param {number} to @returns {Generator<[string, number]>} */
function* boundaries(text, from, to) {
  for (const found of text.slice(from, to).matchAll(BOUNDARY)) yield [found[0], from + found.index];
}

/** @param {string} text @param {number} at @param {string} boundary @param {number} line where its line begins */
function endsPart(text, at, boundary, line) {
  // A bar is the edge of a cell where its line begins with one.
  if (boundary === "|")
    return text
      .slice(line, line + 4)
      .trimStart()
      .startsWith("|");
  return !/[.!?\u2026]/.test(boundary[0]) || boundary.endsWith("\n") || endsSentence(text, at, boundary.length, line);
}

/** @param {string} text @param {number} at */
function leadingSpace(text, at) {
  let end = at;
  while (end < text.length && /[ \t\u3000]/.test(text[end])) end += 1;
  return end - at;
}

/**
 * Not `e.g. this`, `No. 5`, `1. First`.
 * @param {string} text
 * @param {number} at of the stop
 * @param {number} length of the stop and what belongs to it
 * @param {number} line where its line begins
 */
function endsSentence(text, at, length, line) {
  if (/\p{Lowercase}/u.test(text[at + length] ?? "")) return false;
  if (text[at] !== ".") return true;
  const before = text.slice(Math.max(line, at - LONGEST_WORD), at);
  if (/^\s*\d{1,3}$/.test(before)) return before.length < at - line;
  const word = /(?:^|[^\p{Letter}\p{Number}])([\p{Letter}.]+)$/u.exec(before)?.[1] ?? "";
  return !ABBREVIATIONS.has(word.toLowerCase());
}

// --- through Markdown -------------------------------------------------------------------------------------------------

/**
 * The text with a sign at each end of each support, which `renderMarkdown` understands. Support number k of the list
 * is number k in the page.
 * @param {string} text
 * @param {readonly Support[]} list
 */
export function withSigns(text, list) {
  const clean = text.replace(SIGNS, "\ufffd");
  let signed = "";
  let at = 0;
  list.forEach(({ start, end }, index) => {
    const digits = [...String(index)].map((digit) => String.fromCharCode(FIRST_DIGIT + Number(digit))).join("");
    signed += `${clean.slice(at, start)}${OPEN}${digits}${clean.slice(start, end)}${CLOSE}`;
    at = end;
  });
  return signed + clean.slice(at);
}

/** For text that is shown as it is: without signs. @param {string} text */
export function withoutSigns(text) {
  return text.replace(SIGNS, "");
}

/** The number in a sign. @param {string} digits */
export function signNumber(digits) {
  return [...digits].map((digit) => digit.charCodeAt(0) - FIRST_DIGIT).join("");
}

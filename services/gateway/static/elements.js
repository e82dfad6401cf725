// @ts-check
/**
 * Building DOM nodes. Text only ever becomes text nodes: nothing in this page parses markup that came from elsewhere.
 */

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element with attributes and children. An attribute that is null, undefined or false is left out; `on…` functions
 * become listeners.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) if (child) node.append(child);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** An icon of the sprite in index.html; decoration only, so a label belongs beside it. @param {string} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

const HAN = /\p{Script=Han}/gu;
const LATIN = /\p{Script=Latin}+/gu;

/** `zh`, `en`, or null where the text shows neither. @param {string} text @returns {"zh" | "en" | null} */
export function languageOf(text) {
  const sample = text.slice(0, 2000);
  const han = sample.match(HAN)?.length ?? 0;
  const words = sample.match(LATIN)?.length ?? 0;
  if (han === 0 && words === 0) return null;
  return han >= words ? "zh" : "en";
}

/** The `lang` attribute for a text. @param {string} text */
export function langAttribute(text) {
  const language = languageOf(text);
  return language === "zh" ? "zh-CN" : language;
}

/**
 * Make `node` look like `wanted` with the elements that it has: one that were replaced while it is pressed would hear of
 * no click, and one that is focused would lose the focus. Children are known by their tag, `data-key` and `data-what`.
 * An element that stays keeps its listeners.
 * @param {Element} node
 * @param {Element} wanted is taken apart
 */
export function become(node, wanted) {
  for (const { name } of [...node.attributes]) if (!wanted.hasAttribute(name)) node.removeAttribute(name);
  for (const { name, value } of wanted.attributes)
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  const there = [...node.childNodes];
  const children = [...wanted.childNodes].map((child) => {
    const at = there.findIndex((each) => sameKind(each, child));
    if (at < 0) return child;
    const [kept] = there.splice(at, 1);
    if (kept instanceof Element) become(kept, /** @type {Element} */ (child));
    else if (kept.nodeValue !== child.nodeValue) kept.nodeValue = child.nodeValue;
    return kept;
  });
  for (const gone of there) gone.remove();
  children.forEach((child, index) => {
    if (node.childNodes[index] !== child) node.insertBefore(child, node.childNodes[index] ?? null);
  });
}

/** @param {any} a @param {any} b */
function sameKind(a, b) {
  return a.nodeName === b.nodeName && a.dataset?.key === b.dataset?.key && a.dataset?.what === b.dataset?.what;
}

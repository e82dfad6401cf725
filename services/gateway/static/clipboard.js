// @ts-check
/** Copying, also where a page is not served over https and the browser hides its clipboard. */

import { el } from "./elements.js";

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
  const field = /** @type {HTMLTextAreaElement} */ (
    el("textarea", { class: "visually-hidden", "aria-hidden": "true" })
  );
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

// @ts-check
/** Which conversation the page's address names: `#/c/<id>`; anything else means a new one. */

const PATTERN = /^#\/c\/([A-Za-z0-9_-]{1,64})$/;

/** @returns {string | null} */
export function conversationInAddress() {
  return PATTERN.exec(location.hash)?.[1] ?? null;
}

/** @param {string | null} id */
export function addressOf(id) {
  return id === null ? "#/" : `#/c/${id}`;
}

/**
 * @param {string | null} id
 * @param {"push" | "replace"} how whether "back" should lead to what is in the address now
 */
export function nameInAddress(id, how) {
  if (conversationInAddress() === id) return;
  if (how === "push") history.pushState(null, "", addressOf(id));
  else history.replaceState(null, "", addressOf(id));
}

// @ts-check
/** What the browser remembers for the page, where it lets it. */

/** @param {Storage} storage @param {string} name */
export function recall(storage, name) {
  try {
    return storage.getItem(`baton.${name}`);
  } catch {
    return null;
  }
}

/** @param {Storage} storage @param {string} name @param {string | null} value null = forget it */
export function remember(storage, name, value) {
  try {
    if (value === null) storage.removeItem(`baton.${name}`);
    else storage.setItem(`baton.${name}`, value);
  } catch {
    // No storage, or it is full: the page works, it only forgets.
  }
}

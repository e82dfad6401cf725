// @ts-check
/** Files and folders that are dragged onto the page or chosen in a dialog. */

/** `name` has the folders in it. @typedef {{ file: File, name: string }} Named */

/** Most files that are read of one drop. */
export const MOST = 5_000;

/** @param {FileList | null} files @returns {Named[]} */
export function picked(files) {
  return [...(files ?? [])].slice(0, MOST + 1).map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

/** @param {DataTransfer} transfer @returns {Promise<Named[]>} */
export async function dropped(transfer) {
  // All at once: after the first wait the browser has forgotten what was dropped.
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const found = items.map((item) => ({ entry: item.webkitGetAsEntry?.() ?? null, file: item.getAsFile() }));
  /** @type {Named[]} */
  const named = [];
  for (const { entry, file } of found) {
    if (entry) await collect(entry, named);
    else if (file) named.push({ file, name: file.name });
  }
  return named;
}

/** @param {any} entry a FileSystemEntry @param {Named[]} named */
async function collect(entry, named) {
  if (named.length > MOST) return;
  if (entry.isFile) {
    /** @type {File | null} */
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file) named.push({ file, name: entry.fullPath.replace(/^\//, "") || file.name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    /** @type {any[]} */
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (some.length === 0) return;
    for (const each of some) await collect(each, named);
  }
}

/**
 * Show `overlay` while files hang over the page, and hand over what is dropped.
 * @param {HTMLElement} overlay
 * @param {{ wanted: () => boolean, drop: (transfer: DataTransfer) => void }} hooks
 */
export function watchDrops(overlay, { wanted, drop }) {
  /** @param {DragEvent} event */
  const files = (event) => Boolean(event.dataTransfer?.types.includes("Files"));
  window.addEventListener("dragleave", (event) => {
    // Not from one element to another. What is drawn anew below the pointer is never left, so leaves are not counted.
    if (!event.relatedTarget) overlay.hidden = true;
  });
  // Where something else has come below the pointer the browser tells only that it was entered, and asks that alone
  // whether the files may fall.
  for (const kind of /** @type {const} */ (["dragenter", "dragover"])) {
    window.addEventListener(kind, (event) => {
      if (!files(event)) return;
      // Also where nothing is wanted: the browser would leave the page and open the file.
      event.preventDefault();
      overlay.hidden = !wanted();
      if (event.dataTransfer) event.dataTransfer.dropEffect = wanted() ? "copy" : "none";
    });
  }
  window.addEventListener("drop", (event) => {
    if (!files(event) || !event.dataTransfer) return;
    event.preventDefault();
    overlay.hidden = true;
    if (wanted()) drop(event.dataTransfer);
  });
}

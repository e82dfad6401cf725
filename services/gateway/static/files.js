// @ts-check
/**
 * The documents of whoever holds the client's token, over the gateway's HTTP addresses. No DOM, like baton.js. Every
 * function rejects with a `ConversationError`.
 */

import { address, ConversationError, failure, request } from "./conversations.js";

/** @typedef {import("./baton.js").BatonClient} BatonClient */
/**
 * @typedef {{ file: string, name: string, state: string, document_id?: string, title?: string, passages?: number,
 *   bytes: number, done?: number, total?: number, error?: string, updated_ms: number, mine: boolean }} StoredFile
 */
/** @typedef {{ files: StoredFile[], truncated: boolean, may_upload?: boolean, max_bytes?: number }} FileList */

/** @param {BatonClient} client @returns {Promise<FileList>} */
export async function listFiles(client) {
  const { files, ...more } = await request(client, "GET", "documents");
  return { ...more, files: Array.isArray(files) ? files : [] };
}

/** By its own id or that of its document. @param {BatonClient} client @param {string} id */
export async function removeFile(client, id) {
  await request(client, "DELETE", `documents/${encodeURIComponent(id)}`);
}

/**
 * Bring in one file; what it was queued as.
 * @param {BatonClient} client
 * @param {File} file
 * @param {string} name with its folders
 * @param {(sent: number, of: number) => void} progress
 * @returns {Promise<StoredFile>}
 */
export async function uploadFile(client, file, name, progress) {
  const token = await client.currentToken().catch(() => null);
  const form = new FormData();
  form.append("file", file, name);
  // `fetch` cannot tell how much it has sent.
  const sending = new XMLHttpRequest();
  sending.open("POST", address(client.url, "documents"));
  sending.responseType = "json";
  if (token) sending.setRequestHeader("Authorization", `Bearer ${token}`);
  sending.upload.addEventListener("progress", (event) => progress(event.loaded, event.total));
  return new Promise((resolve, reject) => {
    for (const kind of ["error", "abort", "timeout"])
      sending.addEventListener(kind, () => reject(new ConversationError(0, "disconnected", "")));
    sending.addEventListener("load", () => {
      const { status, response } = sending;
      if (status === 202 && response?.files?.[0]) resolve(response.files[0]);
      else reject(failure(status, response));
    });
    sending.send(form);
  });
}

/**
 * Tell of every change from now on, until the stream ends or `signal` says so. `began` is called when none is missed
 * any more.
 * @param {BatonClient} client
 * @param {{ began: () => void, changed: (file: StoredFile) => void, signal: AbortSignal }} hooks
 */
export async function watchFiles(client, { began, changed, signal }) {
  const token = await client.currentToken().catch(() => null);
  const headers = { Accept: "text/event-stream", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(address(client.url, "documents/events"), { headers, cache: "no-store", signal });
  if (!response.ok || !response.body) throw failure(response.status, await response.json().catch(() => null));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let first = true;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop() ?? "";
    if (first) began();
    first = false;
    for (const event of events) if (event.startsWith("data: ")) changed(JSON.parse(event.slice(6)));
  }
}

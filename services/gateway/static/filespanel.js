// @ts-check
/** The documents below the list of conversations: bringing them in, and how far each of them is. */

import { documentUrl, openWithToken } from "./documents.js";
import { MOST } from "./dropping.js";
import { become, el, icon, langAttribute } from "./elements.js";
import { listFiles, removeFile, uploadFile, watchFiles } from "./files.js";
import { has, t } from "./i18n.js";
import { conversationProblem } from "./thread.js";

/** @typedef {import("./baton.js").BatonClient} BatonClient */
/** @typedef {import("./conversations.js").ConversationError} ConversationError */
/** @typedef {import("./files.js").StoredFile} StoredFile */
/** @typedef {import("./dropping.js").Named} Named */
/**
 * A file on its way to the server; `taken` where the stream told that it has arrived, before its own answer did.
 * @typedef {Named & { key: number, sent: number | null, taken: boolean, error: string }} Upload
 */
/** @typedef {{ section: HTMLElement, attach: HTMLElement, confirm: HTMLDialogElement }} Parts */
/**
 * `reveal` brings the panel to light; `pick` lets somebody choose files or a folder.
 * @typedef {{ announce: (text: string) => void, reveal: () => void, pick: (folder: boolean) => void }} Hooks
 */

const AT_ONCE = 2;
const MOST_SHOWN = 200;
const AGAIN_MS = 3_000;
const BUSY_MS = 2_000;
const BUSY_TRIES = 30;

export class FilesPanel {
  /** @param {BatonClient} client @param {Parts} parts @param {Hooks} hooks */
  constructor(client, parts, hooks) {
    this.client = client;
    this.parts = parts;
    this.hooks = hooks;
    this.mayUpload = false;
    this.maxBytes = Infinity;
    /** @type {Map<string, StoredFile>} */
    this.files = new Map();
    /** In which order they became known. @type {Map<string, number>} */
    this.ranks = new Map();
    /** What was heard of since a list was asked for, which the list may not know. @type {Map<string, StoredFile>} */
    this.meanwhile = new Map();
    /** @type {Upload[]} */
    this.uploads = [];
    /** What was brought in here, by the file's id, for trying again. @type {Map<string, Named>} */
    this.sources = new Map();
    this.failure = "";
    this.running = 0;
    this.counter = 0;
    /** @type {AbortController | null} */
    this.watching = null;
    this.scheduled = false;
    parts.attach.addEventListener("click", () => hooks.pick(false));
    client.addEventListener("state", () => this.#follow());
    document.addEventListener("visibilitychange", () => this.#follow());
  }

  // --- what is there ---

  /**
   * Watch while somebody looks: a browser opens few connections to one server, and each hidden tab would hold one. A
   * stream that has died tells nobody, so none outlives the connection; nor does it the token that it was asked with.
   */
  #follow() {
    const { state } = this.client;
    if (state !== "online" || document.hidden) this.#stop();
    else if (!this.watching) void this.#watch();
    if (state !== "auth") return;
    // Whoever comes next may be somebody else.
    this.files.clear();
    this.ranks.clear();
    this.sources.clear();
    this.mayUpload = false;
    this.render();
  }

  #stop() {
    this.watching?.abort();
    this.watching = null;
  }

  async #watch() {
    const watching = new AbortController();
    this.watching = watching;
    const { signal } = watching;
    while (!signal.aborted) {
      try {
        await this.#load(signal);
        if (!this.mayUpload) break;
        const began = () => void this.#load(signal).catch(() => null);
        await watchFiles(this.client, { began, changed: (file) => this.#heard(file), signal });
      } catch {
        // Whatever it was: the list is asked for again, and says it.
      }
      // Not all at the same moment: a server that goes away sends everybody at once.
      if (!signal.aborted) await pause(AGAIN_MS * (0.5 + Math.random()));
    }
    if (this.watching === watching) this.watching = null;
  }

  /** @param {AbortSignal} signal */
  async #load(signal) {
    try {
      const meanwhile = new Map();
      this.meanwhile = meanwhile;
      const { files, may_upload: may, max_bytes: most } = await listFiles(this.client);
      if (signal.aborted || this.meanwhile !== meanwhile) return; // who asked later knows better
      this.files = new Map(files.map((file) => [file.file, file]));
      for (const file of [...files].sort((a, b) => a.updated_ms - b.updated_ms)) this.#rank(file);
      for (const file of meanwhile.values()) this.#put(file);
      this.mayUpload = may === true;
      this.maxBytes = most ?? Infinity;
    } catch (error) {
      // A server without documents.
      if (/** @type {ConversationError} */ (error).code === "not_found") this.mayUpload = false;
      else throw error;
    } finally {
      this.render();
    }
  }

  /** @param {StoredFile} file */
  #changed(file) {
    const before = this.files.get(file.file);
    this.meanwhile.set(file.file, file);
    this.#put(file);
    if (before?.mine && file.state === "removed") this.hooks.announce(t("files.announce.removed", before.name));
    if (file.mine && before?.state !== file.state) {
      if (file.state === "ready") this.hooks.announce(t("files.announce.ready", file.name));
      if (file.state === "failed")
        this.hooks.announce(t("files.announce.failed", { name: file.name, why: file.error ?? "" }));
    }
    this.#soon();
  }

  /** @param {StoredFile} file */
  #put(file) {
    const before = this.files.get(file.file);
    if (file.state === "removed") this.files.delete(file.file);
    else if (!before || before.updated_ms <= file.updated_ms) this.files.set(file.file, file);
    if (!before) this.#rank(file);
  }

  /** From the stream. What has arrived is shown itself, and not beside it what brings it in. @param {StoredFile} file */
  #heard(file) {
    const upload = this.uploads.find(
      ({ sent, error, taken, name }) => sent !== null && !error && !taken && name.normalize() === file.name,
    );
    if (upload && file.mine && file.state === "queued") upload.taken = true;
    this.#changed(file);
  }

  // --- bringing in ---

  /** @param {Named[]} named */
  add(named) {
    if (!this.mayUpload || named.length === 0) return;
    this.failure = named.length > MOST ? t("files.too_many", MOST) : "";
    const added = named.slice(0, MOST).map((each) => ({
      ...each,
      key: ++this.counter,
      sent: null,
      taken: false,
      error: "",
    }));
    this.uploads.push(...added);
    this.hooks.announce(t("files.announce.added", added.length));
    this.hooks.reveal();
    this.render();
    this.#next();
  }

  #next() {
    while (this.running < AT_ONCE) {
      const upload = this.uploads.find((each) => each.sent === null && !each.error);
      if (!upload) return;
      upload.sent = 0;
      this.running += 1;
      void this.#send(upload).finally(() => {
        this.running -= 1;
        this.#next();
      });
    }
  }

  /** @param {Upload} upload */
  async #send(upload) {
    try {
      if (upload.file.size > this.maxBytes) throw new Error(t("files.too_large"));
      const stored = await this.#tenaciously(upload);
      this.sources.set(stored.file, { file: upload.file, name: upload.name });
      this.uploads = this.uploads.filter((each) => each !== upload);
      this.#changed(stored);
    } catch (error) {
      Object.assign(upload, { taken: false, error: problem(error) });
      this.hooks.announce(t("files.announce.failed", { name: upload.name, why: upload.error }));
    }
    this.#soon();
  }

  /** Where the server has too much to do, again a little later. @param {Upload} upload */
  async #tenaciously(upload) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await uploadFile(this.client, upload.file, upload.name, (sent, of) => {
          upload.sent = of > 0 ? sent / of : 0;
          this.#soon();
        });
      } catch (error) {
        const { status } = /** @type {ConversationError} */ (error);
        if (![429, 503].includes(status) || tries >= BUSY_TRIES) throw error;
      }
      await pause(BUSY_MS);
    }
  }

  /** @param {Upload} upload */
  #again(upload) {
    Object.assign(upload, { sent: null, error: "" });
    this.render();
    this.#next();
  }

  // --- showing ---

  #soon() {
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => {
      this.scheduled = false;
      this.render();
    }, 50);
  }

  render() {
    const { section, attach } = this.parts;
    section.hidden = !this.mayUpload;
    attach.hidden = !this.mayUpload;
    if (!this.mayUpload) {
      section.replaceChildren();
      return;
    }
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const [key, what] = [focused?.closest("li")?.dataset.key, focused?.dataset.what];
    const place = [...section.querySelectorAll("li")].findIndex((entry) => entry.contains(focused));
    const coming = this.uploads.filter((each) => !each.taken);
    const uploads = coming.slice(0, MOST_SHOWN);
    const stored = [...this.files.values()].sort((a, b) => this.#rank(b) - this.#rank(a));
    const room = MOST_SHOWN - uploads.length;
    const entries = [
      ...uploads.map((each) => this.#upload(each)),
      ...stored.slice(0, room).map((each) => this.#stored(each)),
    ];
    const hidden = coming.length + stored.length - entries.length;
    const wanted = /** @type {HTMLElement} */ (section.cloneNode());
    wanted.append(
      ...[
        this.#bar(),
        this.failure && el("p", { class: "failure", "data-key": "failure", role: "alert" }, this.failure),
        entries.length === 0 && el("p", { class: "empty", "data-key": "empty" }, t("files.empty")),
        entries.length > 0 && el("ul", {}, entries),
        hidden > 0 && el("p", { class: "more", "data-key": "more" }, t("files.more", hidden)),
      ].filter((node) => node instanceof Node),
    );
    become(section, wanted);
    if (what && !focused?.isConnected) this.#focus(key, what, place);
  }

  /** Its place in the list, which it keeps: what moves while it is read cannot be pressed. @param {StoredFile} file */
  #rank({ file }) {
    const rank = this.ranks.get(file) ?? this.ranks.size;
    this.ranks.set(file, rank);
    return rank;
  }

  /**
   * Where the focus was; where that is no more, the entry that has come in its place, or what adds one.
   * @param {string | undefined} key @param {string} what @param {number} place
   */
  #focus(key, what, place) {
    const entries = [...this.parts.section.querySelectorAll("li")];
    const next = entries[Math.min(place, entries.length - 1)]?.dataset.key;
    const found = this.#find(key, what) ?? (next && (this.#find(next, what) ?? this.#find(next)));
    (found || this.#find(undefined, "add"))?.focus({ preventScroll: true });
  }

  /** @param {string | undefined} key @param {string} [what] anything @returns {HTMLElement | null} */
  #find(key, what) {
    const within = key === undefined ? "" : `li[data-key="${CSS.escape(key)}"] `;
    return this.parts.section.querySelector(`${within}[data-what${what ? `="${what}"` : ""}]`);
  }

  #bar() {
    return el(
      "div",
      { class: "documents-bar" },
      el("h2", { id: "documents-title" }, t("files.label")),
      button("folder", "folder", t("files.folder"), () => this.hooks.pick(true)),
      button("add", "new", t("files.add"), () => this.hooks.pick(false)),
    );
  }

  /** @param {Upload} upload */
  #upload(upload) {
    const { key, name, sent, error } = upload;
    const percent = Math.floor(100 * (sent ?? 0));
    let facts = sent === null ? t("files.state.waiting") : t("files.state.uploading", percent);
    if (error) facts = t("files.state.refused", error);
    return el(
      "li",
      { "data-key": `upload-${key}`, "data-state": error ? "refused" : "uploading" },
      el(
        "div",
        { class: error ? "file failed" : "file" },
        el("span", { class: "name", title: name, lang: langAttribute(name) }, name),
        el("span", { class: "facts" }, facts),
        !error && sent !== null && el("progress", { max: 100, value: percent, "aria-label": t("files.progress", name) }),
      ),
      error && button("retry", "again", t("files.retry", name), () => this.#again(upload)),
      error &&
        button("remove", "cross", t("files.remove", name), () => {
          this.uploads = this.uploads.filter((each) => each !== upload);
          this.render();
        }),
    );
  }

  /** @param {StoredFile} file */
  #stored(file) {
    const { state, name } = file;
    const busy = state === "parsing" || state === "writing" || state === "queued";
    const source = this.sources.get(file.file);
    return el(
      "li",
      { "data-key": file.file, "data-state": state },
      el(
        "div",
        { class: state === "failed" ? "file failed" : "file" },
        this.#name(file),
        el("span", { class: "facts" }, stateText(file)),
        busy &&
          el("progress", {
            max: state === "writing" ? Math.max(1, file.total ?? 1) : null,
            value: state === "writing" ? (file.done ?? 0) : null,
            "aria-label": t("files.progress", name),
          }),
      ),
      state === "failed" && source && button("retry", "again", t("files.retry", name), () => this.add([source])),
      file.mine && state !== "removing" && button("remove", "trash", t("files.remove", name), () => this.#ask(file)),
    );
  }

  /** @param {StoredFile} file */
  #name(file) {
    const { name, title, document_id: id } = file;
    if (!id) return el("span", { class: "name", title: name, lang: langAttribute(name) }, name);
    const open = (/** @type {Event} */ event) => {
      const { token } = this.client;
      if (!token) return;
      event.preventDefault();
      const { href } = /** @type {HTMLAnchorElement} */ (event.currentTarget);
      void openWithToken(href, title || name, token, (message) => {
        this.failure = message;
        this.render();
      });
    };
    const attributes = { href: documentUrl(id), target: "_blank", rel: "noopener", title: name, "data-what": "open" };
    return el("a", { class: "name", lang: langAttribute(name), onclick: open, ...attributes }, name);
  }

  // --- removing ---

  /** @param {StoredFile} file */
  #ask(file) {
    const { confirm } = this.parts;
    const failure = el("p", { class: "failure", role: "alert" });
    const sure = el("button", { type: "button", class: "primary danger" }, t("files.remove.sure"));
    const leave = el("button", { type: "button", class: "quiet", onclick: () => confirm.close() }, t("token.cancel"));
    sure.addEventListener("click", async () => {
      failure.textContent = "";
      try {
        await removeFile(this.client, file.file);
      } catch (error) {
        // Gone is gone, whoever removed it.
        if (/** @type {ConversationError} */ (error).code !== "not_found") {
          failure.textContent = problem(error);
          return;
        }
      }
      confirm.close();
    });
    const entries = [...this.parts.section.querySelectorAll("li")];
    const place = entries.findIndex((entry) => entry.dataset.key === file.file);
    confirm.addEventListener("close", () => this.#focus(file.file, "remove", place), { once: true });
    confirm.replaceChildren(
      el(
        "div",
        { class: "dialog-body" },
        el("h2", { id: "confirm-title" }, t("files.remove.title")),
        el("p", { lang: langAttribute(file.name) ?? "" }, file.name),
        el("p", {}, t("files.remove.text")),
        failure,
        el("div", { class: "actions" }, leave, sure),
      ),
    );
    confirm.showModal();
    leave.focus();
  }
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** @param {string} what @param {string} picture @param {string} label @param {() => void} onclick */
function button(what, picture, label, onclick) {
  return el(
    "button",
    { type: "button", class: "quiet", "data-what": what, "aria-label": label, title: label, onclick },
    icon(picture),
  );
}

/** @param {StoredFile} file */
function stateText(file) {
  const { state, done = 0, total = 0, passages = 0, error = "" } = file;
  if (state === "writing") return t("files.state.writing", { done, total });
  if (state === "ready") return t("files.state.ready", passages);
  if (state === "failed") return t("files.state.failed", error);
  return has(`files.state.${state}`) ? t(`files.state.${state}`) : state;
}

/** What went wrong, for people: the server's own words where it said some. @param {unknown} error */
function problem(error) {
  const { code, message } = /** @type {ConversationError} */ (error);
  return message || conversationProblem(/** @type {ConversationError} */ (error)) || code;
}

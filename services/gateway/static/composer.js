// @ts-check
/**
 * The question box: Enter sends, Shift+Enter breaks the line, and Enter that ends a Chinese composition does neither.
 * While an answer runs, the next question can wait for it, or stop it.
 */

import { t } from "./i18n.js";

/**
 * `send` says whether it could: if not, the question stays in the box until `release`.
 * @typedef {{ send: (query: string, ifBusy?: "enqueue" | "interrupt") => boolean, stop: () => void }} Actions
 */

const MAX_HEIGHT = 200;
/** `keyCode` of a key press that an input method handles; Safari reports the last one only so. */
const KEY_OF_INPUT_METHOD = 229;

export class Composer {
  /** @param {HTMLFormElement} form @param {Actions} actions */
  constructor(form, actions) {
    this.form = form;
    this.actions = actions;
    this.field = /** @type {HTMLTextAreaElement} */ (form.querySelector("textarea"));
    this.button = /** @type {HTMLButtonElement} */ (form.querySelector("button[type=submit]"));
    this.interrupt = /** @type {HTMLButtonElement} */ (form.querySelector(".interrupt"));
    this.hint = /** @type {HTMLElement} */ (form.querySelector(".hint"));
    this.running = false;
    this.followup = false;
    /** What could not be sent yet. @type {{ query: string, ifBusy?: "enqueue" | "interrupt" } | null} */
    this.held = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#stops) actions.stop();
      else this.#send();
    });
    this.interrupt.addEventListener("click", () => this.#send("interrupt"));
    this.field.addEventListener("keydown", (event) => this.#key(event));
    this.field.addEventListener("input", () => this.translate());
    this.translate();
  }

  /** @param {boolean} running */
  setRunning(running) {
    this.running = running;
    this.translate();
  }

  /** @param {boolean} followup whether there is a conversation to go on with */
  setFollowup(followup) {
    this.followup = followup;
    this.translate();
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }

  /** Send what could not be sent before, unless it was changed meanwhile. */
  release() {
    const { held } = this;
    if (held && held.query === this.#query) this.#send(held.ifBusy);
  }

  translate() {
    const stops = this.#stops;
    const label = t(stops ? "ask.stop" : this.running ? "ask.next" : "ask.send");
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    this.button.classList.toggle("stop", stops);
    this.button.disabled = !stops && !this.#query;
    this.interrupt.hidden = stops || !this.running;
    this.interrupt.textContent = t("ask.interrupt");
    this.field.placeholder = t(this.followup ? "ask.followup" : "ask.placeholder");
    this.hint.textContent = t(this.#hint);
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, MAX_HEIGHT)}px`;
  }

  get #query() {
    return this.field.value.trim();
  }

  /** Whether the button stops the answer: while there is nothing to send. */
  get #stops() {
    return this.running && !this.#query;
  }

  get #hint() {
    if (this.held && this.held.query === this.#query) return "ask.hint.held";
    if (this.#stops) return "ask.hint.running";
    return this.running ? "ask.hint.next" : "ask.hint";
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === KEY_OF_INPUT_METHOD) return;
    event.preventDefault();
    this.#send(this.running && (event.ctrlKey || event.metaKey) ? "interrupt" : undefined);
  }

  /** @param {"enqueue" | "interrupt"} [ifBusy] */
  #send(ifBusy) {
    const query = this.#query;
    if (!query) return this.focus();
    this.held = null;
    if (this.actions.send(query, ifBusy)) this.field.value = "";
    else this.held = { query, ifBusy };
    this.translate();
  }
}

// @ts-check
/**
 * The question box: Enter sends, Shift+Enter breaks the line, and Enter that ends a Chinese composition does neither.
 */

import { t } from "./i18n.js";

const MAX_HEIGHT = 200;
/** `keyCode` of a key press that an input method handles; Safari reports the last one only so. */
const KEY_OF_INPUT_METHOD = 229;

export class Composer {
  /** @param {HTMLFormElement} form @param {{ send: (query: string) => void, stop: () => void }} actions */
  constructor(form, actions) {
    this.form = form;
    this.actions = actions;
    this.field = /** @type {HTMLTextAreaElement} */ (form.querySelector("textarea"));
    this.button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
    this.hint = /** @type {HTMLElement} */ (form.querySelector(".hint"));
    this.running = false;
    this.followup = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running) actions.stop();
      else this.#send();
    });
    this.field.addEventListener("keydown", (event) => this.#key(event));
    this.field.addEventListener("input", () => this.#changed());
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

  /** @param {string} text */
  fill(text) {
    this.field.value = text;
    this.#changed();
  }

  translate() {
    const label = t(this.running ? "ask.stop" : "ask.send");
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    this.button.classList.toggle("stop", this.running);
    this.field.placeholder = t(this.followup ? "ask.followup" : "ask.placeholder");
    this.hint.textContent = t(this.running ? "ask.hint.running" : "ask.hint");
    this.#changed();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === KEY_OF_INPUT_METHOD) return;
    event.preventDefault();
    if (!this.running) this.#send();
  }

  #send() {
    const query = this.field.value.trim();
    if (!query) return this.focus();
    this.fill("");
    this.actions.send(query);
  }

  #changed() {
    this.button.disabled = !this.running && !this.field.value.trim();
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, MAX_HEIGHT)}px`;
  }
}

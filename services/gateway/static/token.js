// @ts-check
/** Asks for a token where the server wants one. It stays in this tab's storage and is gone when the tab is closed. */

import { t } from "./i18n.js";

const KEY = "baton.token";

export class TokenDialog {
  /** @param {HTMLDialogElement} dialog @param {(token: string) => void} use */
  constructor(dialog, use) {
    this.dialog = dialog;
    this.field = /** @type {HTMLInputElement} */ (dialog.querySelector("input"));
    this.failure = /** @type {HTMLElement} */ (dialog.querySelector(".failure"));
    /** @type {HTMLFormElement} */ (dialog.querySelector("form")).addEventListener("submit", (event) => {
      event.preventDefault();
      const token = this.field.value.trim();
      if (!token) return;
      this.field.value = "";
      remember(token);
      dialog.close();
      use(token);
    });
    dialog.querySelector("button[type=button]")?.addEventListener("click", () => dialog.close());
  }

  /** @param {boolean} refused whether a token was tried and not accepted */
  open(refused) {
    if (refused) forget();
    this.failure.textContent = refused ? t("token.refused") : "";
    if (!this.dialog.open) this.dialog.showModal();
    this.field.focus();
  }
}

export function rememberedToken() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** @param {string} token */
function remember(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // No storage: the token serves until the page is left.
  }
}

function forget() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Nothing was kept.
  }
}

// @ts-check
/** The page: puts the client, the conversation and the controls together. */

import { BatonClient } from "./baton.js";
import { Composer } from "./composer.js";
import { el, languageOf } from "./elements.js";
import { EXAMPLES, language, setLanguage, t, translatePage } from "./i18n.js";
import { SourcePanel } from "./panel.js";
import { Follower } from "./scroll.js";
import { rememberedToken, TokenDialog } from "./token.js";
import { TurnView } from "./turn.js";

const THEMES = ["auto", "light", "dark"];
const KEPT_TURNS = 20;

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

// --- what is remembered -----------------------------------------------------------------------------------------------

/** @param {Storage} storage @param {string} name */
function recall(storage, name) {
  try {
    return storage.getItem(`baton.${name}`);
  } catch {
    return null;
  }
}

/** @param {Storage} storage @param {string} name @param {string | null} value */
function remember(storage, name, value) {
  try {
    if (value === null) storage.removeItem(`baton.${name}`);
    else storage.setItem(`baton.${name}`, value);
  } catch {
    // No storage, or it is full: the page works, it only forgets.
  }
}

// --- parts ------------------------------------------------------------------------------------------------------------

const socketUrl = new URL("/ws", location.href);
socketUrl.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const client = new BatonClient({ url: socketUrl, token: rememberedToken() });

/** @type {TurnView[]} */
let turns = [];
/** @type {string | null} */
let conversationId = null;

const follower = new Follower(byId("jump"));
const panel = new SourcePanel(
  byId("source-panel"),
  () => client.token,
  () => composer.focus(),
);
const tokenDialog = new TokenDialog(byId("token-dialog"), (token) => client.setToken(token));
const composer = new Composer(byId("ask"), { send: ask, stop });

/** @type {import("./turn.js").Page} */
const page = {
  openSource: (turn, n, opener) => {
    const { sources, cited } = turn.state;
    panel.open({ sources, cited, n, opener, shown: turn.showSource });
  },
  retry: (query) => ask(query),
  connected: () => client.state === "online",
  around: (change, upTo) => follower.around(change, upTo),
  announce,
};

/** @param {string} text */
function announce(text) {
  byId("announcer").textContent = text;
}

// --- the conversation -------------------------------------------------------------------------------------------------

/** @param {string} query */
function ask(query) {
  if (running()) return;
  /** @type {Record<string, any>} */
  const options = {};
  if (conversationId) options.conversation_id = conversationId;
  // The server reads the language off the question; the page's own counts where a question shows none.
  if (!languageOf(query)) options.language = language();
  for (const turn of turns) turn.steps.collapse();
  add(client.ask(query, options));
  if (window.matchMedia("(pointer: coarse)").matches) composer.field.blur();
  else composer.focus();
}

/** @param {import("./baton.js").Answer} answer */
function add(answer) {
  const turn = new TurnView(answer, page);
  turns.push(turn);
  byId("conversation").append(turn.element);
  answer.addEventListener("frame", () => {
    if (!turns.includes(turn)) return;
    conversationId = answer.state.conversationId ?? conversationId;
    if (answer.frames.length === 1) keep();
  });
  answer.addEventListener("end", () => refresh());
  refresh();
  follower.toEnd();
  return turn;
}

function running() {
  return turns.find((turn) => !turn.state.finished);
}

function stop() {
  const turn = running();
  if (!turn) return;
  turn.stopping = true;
  turn.answer.cancel();
  turn.schedule();
}

function newConversation() {
  for (const turn of turns) {
    if (!turn.state.finished) turn.answer.cancel();
    turn.steps.stop();
  }
  panel.close();
  turns = [];
  conversationId = null;
  byId("conversation").replaceChildren();
  keep();
  refresh();
  composer.focus();
}

function refresh() {
  byId("welcome").hidden = turns.length > 0;
  byId("new").hidden = turns.length === 0;
  composer.setFollowup(turns.length > 0);
  composer.setRunning(Boolean(running()));
}

/** So that a reloaded page finds its conversation again: the server has the answers. */
function keep() {
  const kept = turns.slice(-KEPT_TURNS).map((turn) => ({ id: turn.answer.requestId, query: turn.answer.query }));
  remember(sessionStorage, "conversation", kept.length > 0 ? JSON.stringify({ conversationId, turns: kept }) : null);
}

function restore() {
  try {
    const kept = JSON.parse(recall(sessionStorage, "conversation") ?? "null");
    if (!kept) return;
    conversationId = kept.conversationId;
    for (const { id, query } of kept.turns) {
      const turn = add(client.attach(id, { query }));
      turn.answer.addEventListener("end", () => dropIfGone(turn));
    }
  } catch {
    remember(sessionStorage, "conversation", null);
  }
}

/** A restored question of which the server knows nothing any more has nothing to show. @param {TurnView} turn */
function dropIfGone(turn) {
  if (turn.state.text || !["gone", "not_found"].includes(turn.state.error?.code ?? "")) return;
  turns = turns.filter((other) => other !== turn);
  turn.element.remove();
  keep();
  refresh();
}

// --- connection -------------------------------------------------------------------------------------------------------

let wasOnline = false;
let wasLost = false;

client.addEventListener("state", (event) => {
  const { state, code } = /** @type {CustomEvent} */ (event).detail;
  showConnection();
  for (const turn of turns) if (!turn.state.finished) turn.schedule();
  if (state === "auth") tokenDialog.open(code === 4001 && client.token !== null);
  if (state === "online") {
    if (wasLost) announce(t("announce.back"));
    wasOnline = true;
    wasLost = false;
  } else if (state === "reconnecting" && wasOnline && !wasLost) {
    wasLost = true;
    announce(t("announce.lost"));
  }
});

function showConnection() {
  const { state } = client;
  const node = byId("connection");
  node.dataset.state = state;
  node.querySelector(".words").textContent = t(`state.${state}`);
  const button = byId("reconnect");
  button.hidden = !["auth", "offline", "refused", "closed"].includes(state);
  button.textContent = t(state === "auth" ? "token.title" : "state.reconnect");
}

byId("reconnect").addEventListener("click", () => {
  if (client.state === "auth") tokenDialog.open(false);
  else client.connect();
});

window.addEventListener("online", wake);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && wake());

/**
 * The network or the person is back: do not wait for the next attempt, and check a connection that may have died in
 * the meantime.
 */
function wake() {
  if (["online", "reconnecting"].includes(client.state)) client.connect();
}

// --- controls ---------------------------------------------------------------------------------------------------------

function showExamples() {
  const sorted = [...EXAMPLES].sort((a, b) => Number(b.language === language()) - Number(a.language === language()));
  const buttons = sorted.map((example) =>
    el(
      "button",
      { type: "button", lang: example.language === "zh" ? "zh-CN" : "en", onclick: () => ask(example.text) },
      example.text,
    ),
  );
  byId("examples").replaceChildren(...buttons.map((button) => el("li", {}, button)));
}

function translate() {
  translatePage();
  document.title = t("app.title");
  byId("language").lang = language() === "zh" ? "en" : "zh-CN";
  showExamples();
  showTheme();
  showConnection();
  composer.translate();
  for (const turn of turns) turn.translate();
  panel.refresh();
}

byId("language").addEventListener("click", () => {
  setLanguage(language() === "zh" ? "en" : "zh");
  remember(localStorage, "language", language());
  translate();
});

function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function showTheme() {
  const label = t(`theme.${theme()}`);
  byId("theme").setAttribute("aria-label", label);
  byId("theme").title = label;
}

byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  remember(localStorage, "theme", next === "auto" ? null : next);
  showTheme();
  announce(t(`theme.${next}`));
});

byId("new").addEventListener("click", newConversation);

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || event.defaultPrevented || byId("token-dialog").open) return;
  if (panel.isOpen) {
    event.preventDefault();
    panel.close();
  } else if (running()) stop();
});

setLanguage((recall(localStorage, "language") ?? navigator.language).startsWith("zh") ? "zh" : "en");
translate();
restore();
refresh();
client.connect();
if (!window.matchMedia("(pointer: coarse)").matches) composer.focus();

// @ts-check
/** The page: puts the client, the conversation and the controls together. */

import { conversationInAddress, nameInAddress } from "./address.js";
import { BatonClient } from "./baton.js";
import { Composer } from "./composer.js";
import { dropped, picked, watchDrops } from "./dropping.js";
import { el } from "./elements.js";
import { FilesPanel } from "./filespanel.js";
import { EXAMPLES, language, setLanguage, t, translatePage } from "./i18n.js";
import { SourcePanel } from "./panel.js";
import { Peek } from "./peek.js";
import { Follower } from "./scroll.js";
import { Sidebar } from "./sidebar.js";
import { recall, remember } from "./storage.js";
import { Thread } from "./thread.js";
import { rememberedToken, TokenDialog } from "./token.js";

const THEMES = ["auto", "light", "dark"];

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

// --- parts ------------------------------------------------------------------------------------------------------------

const socketUrl = new URL("/ws", location.href);
socketUrl.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const client = new BatonClient({ url: socketUrl, token: rememberedToken() });

const follower = new Follower(byId("jump"));
const peek = new Peek(byId("peek"));
const panel = new SourcePanel(
  byId("source-panel"),
  () => client.token,
  () => composer.focus(),
);
const tokenDialog = new TokenDialog(byId("token-dialog"), (token) => client.setToken(token));
const composer = new Composer(byId("ask"), { send: ask, stop: () => thread.stop() });
const thread = new Thread(client, {
  root: byId("conversation"),
  follower,
  changed: refresh,
  page: {
    openSource: (turn, n, opener) => {
      const { sources, cited } = turn.state;
      peek.hide();
      panel.open({ sources, cited, n, opener, shown: turn.showSource });
    },
    peek,
    connected: () => client.state === "online",
    announce,
  },
});
const sidebar = new Sidebar(
  client,
  {
    aside: byId("history"),
    drawer: byId("history-drawer"),
    nav: byId("history-nav"),
    documents: byId("documents"),
    toggle: byId("history-toggle"),
    confirm: byId("confirm"),
  },
  {
    open: () => ({ id: thread.id, running: Boolean(thread.running) }),
    deleted: (id) => {
      if (id === thread.id) show(null, "replace");
    },
    announce,
  },
);

const files = new FilesPanel(
  client,
  { section: byId("documents"), attach: byId("attach"), confirm: byId("confirm") },
  { announce, reveal: () => sidebar.reveal(), pick: (folder) => byId(folder ? "folder" : "files").click() },
);

/** Also within the drawer: what lies outside a modal dialog is not read out. @param {string} text */
function announce(text) {
  for (const node of document.querySelectorAll(".announcer")) node.textContent = text;
}

// --- the conversation -------------------------------------------------------------------------------------------------

/** @param {string} query @param {"enqueue" | "interrupt"} [ifBusy] */
function ask(query, ifBusy) {
  if (!thread.canAsk) return false;
  thread.ask(query, ifBusy ? { if_busy: ifBusy } : {});
  if (window.matchMedia("(pointer: coarse)").matches) composer.field.blur();
  else composer.focus();
  return true;
}

/** @param {string | null} id @param {"push" | "replace"} how */
function show(id, how) {
  panel.close();
  peek.hide();
  nameInAddress(id, how);
  void thread.open(id);
}

/** The conversation has another id, title or running question. */
let shown = "";
function refresh() {
  byId("welcome").hidden = !thread.isEmpty;
  byId("new").hidden = thread.isEmpty;
  document.title = thread.title ? `${thread.title} · Baton` : t("app.title");
  composer.setFollowup(thread.turns.length > 0);
  composer.setRunning(Boolean(thread.running));
  if (thread.canAsk) composer.release();
  sidebar.render();
  const key = `${thread.id} ${Boolean(thread.running)}`;
  if (key !== shown) sidebar.soon();
  shown = key;
}

window.addEventListener("popstate", () => {
  if (conversationInAddress() !== thread.id) show(conversationInAddress(), "replace");
});

// --- connection -------------------------------------------------------------------------------------------------------

let wasOnline = false;
let wasLost = false;

client.addEventListener("state", (event) => {
  const { state, code } = /** @type {CustomEvent} */ (event).detail;
  showConnection();
  for (const turn of thread.turns) if (!turn.state.finished) turn.schedule();
  if (state === "auth") tokenDialog.open(code === 4001 && client.token !== null);
  if (state === "online") {
    sidebar.soon(0);
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
  sidebar.soon();
}

// --- documents --------------------------------------------------------------------------------------------------------

for (const id of ["files", "folder"]) {
  byId(id).addEventListener("change", () => {
    files.add(picked(byId(id).files));
    byId(id).value = "";
  });
}

watchDrops(byId("drop"), {
  wanted: () => files.mayUpload && !document.querySelector("dialog:modal:not(.drawer)"),
  drop: async (transfer) => files.add(await dropped(transfer)),
});

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
  byId("language").lang = language() === "zh" ? "en" : "zh-CN";
  showExamples();
  showTheme();
  showConnection();
  composer.translate();
  thread.translate();
  panel.refresh();
  files.render();
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

byId("new").addEventListener("click", () => {
  show(null, "push");
  composer.focus();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || event.defaultPrevented) return;
  // The browser closes a modal dialog by itself.
  if (document.querySelector("dialog:modal:not(.panel)")) return;
  if (peek.isOpen) peek.hide();
  else if (panel.isOpen) {
    event.preventDefault();
    panel.close();
  } else thread.stop();
});

setLanguage((recall(localStorage, "language") ?? navigator.language).startsWith("zh") ? "zh" : "en");
translate();
void thread.open(conversationInAddress());
client.connect();
if (!window.matchMedia("(pointer: coarse)").matches) composer.focus();

// @ts-check
/** The open conversation: its questions and answers, those of the past, those that run, and those to come. */

import { nameInAddress } from "./address.js";
import { conversation, ConversationError, storedAnswer } from "./conversations.js";
import { el, icon, languageOf } from "./elements.js";
import { has, language, t } from "./i18n.js";
import { recall, remember } from "./storage.js";
import { TurnView } from "./turn.js";

/** @typedef {import("./baton.js").Answer} Answer */
/** @typedef {import("./baton.js").BatonClient} BatonClient */
/** @typedef {import("./baton.js").QueryOptions} QueryOptions */
/**
 * `changed` is called when the conversation has another id, title or running question; `page` is what turns may ask for.
 * @typedef {{ root: HTMLElement, follower: import("./scroll.js").Follower, changed: () => void,
 *   page: Pick<import("./turn.js").Page, "openSource" | "peek" | "connected" | "announce"> }} Around
 */

const KEPT_TURNS = 20;
const KNOWN_ANSWERS = 100;
/** An answer that has just ended may not be recorded yet. */
const RECORDED_MS = 30_000;

export class Thread {
  /** @param {BatonClient} client @param {Around} around */
  constructor(client, around) {
    this.client = client;
    this.around = around;
    /** @type {string | null} */
    this.id = null;
    this.title = "";
    /** @type {TurnView[]} */
    this.turns = [];
    this.loading = false;
    /** @type {ConversationError | null} */
    this.failure = null;
    /** How many questions of this conversation the server has let go. */
    this.dropped = 0;
    /** Counts what was opened, so that what comes late for another conversation is left alone. */
    this.visit = 0;
    /**
     * Answers of this page by request id: whoever comes back finds them as they were.
     * @type {Map<string, { answer: Answer, conversation: string | null, endedAt: number }>}
     */
    this.known = new Map();
    this.head = el("div", { class: "thread-head" });
    this.list = el("div", {});
    around.root.replaceChildren(this.head, this.list);
    /** @type {import("./turn.js").Page} */
    this.page = {
      ...around.page,
      retry: (turn, options) => this.#again(turn, options),
      cancel: (turn) => this.#cancel(turn),
      waits: (turn) => this.#waits(turn),
      recall: (turn) => this.#recall(turn),
      around: (change, upTo) => around.follower.around(change, upTo),
    };
  }

  /** The question that is being answered. @returns {TurnView | undefined} */
  get running() {
    return this.turns.find((turn) => !turn.state.finished);
  }

  get isEmpty() {
    return this.turns.length === 0 && !this.loading && this.failure === null;
  }

  /** Whether a follow-up could be asked now: not before it is known of which conversation it is one. */
  get canAsk() {
    return !this.loading && (this.id !== null || !this.running);
  }

  // --- opening ---

  /** Show a conversation; null = a new one. What runs in the one before goes on. @param {string | null} id */
  async open(id) {
    this.#clear(id);
    const kept = keptQuestions(id);
    if (id === null) for (const { id: requestId, query } of kept) this.#restore(requestId, query);
    else await this.#load(id, kept);
  }

  /** @param {string | null} id */
  #clear(id) {
    for (const turn of this.turns) turn.steps.stop();
    this.visit += 1;
    this.turns = [];
    Object.assign(this, { id, title: "", dropped: 0, loading: id !== null, failure: null });
    this.list.replaceChildren();
    this.refresh();
  }

  /** @param {string} id @param {{ id: string, query: string }[]} kept questions that this tab has asked in it */
  async #load(id, kept) {
    const { visit } = this;
    await this.#connected();
    const found = await conversation(this.client, id).catch((error) => error);
    if (visit !== this.visit) return;
    this.loading = false;
    const queries = new Map(kept.map((question) => [question.id, question.query]));
    if (found instanceof Error) this.failure = kept.length > 0 ? null : /** @type {ConversationError} */ (found);
    else {
      this.title = found.title;
      this.dropped = found.dropped ?? 0;
      for (const turn of found.turns) {
        queries.delete(turn.request_id);
        this.#show(this.#knownAnswer(turn.request_id) ?? storedAnswer(this.client, turn));
      }
      for (const { request_id: requestId, query } of found.running) {
        this.#attach(requestId, query || (queries.get(requestId) ?? ""));
        queries.delete(requestId);
      }
    }
    // What the server does not name it may know all the same, by its request id.
    for (const [requestId, query] of queries) this.#restore(requestId, query);
    for (const [requestId, { answer, conversation, endedAt }] of this.known)
      if (conversation === id && !this.#isShown(requestId) && (!answer.finished || Date.now() - endedAt < RECORDED_MS))
        this.#show(answer);
    this.#finish();
  }

  #finish() {
    this.refresh();
    this.around.follower.toEnd();
  }

  /** An answer of this page that is whole, or still comes. @param {string} requestId */
  #knownAnswer(requestId) {
    const answer = this.known.get(requestId)?.answer;
    return answer && answer.state.recovered && !answer.state.error?.local ? answer : undefined;
  }

  /** @param {string} requestId */
  #isShown(requestId) {
    return this.turns.some((turn) => turn.answer.requestId === requestId);
  }

  /** Follow what runs. @param {string} requestId @param {string} query empty = not known here */
  #attach(requestId, query) {
    const answer = this.#knownAnswer(requestId) ?? this.client.attach(requestId, { query });
    const turn = this.#show(answer);
    if (!answer.query) void answer.ended.then(() => this.#learnQuestion(turn));
    return turn;
  }

  /** Attach to a question of this tab; if the server knows nothing of it, there is nothing to show.
   * @param {string} requestId @param {string} query */
  #restore(requestId, query) {
    const turn = this.#attach(requestId, query);
    const { visit } = this;
    void turn.answer.ended.then((state) => {
      if (visit !== this.visit || state.text || !["gone", "not_found"].includes(state.error?.code ?? "")) return;
      this.#remove(turn);
      if (this.turns.length > 0) return;
      nameInAddress(null, "replace");
      this.#clear(null);
      this.#keep();
    });
  }

  /** @param {TurnView} turn */
  #remove(turn) {
    this.turns = this.turns.filter((other) => other !== turn);
    turn.element.remove();
    this.#keep();
    this.refresh();
  }

  /** Who asked elsewhere left only a request id here; the question comes with the kept turn. @param {TurnView} turn */
  async #learnQuestion(turn) {
    if (this.id === null || !this.turns.includes(turn)) return;
    const found = await conversation(this.client, this.id).catch(() => null);
    const kept = found?.turns.find((each) => each.request_id === turn.answer.requestId);
    if (!kept) return;
    turn.answer.query = kept.query;
    turn.translate();
  }

  /** When the client has its connection, and with it its token. */
  async #connected() {
    while (this.client.state !== "online")
      await new Promise((resolve) => this.client.addEventListener("state", resolve, { once: true }));
  }

  // --- asking ---

  /** @param {string} query @param {QueryOptions} [wishes] */
  ask(query, wishes = {}) {
    /** @type {QueryOptions} */
    const options = { ...wishes };
    if (this.id !== null) {
      options.conversation_id = this.id;
      options.if_busy ??= "enqueue";
    }
    // The server reads the language off the question; the page's own counts where a question shows none.
    if (!languageOf(query)) options.language = language();
    for (const turn of this.turns) if (turn.state.finished) turn.steps.collapse();
    this.failure = null;
    this.#show(this.client.ask(query, options));
    this.#finish();
  }

  /** @param {TurnView} turn @param {QueryOptions} options */
  #again(turn, options) {
    const refused = turn.answer.frames.every((frame) => frame.seq === undefined) && turn.answer.frames.length > 0;
    if (!this.canAsk) return;
    // A question that was refused has left nothing behind: the new try takes its place.
    if (refused) this.#remove(turn);
    this.ask(turn.answer.query, options);
  }

  /** Stop what is being answered. */
  stop() {
    if (this.running) this.#cancel(this.running);
  }

  /** @param {TurnView} turn */
  #cancel(turn) {
    turn.stopping = true;
    turn.answer.cancel();
    turn.schedule();
  }

  /** Whether a question waits for the one before it. @param {TurnView} turn */
  #waits(turn) {
    if (turn.state.finished || turn.state.steps.length > 0 || turn.state.text) return false;
    const at = this.turns.indexOf(turn);
    return this.turns.slice(0, Math.max(0, at)).some((before) => !before.state.finished);
  }

  /** @param {Answer} answer */
  #show(answer) {
    const turn = new TurnView(answer, this.page);
    this.turns.push(turn);
    this.list.append(turn.element);
    turn.render();
    if (!answer.finished) this.#listen(answer, turn);
    return turn;
  }

  /** @param {Answer} answer @param {TurnView} turn */
  #listen(answer, turn) {
    const entry = { answer, conversation: this.id, endedAt: 0 };
    this.known.set(answer.requestId, entry);
    for (const [requestId, old] of this.known)
      if (this.known.size > KNOWN_ANSWERS && old.answer.finished) this.known.delete(requestId);
    answer.addEventListener("frame", () => {
      entry.conversation ??= answer.state.conversationId;
      if (!this.turns.includes(turn)) return;
      if (this.id === null && answer.state.conversationId) this.#named(answer.state.conversationId);
      if (answer.frames.length === 1) this.#keep();
    });
    answer.addEventListener("end", () => {
      entry.endedAt = Date.now();
      for (const other of this.turns) if (!other.state.finished) other.schedule();
      this.refresh();
    });
  }

  /** The first question has arrived: now the conversation has an id. @param {string} id */
  #named(id) {
    this.id = id;
    nameInAddress(id, "replace");
    this.refresh();
  }

  /** Fetch the log of an answer of the past, for its steps. @param {TurnView} turn */
  async #recall(turn) {
    const { requestId, query } = turn.answer;
    const again = this.client.attach(requestId, { query });
    const state = await again.ended;
    if (!state.recovered || state.phase !== turn.state.phase || state.text !== turn.state.text) return;
    turn.answer.state = state;
    turn.answer.frames = again.frames;
  }

  // --- showing ---

  refresh() {
    this.around.root.setAttribute("aria-busy", String(this.loading));
    this.title ||= this.turns[0]?.answer.query ?? "";
    this.head.replaceChildren(
      ...[
        this.loading && el("p", { class: "loading" }, icon("spinner"), t("conversation.loading")),
        this.failure && this.#failureCard(this.failure),
        this.dropped > 0 && el("p", { class: "note" }, t("conversation.dropped", this.dropped)),
      ].filter((node) => node !== false && node !== null),
    );
    this.around.changed();
  }

  translate() {
    for (const turn of this.turns) turn.translate();
    this.refresh();
  }

  /** @param {ConversationError} error */
  #failureCard(error) {
    const retry = el("button", { type: "button", class: "retry", onclick: () => this.open(this.id) }, t("error.retry"));
    return el(
      "div",
      { class: "error-card", role: "alert" },
      icon("warning"),
      el("div", {}, el("h3", {}, conversationProblem(error)), error.message && el("p", {}, error.message)),
      error.code !== "not_found" && retry,
    );
  }

  /** So that a reloaded page finds what it has asked, also before the server has recorded it. */
  #keep() {
    const asked = this.turns.filter((turn) => !turn.stored).slice(-KEPT_TURNS);
    const turns = asked.map((turn) => ({ id: turn.answer.requestId, query: turn.answer.query }));
    const kept = asked.length > 0 ? JSON.stringify({ conversationId: this.id, turns }) : null;
    remember(sessionStorage, "conversation", kept);
  }
}

/** What went wrong with conversations, for people. @param {ConversationError} error */
export function conversationProblem(error) {
  const key = `conversation.${error.code}`;
  return t(has(key) ? key : "conversation.failed");
}

/** @param {string | null} conversationId @returns {{ id: string, query: string }[]} */
function keptQuestions(conversationId) {
  try {
    const kept = JSON.parse(recall(sessionStorage, "conversation") ?? "null");
    return kept && kept.conversationId === conversationId ? kept.turns : [];
  } catch {
    return [];
  }
}

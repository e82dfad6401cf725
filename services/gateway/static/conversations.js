// @ts-check
/**
 * The conversations of whoever holds the client's token, over the gateway's HTTP addresses.
 *
 *     for (const { conversation_id, title } of await conversations(client)) console.log(conversation_id, title);
 *     const { turns, running } = await conversation(client, id);
 *     const answers = [...turns.map((turn) => storedAnswer(client, turn)), ...running.map((each) => client.attach(each.request_id))];
 *
 * Every function rejects with a `ConversationError`. No DOM, like baton.js.
 */

import { Answer, AnswerState } from "./baton.js";

/** @typedef {import("./baton.js").BatonClient} BatonClient */
/** @typedef {import("./baton.js").Source} Source */
/** @typedef {import("./baton.js").Citation} Citation */
/**
 * @typedef {{ conversation_id: string, title: string, created_ms: number, updated_ms: number, turns: number,
 *   running: any }} Summary
 */
/**
 * @typedef {{ request_id: string, asked_ms: number, query: string, outcome: string, standalone?: string,
 *   answer?: string | null, sources?: Source[], cited?: number[], citations?: Citation[] }} StoredTurn
 */
/**
 * @typedef {{ conversation_id: string, title: string, created_ms: number, updated_ms: number, dropped?: number,
 *   turns: StoredTurn[], running: { request_id: string, query: string }[] }} Conversation
 */

const TIMEOUT_MS = 15_000;
const FINISHED = new Set(["stop", "length", "cancelled", "content_filter"]);
const BY_STATUS = { 401: "unauthorized", 403: "forbidden", 404: "not_found", 503: "overloaded" };

/** `code` is the protocol's, or `disconnected` where there was no answer; `status` is HTTP's, 0 without one. */
export class ConversationError extends Error {
  /** @param {number} status @param {string} code @param {string} message */
  constructor(status, code, message) {
    super(message);
    this.name = "ConversationError";
    this.status = status;
    this.code = code;
  }
}

/** The newest first. @param {BatonClient} client @returns {Promise<Summary[]>} */
export async function conversations(client) {
  const { conversations } = await request(client, "GET", "conversations");
  return Array.isArray(conversations) ? conversations : [];
}

/** @param {BatonClient} client @param {string} id @returns {Promise<Conversation>} */
export async function conversation(client, id) {
  const found = await request(client, "GET", `conversations/${encodeURIComponent(id)}`);
  // A gateway need not say more about what runs than its id.
  const running = (found.running ?? []).map((/** @type {any} */ each) => ({
    request_id: each.request_id ?? each,
    query: each.query ?? "",
  }));
  return { ...found, turns: found.turns ?? [], running };
}

/** Its turns, their answers and their logs; what runs in it is cancelled. @param {BatonClient} client @param {string} id */
export async function deleteConversation(client, id) {
  await request(client, "DELETE", `conversations/${encodeURIComponent(id)}`);
}

/**
 * An answer of the past, finished, as it looked when it came; only its steps and timings are no more.
 * @param {BatonClient} client
 * @param {StoredTurn} turn
 */
export function storedAnswer(client, turn) {
  const answer = new Answer(client, turn.request_id, turn.query);
  answer.state = storedState(turn);
  answer.ended = Promise.resolve(answer.state);
  return answer;
}

/** @param {StoredTurn} turn */
function storedState(turn) {
  if (!FINISHED.has(turn.outcome)) {
    const error = { code: turn.outcome, message: "", retryable: false, retryAfterMs: null, local: true };
    return new AnswerState({ phase: "failed", text: turn.answer ?? "", sources: turn.sources ?? [], error });
  }
  return new AnswerState({
    phase: "done",
    text: turn.answer ?? "",
    sources: [...(turn.sources ?? [])].sort((a, b) => a.n - b.n),
    cited: turn.cited ?? [],
    citations: turn.citations ?? [],
    finishReason: turn.outcome,
  });
}

/** @param {BatonClient} client @param {string} method @param {string} path @returns {Promise<any>} */
export async function request(client, method, path) {
  const token = await client.currentToken().catch(() => null);
  /** @type {Response} */
  let response;
  try {
    response = await fetch(address(client.url, path), {
      method,
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ConversationError(0, "disconnected", "");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw failure(response.status, body);
  return body ?? {};
}

/** What an answer that is no success says. @param {number} status @param {any} body */
export function failure(status, body) {
  const { code, message } = body?.error ?? {};
  return new ConversationError(
    status,
    String(code ?? BY_STATUS[/** @type {keyof typeof BY_STATUS} */ (status)] ?? "internal"),
    String(message ?? `HTTP ${status}`),
  );
}

/** Beside the WebSocket: `wss://example.org/baton/ws` has `https://example.org/baton/conversations`.
 * @param {string} socket @param {string} path */
export function address(socket, path) {
  const url = new URL(path, socket);
  url.protocol = url.protocol.replace("ws", "http");
  return url;
}

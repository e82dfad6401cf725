// What the log will forget (proto/README.md section 2.9), and items that no worker survives (2.8).

import { createHash } from "node:crypto";
import { ended } from "./log.js";
import { pack, read } from "./wire.js";

const MAX_TURNS = 50; // that a conversation keeps: it has to fit into a message
const MAX_BYTES = 384 * 1024;

/** Of a log that has ended: keep the answer, free the user's place, make it a turn of its conversation. */
export async function keep(wire, log, key) {
  const frames = await log.read(true);
  const last = frames.at(-1);
  if (!last || !ended(last)) return;
  const first = frames[0];
  const item = first.handoff?.item ?? {};
  const text = textOf(frames);
  const sources = frames.flatMap((frame) => frame.sources ?? []);
  const done = last.type === "done";
  const outcome = done ? last.finish_reason : last.code;
  const answer = done ? { finish_reason: last.finish_reason, answer: text, sources } : {};
  const conversation_id = first.conversation_id;
  const kept = { v: 1, request_id: log.requestId, outcome, ended_ms: Date.parse(last.timestamp), conversation_id };
  await wire.store(`$KV.baton_answers.${key}`, pack({ ...kept, ...answer }));
  if (item.place != null) await wire.api("STREAM.MSG.DELETE.BATON_RUNNING", { seq: item.place, no_erase: true });
  if (item.conversation_id == null) return;
  const turn = { request_id: log.requestId, asked_ms: item.received_ms, query: item.query, outcome };
  if (done) Object.assign(turn, { answer: text, sources, cited: last.cited, citations: last.citations });
  if (await record(wire, item, turn, kept.ended_ms)) return;
  await wire.api("STREAM.PURGE.KV_baton_answers", { filter: `$KV.baton_answers.${key}` });
  await wire.api(`STREAM.PURGE.${log.stream}`, { filter: log.subject });
}

/** Whether the conversation has the turn now, or does not want it; false where its owner has deleted it. */
async function record(wire, item, turn, ended_ms) {
  const owner = createHash("sha256").update(item.owner).digest("hex").slice(0, 32);
  const subject = `$KV.baton_conversations.${owner}.${item.conversation_id}`;
  for (let tries = 0; tries < 20; tries += 1) {
    const stored = await wire.last("KV_baton_conversations", subject);
    if (stored === null) return true;
    if (stored.data.length === 0) return false;
    const conversation = read(stored.data);
    const running = conversation?.running?.filter((one) => one.request_id !== turn.request_id) ?? [];
    if (!conversation || running.length === (conversation.running ?? []).length) return true;
    const turns = [...(conversation.turns ?? []), turn];
    let dropped = conversation.dropped ?? 0;
    for (; turns.length > MAX_TURNS || (turns.length > 1 && pack(turns).length > MAX_BYTES); dropped += 1) turns.shift();
    const updated_ms = Math.max(conversation.updated_ms, ended_ms);
    const changed = pack({ ...conversation, running, turns, dropped, updated_ms });
    try {
      await wire.store(subject, changed, { "Nats-Expected-Last-Subject-Sequence": stored.seq });
      return true;
    } catch (error) {
      if (![10071, 10164].includes(error.code)) throw error; // refused: somebody was quicker; again
    }
  }
  return true;
}

/** The text that a client has on the screen after these frames. */
export function textOf(frames) {
  const from = frames.findLastIndex((frame) => frame.type === "answer_reset") + 1;
  return frames.slice(from).map((frame) => (frame.type === "answer_chunk" ? frame.content : "")).join("");
}

/** Count one more delivery that was given back in good order, so that it does not count against the item. */
export async function countReturn(wire, ref) {
  const deliveries = (await returned(wire, ref)) + 1;
  await wire.store(`baton.v1.returned.${ref.key}`, pack({ v: 1, key: ref.key, seq: ref.seq, deliveries }));
}

export async function returned(wire, ref) {
  const stored = await wire.last("BATON_CANCEL", `baton.v1.returned.${ref.key}`);
  const note = stored && read(stored.data, { seq: "number", deliveries: "number" });
  return note?.seq === ref.seq ? note.deliveries : 0;
}

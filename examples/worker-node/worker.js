// A generator worker for Baton in Node, written from proto/README.md alone.
//
//     npm ci && node worker.js nats://127.0.0.1:4222
//
// The numbers in the comments are sections of that text.

import { connect } from "@nats-io/transport-node";
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { citations, pieces, writing } from "./answer.js";
import { countReturn, keep, returned, textOf } from "./ending.js";
import { ended, Lease, Log, Replaced } from "./log.js";
import { pack, read, sleep, Unanswered, Wire } from "./wire.js";

const STAGE = "generate";
const VARIANT = process.env.BATON_VARIANT ?? ""; // of us, where two versions serve side by side
const QUEUE = queueOf(STAGE, VARIANT);
const CONSUMER = QUEUE.replace(".", "_");
const NAME = `node-${hostname()}-${process.pid}-${randomBytes(3).toString("hex")}`;
const SLOTS = 16; // requests served at once
const MAX_DELIVERIES = 5;
const ACK_WAIT_NS = 5e9; // of the consumer, if we make it
const DRAIN_MS = 20_000;
const PACE_MS = Number(process.env.PACE_MS ?? 0); // between the pieces of an answer

const url = process.argv[2] ?? process.env.NATS_URL ?? "nats://127.0.0.1:4222";
const nc = await connect({ servers: url.split(","), name: NAME, maxReconnectAttempts: -1, waitOnFirstConnect: true });
const wire = new Wire(nc);
const running = new Map(); // what we hold, by how to stop it
const stopping = new AbortController();
let turned = performance.now(); // when the event loop last went round
let stale = false;

// --- 3: consumer and presence ----------------------------------------------------------------------------------------

/** The pull consumer that all workers of the stage share; whoever misses it makes it. Its ack wait in ms. */
async function consumer() {
  const config = {
    durable_name: CONSUMER,
    filter_subject: `baton.v1.work.${QUEUE}`,
    ack_policy: "explicit",
    deliver_policy: "all",
    ack_wait: ACK_WAIT_NS,
    max_deliver: -1,
    max_ack_pending: 10_000,
  };
  while (!stopping.signal.aborted) {
    try {
      const info = await wire.api(`CONSUMER.INFO.BATON_WORK.${CONSUMER}`);
      if (info.config) return info.config.ack_wait / 1e6;
      await wire.api(`CONSUMER.DURABLE.CREATE.BATON_WORK.${CONSUMER}`, { stream_name: "BATON_WORK", config });
    } catch (error) {
      console.error(`the work queue is not ready: ${error.message}`);
    }
    await sleep(200); // the gateway may still be making the streams
  }
}

function announce() {
  const said = { v: 1, worker: NAME, stage: STAGE, variant: VARIANT, slots: SLOTS, running: running.size };
  nc.publish(`baton.v1.workers.${QUEUE}`, pack({ ...said, draining: stopping.signal.aborted }));
}

function tellHoldings(message) {
  const items = [...running.values()].slice(0, 1000);
  message.respond(pack({ v: 1, worker: NAME, stage: STAGE, total: running.size, items }));
}

/** 2.1: whether time has passed without us. What lies in the socket then was delivered long ago. */
const stoodStill = () => stale || performance.now() - turned > ackWaitMs / 2;

async function beat() {
  if (stoodStill()) {
    stale = true;
    await nc.flush().catch(() => {}); // what was sent meanwhile comes before the answer to this
    stale = false;
  }
  turned = performance.now();
}

// --- 2: the life of a work item ----------------------------------------------------------------------------------------

/** 2.1: one slot, which pulls an item, serves it, and pulls the next. */
async function slot() {
  const subject = `$JS.API.CONSUMER.MSG.NEXT.BATON_WORK.${CONSUMER}`;
  while (!stopping.signal.aborted) {
    const wanted = JSON.stringify({ batch: 1, expires: 1e9 });
    const message = await nc.request(subject, wanted, { timeout: 2000, noMux: true }).catch((error) => error);
    if (message.reply && !stoodStill()) await serve(message, new Lease(wire, message, ackWaitMs));
    if (!(message instanceof Error)) continue;
    await sleep(200); // no answer: NATS is away, or has lost the consumer
    if (message.isNoResponders?.()) await consumer();
  }
}

/** One delivery, from taking it to settling it. */
async function serve(message, lease) {
  const ref = read(message.data, { key: "string", shard: "number", seq: "number" });
  try {
    if (ref !== null && stopping.signal.aborted) return await giveBack(ref, lease);
    if (ref !== null) {
      const log = new Log(wire, ref, NAME, () => lease.held);
      const taken = await take(log, ref);
      if (taken !== null && (await isDead(ref, lease))) await setAside(log, ref, taken, lease.deliveries);
      else if (taken !== null && !(await hold(log, lease, ref, taken))) return await giveBack(ref, lease);
      await keep(wire, log, ref.key);
    }
    await lease.settle("+ACK"); // 2.7
  } catch (error) {
    // Not settled: whoever holds it now, or the next delivery, goes on.
    if (!(error instanceof Replaced || error instanceof Unanswered)) console.error(error);
    else console.error(`${ref?.key}: ${error.constructor.name}: ${error.message}`);
  } finally {
    lease.stop();
  }
}

/** 2.2: the item, and what an earlier holder of it has written; null when there is nothing to do. */
async function take(log, ref) {
  let frames = await log.read(false);
  if (frames.length > 0 && frames.at(-1).seq !== ref.seq && !ended(frames.at(-1))) frames = await log.read(true);
  const latest = frames.findLast((frame) => frame.handoff);
  if (!latest || ended(frames.at(-1))) return null;
  if (latest.seq !== ref.seq) {
    // Out of date. If it is the last frame, its writer may have died before it told the next stage.
    if (latest === frames.at(-1)) await tell(ref, latest);
    return null;
  }
  const packed = latest.handoff.item ?? (await wire.object(latest.handoff.object));
  const times = { received_ms: "number", queued_ms: "number", deadline_ms: "number" };
  const item = read(packed, { key: "string", query: "string", language: "string", ...times });
  if (item === null || !Array.isArray(item.passages ?? [])) return null; // unreadable: dropped
  const meant = item.varied?.includes(STAGE) ? item.variant : "";
  const ours = meant === VARIANT ? item : { ...item, variant: "", varied: [] }; // 3: it is not that variant's any more
  return { handoff: latest.handoff, item: ours, written: frames.filter((frame) => frame.seq > ref.seq) };
}

/** 2.6: put the reference to a hand-off into its queue; the message id makes a repetition harmless. */
async function tell({ key, shard }, { handoff: { stage, variant }, seq }) {
  const ref = { v: 1, stage, variant, key, shard, seq };
  await wire.store(`baton.v1.work.${queueOf(stage, variant)}`, pack(ref), { "Nats-Msg-Id": `${key}.${seq}` });
}

/** 3: where the work of a stage waits, or of one variant of it. */
function queueOf(stage, variant) {
  return variant ? `${stage}.${variant}` : stage;
}

/** 2.3: write the answer, unless the user, the clock or the end of a drain comes before. False: give it back. */
async function hold(log, lease, ref, { item, written }) {
  const { key, seq } = ref;
  let stop, frames, next;
  const stopped = new Promise((resolve) => (stop = (why) => resolve({ why })));
  running.set(stop, { key, request_id: item.request_id, seq, since_ms: Date.now(), deliveries: lease.deliveries });
  const clock = setTimeout(stop, Math.min(item.deadline_ms - Date.now(), 2 ** 31 - 1), "deadline");
  const subject = `baton.v1.cancel.${key}`;
  const orders = nc.subscribe(subject, { callback: () => stop("cancelled") });
  try {
    const timings = arrived(item);
    if ((await wire.last("BATON_CANCEL", subject)) !== null) stop("cancelled");
    if (item.deadline_ms <= Date.now()) stop("deadline");
    frames = answered(item, written, timings);
    for (;;) {
      next = await Promise.race([stopped, log.failed, frames.next()]);
      if (next.why === "cancelled") log.write(done(item, timings, "cancelled"));
      if (next.why === "deadline") log.write(failed("deadline", "The answer took too long.", true));
      if (next.why || next.done) break;
      log.write(next.value);
    }
    await log.flush(); // also before we give it back: nothing of ours may come behind that
    return next.why !== "leaving";
  } finally {
    frames?.return().catch(console.error); // closes what the answer has open
    clearTimeout(clock);
    orders.unsubscribe();
    running.delete(stop);
  }
}

/** 2.3: the frames of the answer; an `error` where it fails. Who runs the worker reads why, the user does not. */
async function* answered(item, written, timings) {
  try {
    yield* answer(item, written, timings);
  } catch (error) {
    console.error(error);
    yield failed("internal", "The answer could not be made.", false);
  }
}

/** 5: the frames of the answer. What an earlier holder has written stays, and is not written again. */
async function* answer(item, written, timings) {
  const begun = performance.now();
  const all = pieces(item);
  const whole = all.join("");
  let there = textOf(written);
  if (!written.some((frame) => frame.type === "status")) {
    yield { type: "status", stage: "generating", content: writing(item.language) };
  }
  if (!whole.startsWith(there)) {
    yield { type: "answer_reset" }; // somebody else's words: we cannot go on from there
    there = "";
  }
  let at = 0;
  for (const piece of all) {
    at += piece.length;
    if (at <= there.length) continue;
    if (PACE_MS > 0) await sleep(PACE_MS);
    timings.ttft_ms ??= Date.now() - item.received_ms;
    yield { type: "answer_chunk", content: piece.slice(Math.max(0, there.length - at + piece.length)) };
  }
  timings.generation_ms += Math.round(performance.now() - begun);
  yield done(item, timings, "stop", citations(whole, item.passages));
}

function done(item, timings, finish_reason, cites = { cited: [], citations: [] }) {
  const usage = item.usage ?? { prompt_tokens: 0, completion_tokens: 0 };
  return { type: "done", finish_reason, ...cites, usage, timings, variant: item.variant || undefined };
}

function failed(code, message, retryable) {
  return { type: "error", code, message, retryable };
}

/** 5: the item's timings with the time that it lay in the queue. */
function arrived(item) {
  const timings = { queue_ms: 0, retrieval_ms: 0, generation_ms: 0, tool_calls: 0, ...item.timings };
  timings.queue_ms += Math.max(0, Date.now() - item.queued_ms);
  timings.ttfb_ms ??= Math.max(0, Date.now() - item.received_ms);
  return timings;
}

/** 2.10: another worker goes on from the log. */
async function giveBack(ref, lease) {
  if (lease.held) await countReturn(wire, ref);
  await lease.settle("-NAK");
}

// --- 2.8: items that no worker survives --------------------------------------------------------------------------------

async function isDead(ref, lease) {
  return lease.deliveries > MAX_DELIVERIES && lease.deliveries - (await returned(wire, ref)) > MAX_DELIVERIES;
}

async function setAside(log, ref, { handoff }, deliveries) {
  const reason = `no ${STAGE} worker finished it in ${deliveries - 1} deliveries`;
  const dead = { v: 1, ref, request_id: log.requestId, reason, deliveries: deliveries - 1, at_ms: Date.now(), handoff };
  await wire.store(`baton.v1.dead.${STAGE}`, pack(dead));
  log.write(failed("poisoned", "This request made every worker fail that tried it.", false));
  await log.flush();
}

// --- start and stop ----------------------------------------------------------------------------------------------------

const ackWaitMs = await consumer();
setInterval(beat, 500).unref();
nc.closed().then((error) => {
  if (!error) return;
  console.error(`NATS does not take us any more: ${error.message}`);
  process.exit(1);
});
nc.subscribe("baton.v1.census", { callback: announce });
nc.subscribe("baton.v1.inventory", { callback: (_, message) => tellHoldings(message) });
announce();
const announcing = setInterval(announce, 1000);
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => stopping.abort());
stopping.signal.addEventListener("abort", () => {
  announce();
  setTimeout(() => running.forEach((_, stop) => stop("leaving")), DRAIN_MS).unref(); // give back what is left
});
console.log(`${NAME} serves ${QUEUE}`);
await Promise.all(Array.from({ length: SLOTS }, slot));
clearInterval(announcing);
await nc.drain();

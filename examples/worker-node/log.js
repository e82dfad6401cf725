// A request's log (proto/README.md sections 1, 2.2 and 2.4) and the lease on a work item (2.3 and 2.7).

import { pack, read, sleep, Unanswered } from "./wire.js";

/** Somebody else holds this request now: stop, and never acknowledge, refuse or renew its item again. */
export class Replaced extends Error {}

const MAX_FRAMES = 128; // of our pieces in an entry: far below the limit of its bytes
export const ended = (frame) => frame.type === "done" || frame.type === "error";

export class Log {
  constructor(wire, ref, writer, held = () => true) {
    Object.assign(this, { wire, writer, held, last: 0, nextSeq: 0, requestId: "", waiting: [], sending: null });
    this.failed = new Promise((_, reject) => (this.fail = reject)); // as soon as we cannot go on
    this.failed.catch(() => {});
    this.stream = `BATON_LOG_${ref.shard}`;
    this.subject = `baton.v1.log.${ref.shard}.${ref.key}`;
  }

  /** The log's frames, or only those of its last message; we append behind them from now on. Empty without a log. */
  async read(whole) {
    const tail = await this.wire.last(this.stream, this.subject);
    if (tail === null) return [];
    const messages = whole ? await this.wire.replay(this.stream, this.subject, tail.seq) : [tail];
    const entries = messages.map(({ data }) => read(data, { request_id: "string", frames: "array" }));
    if (entries.includes(null)) throw new Unanswered("an entry of the log is unreadable");
    const frames = entries.flatMap((entry) => entry.frames);
    this.requestId = entries[0].request_id;
    this.last = tail.seq;
    this.nextSeq = frames.at(-1).seq + 1;
    return frames;
  }

  /** Queue a frame. What has gathered while an append was on its way goes with the next one. */
  write(frame) {
    this.waiting.push({ ...frame, seq: this.nextSeq, timestamp: new Date().toISOString() });
    this.nextSeq += 1;
    this.sending ??= this.#send().catch(this.fail);
  }

  /** Wait until everything is stored. Throws Replaced or Unanswered. */
  async flush() {
    await Promise.race([this.failed, this.sending]); // in this order: `sending` settles after a failure, too
  }

  async #send() {
    while (this.waiting.length > 0) {
      const frames = this.waiting.splice(0, MAX_FRAMES);
      await this.#append({ v: 1, request_id: this.requestId, append_id: crypto.randomUUID(), writer: this.writer, frames });
    }
    this.sending = null;
  }

  /** Store an entry behind the last message that we know of, or find out that somebody else was there first. */
  async #append(entry) {
    const data = pack(entry);
    for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
      if (!this.held()) throw new Replaced("the lease was lost");
      try {
        this.last = await this.wire.store(this.subject, data, { "Nats-Expected-Last-Subject-Sequence": this.last });
        return;
      } catch (error) {
        if (!(error instanceof Unanswered)) throw error;
      }
      await sleep(pause);
      const tail = await this.wire.last(this.stream, this.subject).catch(() => undefined);
      if (tail === undefined) continue; // no answer: neither stored nor refused, as far as we know
      if (tail !== null && read(tail.data)?.append_id === entry.append_id) {
        this.last = tail.seq; // it was stored, only the answer got lost
        return;
      }
      if ((tail?.seq ?? 0) !== this.last) throw new Replaced("somebody else has appended");
    }
  }
}

/** Our claim on a work item: renewed every second, lost when no renewal was answered in time. */
export class Lease {
  constructor(wire, message, ackWaitMs) {
    Object.assign(this, { wire, reply: message.reply, validMs: ackWaitMs * 0.8, renewed: performance.now() });
    // $JS.ACK.<stream>.<consumer>.<deliveries>.…, with <domain>.<account> before the stream where there are domains
    const parts = message.reply.split(".");
    this.deliveries = Number(parts[parts.indexOf("BATON_WORK") + 2]);
    this.timer = setInterval(() => this.#renew(), 1000);
  }

  get held() {
    return performance.now() - this.renewed < this.validMs;
  }

  async #renew() {
    const asked = performance.now();
    if (!this.held) return this.stop();
    await this.wire.ask(this.reply, "+WPI", { seconds: 1 }).then(() => (this.renewed = asked), () => {});
  }

  /** Repeated until it is answered, but never when the lease may be lost: it would take somebody else's item. */
  async settle(what) {
    while (this.held) {
      const answered = await this.wire.ask(this.reply, what, { seconds: 1 }).then(() => true, () => false);
      if (answered) return;
    }
  }

  stop() {
    clearInterval(this.timer);
  }
}

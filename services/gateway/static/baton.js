// @ts-check
/**
 * Client of a Baton gateway: one WebSocket, any number of questions, nothing lost when the connection drops.
 *
 * No dependencies and no DOM: it runs in a page, in a worker, or anywhere else that has `WebSocket` and `EventTarget`.
 *
 *     const client = new BatonClient({ url: "wss://example.org/ws" });
 *     const answer = client.ask("How do I claim travel expenses?");
 *     for await (const frame of answer) console.log(frame.type, answer.state.text);
 *
 * An answer is a log of frames numbered by `seq`. The client hands them out in order, each once, whatever the
 * connection did meanwhile; what cannot be fetched again is said, never made up.
 */

/**
 * @typedef {{ type: string, request_id?: string, seq?: number, from_seq?: number, timestamp?: string, [field:
 *   string]: any }} Frame
 */
/**
 * @typedef {{ n: number, id: string, document_id: string, title: string, url: string, snippet: string, score: number,
 *   page?: number }} Source
 */
/**
 * `[n]` stands at `start` to `end` of the answer: in characters (code points) in the protocol's `citations`, in UTF-16
 * units, as JavaScript counts, in what `citationRanges` and `marksIn` give.
 * @typedef {{ n: number, start: number, end: number }} Citation
 */
/**
 * What may be asked for with a question; all of it is optional. `if_busy` decides what happens while another question
 * of the conversation runs, `cache: false` has it answered afresh.
 * @typedef {{ request_id?: string, conversation_id?: string, language?: "zh" | "en", top_k?: number,
 *   filters?: Record<string, any>, deadline_ms?: number, cache?: boolean, on_disconnect?: "continue" | "cancel",
 *   if_busy?: "reject" | "enqueue" | "interrupt", seed?: number, temperature?: number, max_tokens?: number,
 *   top_p?: number, presence_penalty?: number, frequency_penalty?: number, stop?: string[] }} QueryOptions
 */
/** @typedef {"running" | "done" | "failed" | "stopped"} StepStatus */
/**
 * One line of the timeline. `elapsedMs` is what a worker measured; `startedAt`/`endedAt` are its clock (Unix ms).
 * `labels` counts the different labels it has had: where there was more than one, the last says what came out.
 * @typedef {{ kind: "stage" | "tool", id: string, stage: string, status: StepStatus, label: string, labels: number,
 *   count: number | null, elapsedMs: number | null, startedAt: number, endedAt: number | null, name?: string,
 *   arguments?: any, progress: string[], result?: string }} Step
 */
/**
 * @typedef {"idle" | "connecting" | "online" | "reconnecting" | "auth" | "offline" | "refused" | "closed"}
 *   ConnectionState
 */
/**
 * Milliseconds. `giveUpMs` is how long open answers wait for a connection that does not come back.
 * @typedef {{ baseDelayMs: number, maxDelayMs: number, pauseMs: number, stableMs: number, connectTimeoutMs: number,
 *   heartbeatMs: number, pongTimeoutMs: number, quietMs: number, giveUpMs: number }} Timing
 */

/** @type {Readonly<Timing>} */
export const TIMING = Object.freeze({
  baseDelayMs: 500,
  maxDelayMs: 15_000,
  pauseMs: 5_000,
  stableMs: 5_000,
  connectTimeoutMs: 10_000,
  heartbeatMs: 20_000,
  pongTimeoutMs: 10_000,
  quietMs: 30_000,
  giveUpMs: 600_000,
});

const MAX_ATTEMPTS = 5;
const MAX_ASKED_AGAIN = 3;
const MAX_REFUSED_WAIT_MS = 30_000;
/** Refusals of a question that pass by themselves: it is asked again, a few times, when the server said to. */
const BUSY = new Set(["overloaded", "rate_limited", "no_worker"]);
const MAX_PROGRESS_LINES = 50;
const MAX_SILENT_CHECKS = 5;
const GAP = Symbol("gap");
const DUPLICATE = Symbol("duplicate");

/** A new request id: 128 random bits, in the form the protocol asks for. */
export function newRequestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {Frame} frame */
function textOf(frame) {
  return typeof frame.content === "string" ? frame.content : "";
}

// --- putting frames together ------------------------------------------------------------------------------------------

/** Puts the frames of one request together by `seq`. Pure: it knows nothing of connections. */
export class FrameLog {
  /** @param {number} afterSeq the last frame that is already known; -1 = none */
  constructor(afterSeq = -1) {
    this.next = afterSeq + 1;
    this.length = 0;
    /** Answer length after each frame, which is what cutting a known start off a joined chunk needs. */
    this.ends = new Map([[afterSeq, 0]]);
  }

  /**
   * The frame to use, `FrameLog.DUPLICATE` when all of it is known, `FrameLog.GAP` when frames before it are missing.
   * @param {Frame} frame
   * @returns {Frame | symbol}
   */
  accept(frame) {
    const seq = /** @type {number} */ (frame.seq);
    const first = frame.from_seq ?? seq;
    if (seq < this.next) return DUPLICATE;
    if (first > this.next) return GAP;
    let accepted = frame;
    if (first < this.next) {
      const from = this.ends.get(first - 1);
      const upTo = this.ends.get(this.next - 1);
      if (from === undefined || upTo === undefined) return GAP;
      accepted = { ...frame, from_seq: this.next, content: textOf(frame).slice(upTo - from) };
    }
    if (accepted.type === "answer_chunk") this.length += textOf(accepted).length;
    if (accepted.type === "answer_reset") this.length = 0;
    this.ends.set(seq, this.length);
    this.next = seq + 1;
    return accepted;
  }
}
FrameLog.GAP = GAP;
FrameLog.DUPLICATE = DUPLICATE;

// --- from frames to what a person sees --------------------------------------------------------------------------------

/** What the frames so far add up to. Immutable: `state.next(frame)` is the state after one more frame. */
export class AnswerState {
  /** @param {Partial<AnswerState>} [fields] */
  constructor(fields = {}) {
    /** @type {"sent" | "running" | "done" | "failed"} */
    this.phase = "sent";
    /** @type {string | null} */
    this.conversationId = null;
    this.text = "";
    /** @type {readonly Source[]} */
    this.sources = [];
    /** @type {readonly Step[]} */
    this.steps = [];
    /** How often the text was started again. */
    this.resets = 0;
    /** False when the steps were lost and only the stored final answer could be shown. */
    this.recovered = true;
    /** @type {readonly number[] | null} `n` of the cited sources; null until the answer is done */
    this.cited = null;
    /**
     * Where the citations stand, in code points of `text` (see `citationRanges`); null until the answer is done, and
     * where it was kept without them.
     * @type {readonly Citation[] | null}
     */
    this.citations = null;
    /** @type {string | null} */
    this.finishReason = null;
    /** @type {any} */
    this.timings = null;
    /** @type {any} */
    this.usage = null;
    /** @type {string | null} `hit`, `miss` or `off` */
    this.cache = null;
    /** @type {string | null} what the answer was made with: the same again means the same documents, model, settings */
    this.fingerprint = null;
    /** @type {string | null} */
    this.variant = null;
    /**
     * @type {{ code: string, message: string, retryable: boolean, retryAfterMs: number | null, local: boolean } |
     *   null}
     */
    this.error = null;
    Object.assign(this, fields);
    Object.freeze(this);
  }

  get finished() {
    return this.phase === "done" || this.phase === "failed";
  }

  /**
   * @param {Frame} frame in order; a frame of an unknown type changes nothing
   * @returns {AnswerState}
   */
  next(frame) {
    const reduce = Object.hasOwn(REDUCERS, frame.type) ? REDUCERS[frame.type] : null;
    if (!reduce || this.finished) return this;
    const parsed = Date.parse(frame.timestamp ?? "");
    return this.with({ phase: "running", ...reduce(this, frame, Number.isNaN(parsed) ? 0 : parsed) });
  }

  /** @param {Partial<AnswerState>} fields */
  with(fields) {
    return new AnswerState({ ...this, ...fields });
  }
}

/** @type {Record<string, (state: AnswerState, frame: Frame, at: number) => Partial<AnswerState>>} */
const REDUCERS = {
  accepted: (_state, frame) => ({ conversationId: frame.conversation_id ?? null }),
  status: (state, frame, at) => ({
    steps:
      frame.stage === "tool" && frame.call_id ? toolProgress(state.steps, frame, at) : stage(state.steps, frame, at),
  }),
  sources: (state, frame) => ({ sources: mergeSources(state.sources, frame.sources ?? []) }),
  answer_chunk: (state, frame, at) => ({
    text: state.text + textOf(frame),
    steps: isGenerating(state.steps)
      ? backToWriting(state.steps)
      : stage(state.steps, { ...frame, stage: "generating", content: "" }, at),
  }),
  tool_call: (state, frame, at) => ({
    steps: changeTool(state.steps, frame, at, (step) => ({ ...step, name: frame.name, arguments: frame.arguments })),
  }),
  tool_result: (state, frame, at) => ({
    steps: changeTool(state.steps, frame, at, (step) => ({
      ...step,
      name: step.name ?? frame.name,
      status: frame.ok ? "done" : "failed",
      elapsedMs: frame.elapsed_ms ?? null,
      endedAt: at,
      result: textOf(frame),
    })),
  }),
  answer_reset: (state) => ({ text: "", resets: state.resets + 1 }),
  done: (state, frame, at) => ({
    phase: "done",
    steps: closeAll(state.steps, at, frame.finish_reason === "cancelled" ? "stopped" : "done"),
    finishReason: frame.finish_reason ?? "stop",
    cited: frame.cited ?? [],
    citations: frame.citations ?? [],
    timings: frame.timings ?? null,
    usage: frame.usage ?? null,
    cache: frame.cache ?? null,
    fingerprint: frame.fingerprint ?? null,
    variant: frame.variant ?? null,
  }),
  error: (state, frame, at) => ({
    phase: "failed",
    steps: closeAll(state.steps, at, "failed"),
    error: {
      code: String(frame.code ?? "internal"),
      message: String(frame.message ?? ""),
      retryable: frame.retryable === true,
      retryAfterMs: frame.retry_after_ms ?? null,
      local: frame.local === true,
    },
  }),
  resumed: (state, frame, at) => {
    if (frame.recovered !== false || frame.answer == null) return {};
    const sources = mergeSources([], frame.sources ?? state.sources);
    return {
      phase: "done",
      recovered: false,
      steps: closeAll(state.steps, at, "done"),
      text: String(frame.answer),
      sources,
      cited: [...new Set(marksIn(String(frame.answer), sources).map((mark) => mark.n))],
      finishReason: frame.finish_reason ?? "stop",
    };
  },
};

/**
 * @returns {Step}
 * @param {"stage" | "tool"} kind
 * @param {string} id
 * @param {string} name
 * @param {number} at
 * @param {Partial<Step>} fields
 */
function newStep(kind, id, name, at, fields) {
  const empty = { label: "", labels: 0, count: null, elapsedMs: null, endedAt: null, progress: [] };
  return { ...empty, kind, id, stage: name, status: "running", startedAt: at, ...fields };
}

/**
 * A status of the stage that already runs refines its step; any other stage begins a new one.
 * @param {readonly Step[]} steps
 * @param {Frame} frame
 * @param {number} at
 */
function stage(steps, frame, at) {
  const last = steps.at(-1);
  const measured = frame.elapsed_ms != null;
  const fields = {
    label: textOf(frame),
    labels: textOf(frame) ? 1 : 0,
    count: frame.count ?? null,
    elapsedMs: frame.elapsed_ms ?? null,
    /** @type {StepStatus} */
    status: measured ? "done" : "running",
    endedAt: measured ? at : null,
  };
  if (last?.kind === "stage" && last.stage === frame.stage && last.status !== "failed") {
    return [
      ...steps.slice(0, -1),
      { ...last, ...fields, ...relabelled(last, fields.label), count: fields.count ?? last.count },
    ];
  }
  return [...closeStages(steps, at), newStep("stage", `${frame.stage}-${steps.length}`, frame.stage, at, fields)];
}

/** @param {Step} step @param {string} label */
function relabelled(step, label) {
  return label && label !== step.label
    ? { label, labels: step.labels + 1 }
    : { label: step.label, labels: step.labels };
}

/** @param {readonly Step[]} steps @param {Frame} frame @param {number} at */
function toolProgress(steps, frame, at) {
  const progress = (/** @type {Step} */ step) => [...step.progress, textOf(frame)].slice(-MAX_PROGRESS_LINES);
  return changeTool(steps, frame, at, (step) => ({ ...step, progress: progress(step) }));
}

/**
 * Change the step of the frame's call, which begins with whichever frame names the call first; a call that is repeated
 * after a fail-over is still the same step.
 * @param {readonly Step[]} steps @param {Frame} frame @param {number} at @param {(step: Step) => Step} change
 */
function changeTool(steps, frame, at, change) {
  const index = steps.findIndex((step) => step.kind === "tool" && step.id === frame.call_id);
  if (index >= 0) return steps.map((step, other) => (other === index ? change(step) : step));
  return [...closeStages(steps, at), change(newStep("tool", frame.call_id, "tool", at, {}))];
}

/**
 * Stages end where something else begins; "calling the tools" goes when the calls themselves are there.
 * @param {readonly Step[]} steps
 * @param {number} at
 */
function closeStages(steps, at) {
  return steps
    .filter((step) => step.kind !== "stage" || step.stage !== "tool")
    .map((step) => (step.kind === "stage" && step.status === "running" ? closed(step, at, "done") : step));
}

/** @param {readonly Step[]} steps @param {number} at @param {StepStatus} status */
function closeAll(steps, at, status) {
  return steps.map((step) => (step.status === "running" ? closed(step, at, status) : step));
}

/** @param {Step} step @param {number} at @param {StepStatus} status @returns {Step} */
function closed(step, at, status) {
  return { ...step, status, endedAt: at || null };
}

/** @param {readonly Step[]} steps */
function isGenerating(steps) {
  const last = steps.at(-1);
  return last?.stage === "generating" && last.status === "running";
}

/**
 * What a generator said in between, as that its model thinks, is over when text comes.
 * @param {readonly Step[]} steps the last one is generating
 */
function backToWriting(steps) {
  const last = /** @type {Step} */ (steps.at(-1));
  return last.labels > 1 ? [...steps.slice(0, -1), { ...last, label: "", labels: 0 }] : steps;
}

/** @param {readonly Source[]} known @param {readonly Source[]} more */
function mergeSources(known, more) {
  const byNumber = new Map([...known, ...more].map((source) => [source.n, source]));
  return [...byNumber.values()].sort((a, b) => a.n - b.n);
}

// --- citations --------------------------------------------------------------------------------------------------------

/**
 * Citations of the protocol, which counts characters, in UTF-16 units of `text`, in order. What is not `[n]` there, or
 * lies outside, is left out: the offsets are of another text.
 * @param {string} text
 * @param {readonly Citation[]} citations
 * @returns {Citation[]}
 */
export function citationRanges(text, citations) {
  /** @type {Citation[]} */
  const ranges = [];
  let [points, units] = [0, 0];
  for (const { n, start } of [...citations].sort((a, b) => a.start - b.start)) {
    for (; points < start && units < text.length; points += 1)
      units += Number(text.codePointAt(units)) > 0xffff ? 2 : 1;
    const mark = `[${n}]`;
    if (points === start && text.startsWith(mark, units)) ranges.push({ n, start: units, end: units + mark.length });
  }
  return ranges;
}

/**
 * The marks `[n]` of known sources in a text that came without citations, as while it is written: UTF-16 units.
 * @param {string} text
 * @param {readonly Source[]} sources
 * @returns {Citation[]}
 */
export function marksIn(text, sources) {
  const known = new Set(sources.map((source) => source.n));
  const marks = [...text.matchAll(/\[(\d{1,3})\]/g)];
  return marks
    .map((mark) => ({ n: Number(mark[1]), start: mark.index, end: mark.index + mark[0].length }))
    .filter((mark) => known.has(mark.n));
}

// --- one answer -------------------------------------------------------------------------------------------------------

/**
 * One question's frames, as they come. An `EventTarget` (`frame`, with the frame in `detail`; `end`) and an async
 * iterable that always begins with the first frame, so it may be iterated late or twice.
 */
export class Answer extends EventTarget {
  /** @param {BatonClient} client @param {string} requestId @param {string} query */
  constructor(client, requestId, query) {
    super();
    this.client = client;
    this.requestId = requestId;
    this.query = query;
    /** @type {Frame[]} */
    this.frames = [];
    this.state = new AnswerState();
    /** While the server was too busy for the question: why, and when (Unix ms) it is asked again.
     * @type {{ code: string, message: string, until: number } | null} */
    this.waiting = null;
    /** Resolves with the last state; never rejects. @type {Promise<AnswerState>} */
    this.ended = new Promise((resolve) => this.addEventListener("end", () => resolve(this.state), { once: true }));
  }

  get finished() {
    return this.state.finished;
  }

  cancel() {
    this.client.cancel(this.requestId);
  }

  /** For the client only. @param {{ code: string, message: string, until: number } | null} waiting */
  wait(waiting) {
    if (this.waiting === waiting) return;
    this.waiting = waiting;
    this.dispatchEvent(new CustomEvent("wait", { detail: waiting }));
  }

  /** For the client only. @param {Frame} frame */
  push(frame) {
    if (this.finished) return;
    this.wait(null);
    this.frames.push(frame);
    this.state = this.state.next(frame);
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
    if (this.finished) this.dispatchEvent(new CustomEvent("end", { detail: this.state }));
  }

  async *[Symbol.asyncIterator]() {
    for (let at = 0; ;) {
      if (at < this.frames.length) yield this.frames[at++];
      else if (this.finished) return;
      else await new Promise((resolve) => this.addEventListener("frame", resolve, { once: true }));
    }
  }
}

// --- the connection ---------------------------------------------------------------------------------------------------

/**
 * What a close code asks for. Any other code (1011 and 4009 among them) means: come back after a growing, random delay,
 * with `resume`. @type {Record<number, string>}
 */
const CLOSE_POLICY = { 1009: "stop", 1012: "now", 4001: "token", 4003: "stop", 4008: "rest", 4029: "pause" };

/**
 * An open question: `message` is null where it was only attached to; `heardAt` is in Unix ms.
 * @typedef {{ answer: Answer, message: Frame | null, log: FrameLog, sent: boolean, cancelled: boolean,
 *   resuming: boolean, attempts: number, silent: number, heardAt: number }} Call
 */

/**
 * A connection to one gateway that mends itself.
 *
 * Events: `state` (`detail`: `{state, code?, reason?, retryInMs?, attempt?}`), `hello` (the frame), `error` (an error
 * frame that belongs to no question).
 */
export class BatonClient extends EventTarget {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Map<string, Call>} */ #calls = new Map();
  /** @type {ConnectionState} */ #state = "idle";
  /** @type {string | null} */ #token;
  /** @type {string | null} */ #refusedToken = null;
  #attempt = 0;
  #openedAt = 0;
  #heardAt = 0;
  /** @type {number | null} */ #pingedAt = null;
  /** @type {number | null} */ #downSince = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retryTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #watchTimer;

  /**
   * @param {{ url: string | URL, token?: string | null, getToken?: () => string | null | Promise<string | null>,
   *   WebSocket?: typeof WebSocket, subprotocol?: string, timing?: Partial<Timing>, random?: () => number }} options
   *   `getToken` is asked on every connection and after a token was refused. `subprotocol` must be a JSON one.
   */
  constructor(options) {
    super();
    this.url = String(options.url);
    this.hello = /** @type {Frame | null} */ (null);
    this.timing = { ...TIMING, ...options.timing };
    this.options = options;
    this.random = options.random ?? Math.random;
    this.#token = options.token ?? null;
  }

  /** @returns {ConnectionState} */
  get state() {
    return this.#state;
  }

  get token() {
    return this.#token;
  }

  /**
   * Ask. The answer is there at once and fills as frames come, also when there is no connection yet.
   * @param {string} query
   * @param {QueryOptions & Record<string, any>} [options] further fields of the protocol's `query`
   */
  ask(query, options = {}) {
    const request_id = options.request_id ?? newRequestId();
    return this.#open(new Answer(this, request_id, query), { ...options, type: "query", query, request_id }, -1);
  }

  /**
   * Follow a request that was asked earlier, perhaps elsewhere.
   * @param {string} requestId
   * @param {{ afterSeq?: number, query?: string }} [options] `afterSeq`: the last frame known; -1 = from the start
   */
  attach(requestId, { afterSeq = -1, query = "" } = {}) {
    return this.#open(new Answer(this, requestId, query), null, afterSeq);
  }

  /**
   * Stop an answer. It ends with `done` and `finish_reason` `cancelled`, as soon as the server is reached.
   * @param {string} requestId
   */
  cancel(requestId) {
    const call = this.#calls.get(requestId);
    if (!call || call.cancelled) return;
    call.cancelled = true;
    if (!call.sent && call.message)
      this.#end(call, { type: "done", finish_reason: "cancelled", cited: [], local: true });
    else if (this.#state === "online") this.#send({ type: "cancel", request_id: requestId });
  }

  /**
   * Connect now: at the start, after `offline`, or without waiting for the next attempt. If there is a connection,
   * check that it lives.
   */
  connect() {
    if (this.#state === "online") return this.#ping();
    if (this.#socket) return;
    this.#connect();
  }

  /** A new token, after `auth` or before the old one expires. @param {string | null} token */
  setToken(token) {
    this.#token = token;
    this.#refusedToken = null;
    if (!token) return;
    if (this.#socket && this.hello) {
      this.#send({ type: "auth", token });
      if (this.#state === "auth") this.#online();
    } else if (!this.#socket) this.#connect();
  }

  /** Leave. Open answers end with the local error `disconnected`; on the server they go on. */
  close() {
    this.#forget(1000);
    this.#endAll("disconnected", "The connection was closed.", false);
    this.#setState("closed");
  }

  /** @param {Answer} answer @param {Frame | null} message @param {number} afterSeq */
  #open(answer, message, afterSeq) {
    const limit = this.hello?.limits?.message_bytes;
    /** @type {Call} */
    const call = {
      answer,
      message,
      log: new FrameLog(afterSeq),
      sent: false,
      cancelled: false,
      resuming: false,
      attempts: 0,
      silent: 0,
      heardAt: Date.now(),
    };
    this.#calls.set(answer.requestId, call);
    if (limit && message && new TextEncoder().encode(JSON.stringify(message)).length > limit) {
      this.#end(call, localError("too_large", `The question is larger than ${limit} bytes.`, false));
    } else if (this.#state === "online") this.#start(call);
    else if (!this.#socket && this.#state !== "auth") this.#connect();
    return answer;
  }

  // --- life of the socket ---

  #connect() {
    clearTimeout(this.#retryTimer);
    this.hello = null;
    this.#downSince ??= Date.now();
    this.#setState(this.#attempt > 0 || this.#state === "reconnecting" ? "reconnecting" : "connecting");
    const Socket = this.options.WebSocket ?? WebSocket;
    /** @type {WebSocket} */
    let socket;
    try {
      socket = this.options.subprotocol ? new Socket(this.url, this.options.subprotocol) : new Socket(this.url);
    } catch (error) {
      return this.#refuse("bad_url", error instanceof Error ? error.message : String(error));
    }
    this.#socket = socket;
    this.#openedAt = Date.now();
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#received(event.data);
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#lost(event.code, event.reason);
    };
    this.#watchTimer = setTimeout(() => this.#drop("no hello"), this.timing.connectTimeoutMs);
  }

  /** Give up a connection that does not answer, without waiting for its closing handshake. @param {string} reason */
  #drop(reason) {
    this.#forget(4000);
    this.#lost(1006, reason);
  }

  /** @param {number} code */
  #forget(code) {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#watchTimer);
    const socket = this.#socket;
    this.#socket = null;
    try {
      socket?.close(code);
    } catch {
      // Still connecting: the browser ends it when nothing refers to it any more.
    }
  }

  /** @param {number} code @param {string} reason */
  #lost(code, reason) {
    clearTimeout(this.#watchTimer);
    this.#socket = null;
    this.#pingedAt = null;
    for (const call of this.#calls.values()) call.resuming = false;
    // A connection that only ever greets and breaks is no progress: patience goes on running.
    if (Date.now() - this.#openedAt > this.timing.stableMs && this.hello) this.#progress();
    this.#downSince ??= Date.now();
    const policy = CLOSE_POLICY[code];
    if (policy === "stop") {
      if (code === 1009) this.#refuse("too_large", "A message was larger than the server allows.", code, reason);
      else this.#refuse("forbidden", "The server does not allow connections from this page.", code, reason);
    } else if (policy === "token") void this.#renewToken(code, reason);
    else if (policy === "rest" && this.#calls.size === 0) {
      this.#downSince = null;
      this.#setState("idle", { code, reason });
    } else this.#retry(policy ?? "backoff", code, reason);
  }

  /** The connection does what it is for: the next time it is lost is a new outage. */
  #progress() {
    this.#attempt = 0;
    this.#downSince = null;
  }

  /** @param {string} policy @param {number} code @param {string} reason */
  #retry(policy, code, reason) {
    if (Date.now() - /** @type {number} */ (this.#downSince) > this.timing.giveUpMs) return this.#giveUp(code, reason);
    const { baseDelayMs, maxDelayMs, pauseMs } = this.timing;
    // "Full jitter": anything up to the ceiling, so that many clients do not come back in the same moment.
    let retryInMs = this.random() * Math.min(maxDelayMs, baseDelayMs * 2 ** Math.min(this.#attempt, 20));
    if (policy === "pause") retryInMs += pauseMs;
    if ((policy === "now" || policy === "rest") && this.#attempt === 0) retryInMs = 0;
    this.#attempt += 1;
    this.#setState("reconnecting", { code, reason, retryInMs, attempt: this.#attempt });
    this.#retryTimer = setTimeout(() => this.#connect(), retryInMs);
  }

  /** @param {number} code @param {string} reason */
  #giveUp(code, reason) {
    this.#attempt = 0;
    this.#downSince = null;
    this.#endAll("disconnected", "The server could not be reached again.", true);
    this.#setState("offline", { code, reason });
  }

  /** @param {string} error @param {string} message @param {number} [code] @param {string} [reason] */
  #refuse(error, message, code, reason = "") {
    this.#downSince = null;
    this.#endAll(error, message, false);
    this.#setState("refused", { code, reason, error });
  }

  /** @param {ConnectionState} state @param {Record<string, any>} [detail] */
  #setState(state, detail = {}) {
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, ...detail } }));
  }

  // --- token ---

  /** The token to use now, also for the gateway's HTTP addresses: `getToken`'s where there is one. */
  async currentToken() {
    if (this.options.getToken) this.#token = (await this.options.getToken()) ?? null;
    return this.#token;
  }

  async #authenticate() {
    const socket = this.#socket;
    const mode = this.hello?.auth;
    const token = mode === "off" ? null : await this.currentToken().catch(() => null);
    if (socket !== this.#socket) return;
    if (token) this.#send({ type: "auth", token });
    else if (mode === "required") return this.#setState("auth");
    this.#online();
  }

  /** @param {number} code @param {string} reason */
  async #renewToken(code, reason) {
    this.#refusedToken = this.#token;
    this.#setState("auth", { code, reason });
    if (!this.options.getToken) return;
    const token = await this.currentToken().catch(() => null);
    if (token && token !== this.#refusedToken && this.#state === "auth" && !this.#socket)
      this.#retry("now", code, reason);
  }

  // --- messages ---

  /** @param {Frame} message */
  #send(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  /** @param {any} data */
  #received(data) {
    this.#heardAt = Date.now();
    this.#pingedAt = null;
    /** @type {Frame} */
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (frame === null || typeof frame !== "object") return;
    if (frame.type === "hello") return this.#greeted(frame);
    const call = this.#calls.get(frame.request_id ?? "") ?? this.#onlyUnanswered(frame);
    if (!call) {
      if (frame.type === "error") this.dispatchEvent(new CustomEvent("error", { detail: frame }));
      return;
    }
    call.heardAt = Date.now();
    call.silent = 0;
    if (frame.type === "resumed") this.#resumed(call, frame);
    else if (typeof frame.seq === "number" && frame.seq >= 0) this.#logged(call, frame);
    else if (frame.type === "error") this.#refused(call, frame);
  }

  /** @param {Frame} frame */
  #greeted(frame) {
    const first = !this.hello;
    this.hello = frame;
    this.dispatchEvent(new CustomEvent("hello", { detail: frame }));
    if (!first) return;
    clearTimeout(this.#watchTimer);
    void this.#authenticate();
  }

  #online() {
    this.#heardAt = Date.now();
    this.#setState("online");
    for (const call of this.#calls.values()) this.#start(call);
    clearTimeout(this.#watchTimer);
    this.#watch();
  }

  /**
   * An error without a request id is about the one question that got no answer yet, if there is just one.
   * @param {Frame} frame
   */
  #onlyUnanswered(frame) {
    if (frame.type !== "error" || frame.request_id || frame.code === "unauthorized") return undefined;
    const waiting = [...this.#calls.values()].filter((call) => call.sent && call.log.next === 0);
    return waiting.length === 1 ? waiting[0] : undefined;
  }

  /**
   * Send the question, or, where it may have arrived before, ask for the frames that are missing.
   * @param {Call} call
   */
  #start(call) {
    call.heardAt = Date.now();
    call.answer.wait(null);
    const unanswered = call.message && call.log.next === 0 && !(call.sent && call.cancelled);
    // Sent again, the same request id attaches to the request if it did arrive.
    if (unanswered) this.#send(/** @type {Frame} */ (call.message));
    else this.#resume(call);
    call.sent = true;
    if (call.cancelled) this.#send({ type: "cancel", request_id: call.answer.requestId });
  }

  /**
   * Nothing came for this request in a while, though the connection lives: make sure that the server still follows
   * it.
   * @param {Call} call
   */
  #check(call) {
    call.silent += 1;
    if (call.silent > MAX_SILENT_CHECKS) {
      this.#end(call, localError("deadline", "The server says nothing about this question any more.", true));
    } else this.#start(call);
  }

  /** @param {Call} call */
  #resume(call) {
    call.resuming = true;
    this.#send({ type: "resume", request_id: call.answer.requestId, after_seq: call.log.next - 1 });
  }

  /** @param {Call} call @param {Frame} frame */
  #resumed(call, frame) {
    // Without an answer an error `gone` follows, which ends it.
    if (frame.recovered === false && frame.answer == null) return;
    call.resuming = false;
    if (frame.recovered === false) this.#end(call, frame);
    else if (frame.next_seq > call.log.next) this.#again(call);
  }

  /** @param {Call} call @param {Frame} frame */
  #logged(call, frame) {
    const accepted = call.log.accept(frame);
    if (accepted === DUPLICATE) return;
    if (accepted === GAP) {
      if (!call.resuming) this.#again(call);
      return;
    }
    call.attempts = 0;
    call.resuming = false;
    this.#progress();
    call.answer.push(/** @type {Frame} */ (accepted));
    if (call.answer.finished) this.#calls.delete(call.answer.requestId);
  }

  /** The server refused a message about this request. @param {Call} call @param {Frame} frame */
  #refused(call, frame) {
    if (call.resuming && frame.retryable && call.attempts < MAX_ATTEMPTS) {
      call.attempts += 1;
      setTimeout(() => this.#isOpen(call) && this.#resume(call), frame.retry_after_ms ?? 1_000);
    } else if (call.cancelled && call.log.next === 0) {
      this.#end(call, { type: "done", finish_reason: "cancelled", cited: [], local: true });
    } else if (call.cancelled && !call.resuming) this.#again(call);
    else if (this.#isBusy(call, frame)) this.#askLater(call, frame);
    else this.#end(call, frame);
  }

  /** @param {Call} call @param {Frame} frame */
  #isBusy(call, frame) {
    const isQuestion = call.message !== null && call.log.next === 0 && !call.resuming;
    return isQuestion && frame.retryable === true && BUSY.has(frame.code) && call.attempts < MAX_ASKED_AGAIN;
  }

  /** Ask again when the server said to, and a little later by chance. @param {Call} call @param {Frame} frame */
  #askLater(call, frame) {
    call.attempts += 1;
    const told = Math.min(frame.retry_after_ms ?? 1_000, MAX_REFUSED_WAIT_MS);
    const waitMs = told + this.random() * (told / 2);
    const until = Date.now() + waitMs;
    call.answer.wait({ code: String(frame.code), message: String(frame.message ?? ""), until });
    // If there is another connection by then, the question was asked on that one already.
    setTimeout(() => call.answer.waiting?.until === until && this.#isOpen(call) && this.#start(call), waitMs);
  }

  /** @param {Call} call */
  #isOpen(call) {
    return this.#state === "online" && this.#calls.get(call.answer.requestId) === call;
  }

  /** Frames are missing: ask again, a bounded number of times without progress. @param {Call} call */
  #again(call) {
    call.attempts += 1;
    if (call.attempts > MAX_ATTEMPTS) {
      this.#end(call, localError("log_lost", "Part of this answer is missing and could not be fetched again.", true));
    } else this.#resume(call);
  }

  /** @param {Call} call @param {Frame} frame */
  #end(call, frame) {
    this.#calls.delete(call.answer.requestId);
    call.answer.push(frame);
  }

  /** @param {string} code @param {string} message @param {boolean} retryable */
  #endAll(code, message, retryable) {
    for (const call of [...this.#calls.values()]) this.#end(call, localError(code, message, retryable));
  }

  // --- watching ---

  #ping() {
    this.#pingedAt ??= Date.now();
    this.#send({ type: "ping" });
    clearTimeout(this.#watchTimer);
    this.#watch();
  }

  /** Look whether the connection lives: ping after silence, drop it when nothing answers; ask about quiet requests. */
  #watch() {
    const heartbeat = Math.min(this.timing.heartbeatMs, this.hello?.heartbeat_ms ?? Infinity);
    const now = Date.now();
    if (this.#pingedAt !== null && now - this.#pingedAt >= this.timing.pongTimeoutMs) return this.#drop("no pong");
    if (this.#pingedAt === null && now - this.#heardAt >= heartbeat) return this.#ping();
    for (const call of this.#calls.values()) {
      if (now - call.heardAt >= this.timing.quietMs) this.#check(call);
    }
    const due =
      this.#pingedAt === null
        ? this.#heardAt + heartbeat
        : Math.min(this.#pingedAt + this.timing.pongTimeoutMs, now + heartbeat);
    this.#watchTimer = setTimeout(() => this.#watch(), Math.max(10, due - now));
  }
}

/** @param {string} code @param {string} message @param {boolean} retryable @returns {Frame} */
function localError(code, message, retryable) {
  return { type: "error", code, message, retryable, local: true };
}

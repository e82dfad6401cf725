// Bytes and NATS: msgpack maps, the JetStream requests that a worker needs, and nothing about answers.

import { decode, encode } from "@msgpack/msgpack";
import { headers } from "@nats-io/transport-node";

export const pack = (message) => encode(message, { ignoreUndefined: true });

/** The message in these bytes, if each field that is named has its type; null where it is none that we can read. */
export function read(data, types = {}) {
  let message = data;
  try {
    if (data instanceof Uint8Array) message = decode(data);
  } catch {
    return null;
  }
  if (message === null || typeof message !== "object" || message.v !== 1) return null;
  const fits = ([name, type]) => (type === "array" ? Array.isArray(message[name]) : typeof message[name] === type);
  return Object.entries(types).every(fits) ? message : null;
}

/** NATS did not answer, or not as it should; it may do so later. */
export class Unanswered extends Error {}

export class Wire {
  constructor(connection) {
    this.nc = connection;
  }

  /** Send, and wait for the answer: its bytes. */
  async ask(subject, data, { seconds = 2, with: fields = {} } = {}) {
    const options = { timeout: seconds * 1000 };
    for (const [name, value] of Object.entries(fields)) (options.headers ??= headers()).set(name, String(value));
    try {
      return (await this.nc.request(subject, data, options)).data;
    } catch (error) {
      throw new Unanswered(`${subject}: ${error.message}`);
    }
  }

  /** Put a message into a stream; its stream sequence. A refusal is an error with `code`. */
  async store(subject, data, fields = {}) {
    const answer = json(await this.ask(subject, data, { with: fields }));
    if (!answer.error) return answer.seq;
    throw Object.assign(new Unanswered(`${subject}: ${answer.error.description}`), { code: answer.error.err_code });
  }

  /** An answer of the JetStream API; that something is not there is an answer too. */
  async api(name, request) {
    const answer = json(await this.ask(`$JS.API.${name}`, request ? JSON.stringify(request) : ""));
    const absent = [10014, 10037, 10057, 10059]; // consumer, message, message to be deleted, stream
    if (answer.error && !absent.includes(answer.error.err_code)) throw new Unanswered(answer.error.description);
    return answer;
  }

  /** Stream sequence and bytes of a subject's last message, told by the stream's leader; null without one. */
  async last(stream, subject) {
    const { message } = await this.api(`STREAM.MSG.GET.${stream}`, { last_by_subj: subject });
    return message ? { seq: message.seq, data: Buffer.from(message.data ?? "", "base64") } : null;
  }

  /** A subject's messages up to a stream sequence, by batched direct get: any replica answers, so ask until it is there. */
  async replay(stream, subject, until) {
    const found = [];
    for (let tries = 0; tries < 50 && (found.at(-1)?.seq ?? 0) < until; tries += 1) {
      const from = (found.at(-1)?.seq ?? 0) + 1;
      const request = JSON.stringify({ batch: 256, seq: from, next_by_subj: subject });
      const inbox = `_INBOX.${crypto.randomUUID()}`;
      const answers = this.nc.subscribe(inbox);
      const bound = setTimeout(() => answers.unsubscribe(), 2000); // ends the loop below, whatever is missing
      this.nc.publish(`$JS.API.DIRECT.GET.${stream}`, request, { reply: inbox });
      for await (const message of answers) {
        if (message.headers?.code || message.headers?.get("Status")) break;
        found.push({ seq: Number(message.headers.get("Nats-Sequence")), data: message.data });
      }
      clearTimeout(bound);
      answers.unsubscribe();
      if (tries > 0) await sleep(50);
    }
    if ((found.at(-1)?.seq ?? 0) < until) throw new Unanswered("no replica has the whole log yet");
    return found;
  }

  /** The bytes of an object in the bucket `baton_documents`; null where there is none. */
  async object(name) {
    const stream = "OBJ_baton_documents";
    const key = Buffer.from(name).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
    const info = await this.last(stream, `$O.baton_documents.M.${key}`);
    const { nuid, deleted } = info ? json(info.data) : { deleted: true };
    if (deleted) return null;
    const end = await this.last(stream, `$O.baton_documents.C.${nuid}`);
    const chunks = end ? await this.replay(stream, `$O.baton_documents.C.${nuid}`, end.seq) : [];
    return Buffer.concat(chunks.map((chunk) => chunk.data));
  }
}

const json = (data) => JSON.parse(new TextDecoder().decode(data));
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

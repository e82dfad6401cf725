"""A generator worker made from proto/README.md alone: it answers with the titles of the passages.

It needs `pip install nats-py msgpack` and nothing of Baton's:

    python echo_generator.py nats://127.0.0.1:4222
"""

import asyncio
import base64
import contextlib
import json
import secrets
import signal
import sys
import time
import traceback
from datetime import UTC, datetime

import msgpack
import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError, NotFoundError

STAGE = "generate"
NAME = f"echo-{secrets.token_hex(4)}"
SLOTS = 8  # requests served at once
ACK_WAIT = 5.0  # seconds without a renewal before an item goes to another worker; the consumer's setting counts
MAX_DELIVERIES = 5
DRAIN = 20.0  # seconds to finish on SIGTERM


class Replaced(Exception):
    """Somebody else holds this request now. Stop, and never acknowledge, refuse or renew its item again."""


class Unanswered(Exception):
    """NATS did not answer; it may do so later."""


async def ask(nc, subject, data, headers=None, seconds=2.0):
    try:
        return await nc.request(subject, data, timeout=seconds, headers=headers)
    except (NatsError, TimeoutError) as error:
        raise Unanswered(f"{subject}: {error}") from None


async def last_message(nc, stream, subject):
    """Stream sequence and data of a subject's last message, told by the stream's leader; (0, None) without one."""
    request = json.dumps({"last_by_subj": subject}).encode()
    answer = json.loads((await ask(nc, f"$JS.API.STREAM.MSG.GET.{stream}", request)).data)
    if "error" not in answer:
        return answer["message"]["seq"], base64.b64decode(answer["message"]["data"])
    if answer["error"]["err_code"] in (10037, 10059):  # no such message, no such stream
        return 0, None
    raise Unanswered(answer["error"]["description"])


def read(data, **kinds):
    """The message in these bytes with fields of these types; None where it is none that we can read."""
    try:
        message = msgpack.unpackb(data) if isinstance(data, bytes) else data
    except (ValueError, msgpack.UnpackException):
        return None
    if not isinstance(message, dict) or message.get("v") != 1:
        return None
    return message if all(isinstance(message.get(name), kind) for name, kind in kinds.items()) else None


class Log:
    """A request's log and our place in it: `seq` of the next frame, stream sequence of the last message."""

    def __init__(self, nc, ref, lease):
        self.nc, self.lease = nc, lease
        self.stream = f"BATON_LOG_{ref['shard']}"
        self.subject = f"baton.v1.log.{ref['shard']}.{ref['key']}"
        self.next_seq = self.last = 0
        self.request_id = ""

    async def read(self, whole):
        """The log's frames, or only those of its last message; and from now on we append behind them."""
        last, data = await last_message(self.nc, self.stream, self.subject)
        if data is None:
            return []
        entries = await self._replay(last) if whole else [msgpack.unpackb(data)]
        self.request_id = entries[-1]["request_id"]
        self.last, self.next_seq = last, entries[-1]["frames"][-1]["seq"] + 1
        return [frame for entry in entries for frame in entry["frames"]]

    async def _replay(self, last):
        """Batched direct get: any replica answers, so go on until the tail that the leader named is there."""
        entries, at = [], 0
        while at < last:
            inbox = self.nc.new_inbox()
            answers = await self.nc.subscribe(inbox)
            request = {"batch": 256, "seq": at + 1, "next_by_subj": self.subject}
            try:
                await self.nc.publish(f"$JS.API.DIRECT.GET.{self.stream}", json.dumps(request).encode(), reply=inbox)
                while "Status" not in ((message := await answers.next_msg(timeout=2)).headers or {}):
                    at = int(message.headers["Nats-Sequence"])
                    entries.append(msgpack.unpackb(message.data))
            except (NatsError, TimeoutError) as error:
                raise Unanswered(f"replay: {error}") from None
            finally:
                await answers.unsubscribe()
        return entries

    async def append(self, frame):
        """Store a frame behind the last message we know of, or find out that somebody else was there first."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        append_id = secrets.token_hex(8)
        frames = [{**frame, "seq": self.next_seq, "timestamp": stamp}]
        entry = {"v": 1, "request_id": self.request_id, "append_id": append_id, "writer": NAME, "frames": frames}
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self.last)}
        for _ in range(100):
            if not self.lease.held:  # we may have stood still: the log would take it, but the item is not ours
                raise Replaced
            with contextlib.suppress(Unanswered):
                answer = json.loads((await ask(self.nc, self.subject, msgpack.packb(entry), headers)).data)
                if "error" not in answer:
                    self.last, self.next_seq = answer["seq"], self.next_seq + 1
                    return
            with contextlib.suppress(Unanswered):
                at, data = await last_message(self.nc, self.stream, self.subject)
                if data is not None and msgpack.unpackb(data)["append_id"] == append_id:
                    self.last, self.next_seq = at, self.next_seq + 1  # it was stored, only the answer got lost
                    return
                if at != self.last:
                    raise Replaced
            await asyncio.sleep(0.1)
        raise Unanswered(f"{self.subject}: takes nothing")


class Lease:
    """Our claim on a work item: renewed every second, lost when no renewal was answered in time."""

    def __init__(self, nc, message, ack_wait):
        self.nc, self.ack, self.ack_wait, self.renewed = nc, message.reply, ack_wait, time.monotonic()

    @property
    def held(self):
        return time.monotonic() - self.renewed < 0.8 * self.ack_wait

    async def renew(self):
        await asyncio.sleep(1)
        while self.held:  # looked at behind the pause: a lease that was lost meanwhile must not come back
            asked = time.monotonic()
            with contextlib.suppress(Unanswered):
                await ask(self.nc, self.ack, b"+WPI", seconds=1.0)
                self.renewed = asked
            await asyncio.sleep(1)

    async def acknowledge(self):
        """Tried until it is answered, but never after the lease may be lost: it would take another worker's item."""
        while self.held:
            with contextlib.suppress(Unanswered):
                await ask(self.nc, self.ack, b"+ACK", seconds=1.0)
                return


async def publish_ref(nc, ref):
    """Put a hand-off into its work queue, a variant's if it says one; the message id makes a repetition harmless."""
    headers = {"Nats-Msg-Id": f"{ref['key']}.{ref['seq']}"}
    queue = ".".join(filter(None, (ref["stage"], ref.get("variant"))))
    answer = json.loads((await ask(nc, f"baton.v1.work.{queue}", msgpack.packb(ref), headers)).data)
    if "error" in answer:
        raise Unanswered(answer["error"]["description"])


async def take(nc, log, ref):
    """The hand-off, its item, and what an earlier holder of it has written; None when there is nothing to do."""
    frames = await log.read(whole=False)
    if frames and frames[-1]["seq"] != ref["seq"] and frames[-1]["type"] not in ("done", "error"):
        frames = await log.read(whole=True)
    handoffs = [frame for frame in frames if frame.get("handoff")]
    if not handoffs or frames[-1]["type"] in ("done", "error"):
        return None
    latest = handoffs[-1]
    if latest["seq"] != ref["seq"]:
        if latest is frames[-1]:  # its writer may have died before it published this
            stage, variant = latest["handoff"]["stage"], latest["handoff"].get("variant") or ""
            await publish_ref(nc, {**ref, "stage": stage, "variant": variant, "seq": latest["seq"]})
        return None
    item = latest["handoff"].get("item")
    if item is None:
        documents = await nc.jetstream().object_store("baton_documents")
        item = (await documents.get(latest["handoff"]["object"])).data
    item = read(item, query=str, language=str, deadline_ms=int)
    if item is None or not isinstance(item.get("passages", []), list):
        return None
    if STAGE in (item.get("varied") or []):  # meant for workers of a variant, and we are of none
        item = {**item, "variant": "", "varied": []}
    return latest["handoff"], item, [frame for frame in frames if frame["seq"] > ref["seq"]]


def answer(item, written):
    """The frames of the answer. What an earlier holder has written stays, and is not written again."""
    passages, chinese = item.get("passages", []), item["language"] == "zh"
    intro = ("找到：" if chinese else "Found: ") if passages else ("没有找到。" if chinese else "Nothing was found.")
    pieces, citations, at = [intro], [], len(intro)
    for passage in passages:
        title, number = f"{passage['title']} ", f"[{passage['n']}]"
        citations.append({"n": passage["n"], "start": at + len(title), "end": at + len(title + number)})
        pieces.append(f"{title}{number} ")
        at += len(pieces[-1])
    if not any(frame["type"] == "status" for frame in written):
        yield {"type": "status", "stage": "generating", "content": "正在写" if chinese else "Writing"}
    for piece in pieces[sum(frame["type"] == "answer_chunk" for frame in written) :]:
        yield {"type": "answer_chunk", "content": piece}
    yield done(item, "stop", [passage["n"] for passage in passages], citations)


def done(item, reason, cited=(), citations=()):
    usage, timings = item.get("usage", {}), item.get("timings", {})
    ending = {"finish_reason": reason, "cited": list(cited), "citations": list(citations)}
    return {"type": "done", **ending, "usage": usage, "timings": timings, "variant": item.get("variant") or None}


def error(code, message, retryable):
    return {"type": "error", "code": code, "message": message, "retryable": retryable}


def answered(item, written):
    """The frames of the answer; an `error` where it fails. Who runs the worker reads why, the user does not."""
    try:
        yield from answer(item, written)
    except Exception:
        traceback.print_exc()
        yield error("internal", "The answer could not be made.", False)


async def hold(nc, log, item, written):
    """Write the answer, unless the user, the clock or another worker ends it before."""
    cancelled = asyncio.Event()

    async def on_cancel(_):
        cancelled.set()

    cancel = f"baton.v1.cancel.{item['key']}"
    subscription = await nc.subscribe(cancel, cb=on_cancel)
    try:
        if (await last_message(nc, "BATON_CANCEL", cancel))[1] is not None:
            cancelled.set()
        for frame in answered(item, written):
            if cancelled.is_set():
                frame = done(item, "cancelled")
            elif time.time() * 1000 > item["deadline_ms"]:
                frame = error("deadline", "The answer took longer than its deadline allows.", True)
            await log.append(frame)
            if frame["type"] in ("done", "error"):
                return
    finally:
        await subscription.unsubscribe()


async def keep(nc, log, key):
    """Of a log that has ended: keep what its user may ask for when it has expired, and free the user's place."""
    frames = await log.read(whole=True)
    if not frames or frames[-1]["type"] not in ("done", "error"):
        return
    last, place = frames[-1], frames[0].get("handoff", {}).get("item", {}).get("place")
    ended_ms = round(datetime.fromisoformat(last["timestamp"]).timestamp() * 1000)
    kept = {"v": 1, "request_id": log.request_id, "ended_ms": ended_ms}
    kept |= {"outcome": last.get("code") or last["finish_reason"], "conversation_id": frames[0].get("conversation_id")}
    if last["type"] == "done":
        resets = [at for at, frame in enumerate(frames) if frame["type"] == "answer_reset"] or [0]
        chunks = [frame["content"] for frame in frames[resets[-1] :] if frame["type"] == "answer_chunk"]
        sources = [source for frame in frames for source in frame.get("sources", [])]
        kept |= {"finish_reason": last["finish_reason"], "answer": "".join(chunks), "sources": sources}
    await ask(nc, f"$KV.baton_answers.{key}", msgpack.packb(kept))
    if place is not None:
        request = json.dumps({"seq": place, "no_erase": True}).encode()
        await ask(nc, "$JS.API.STREAM.MSG.DELETE.BATON_RUNNING", request)


async def set_aside(nc, log, ref, handoff, deliveries):
    """No worker has survived this item: end its log, and keep it for a person to look at."""
    dead = {"v": 1, "ref": ref, "request_id": log.request_id, "reason": "no worker finished it"}
    dead |= {"deliveries": deliveries - 1, "at_ms": int(time.time() * 1000), "handoff": handoff}
    await ask(nc, f"baton.v1.dead.{STAGE}", msgpack.packb(dead))
    await log.append(error("poisoned", "This request made every worker fail that tried it.", False))


async def serve(nc, message, ack_wait):
    """One delivery of a work item."""
    lease, ref = Lease(nc, message, ack_wait), read(message.data, key=str, shard=int, seq=int)
    renewing = asyncio.create_task(lease.renew())
    deliveries = message.metadata.num_delivered
    try:
        if ref is not None:
            log = Log(nc, ref, lease)
            taken = await take(nc, log, ref)
            if taken is not None and deliveries > MAX_DELIVERIES:
                await set_aside(nc, log, ref, taken[0], deliveries)
            elif taken is not None:
                await hold(nc, log, *taken[1:])
            await keep(nc, log, ref["key"])
        await lease.acknowledge()
    except (Replaced, Unanswered) as reason:  # not acknowledged: whoever holds it now, or the next delivery, goes on
        print(f"{ref['key']}: {type(reason).__name__} {reason}", file=sys.stderr)
    finally:
        renewing.cancel()


async def say(nc, running, stopping):
    state = {"v": 1, "worker": NAME, "stage": STAGE, "slots": SLOTS, "running": len(running)}
    await nc.publish(f"baton.v1.workers.{STAGE}", msgpack.packb({**state, "draining": stopping.is_set()}))


async def announce(nc, running, stopping):
    """Say every second, and when asked, that we are here."""
    asked = asyncio.Event()

    async def on_census(_):
        asked.set()

    await nc.subscribe("baton.v1.census", cb=on_census)
    while True:
        asked.clear()
        await say(nc, running, stopping)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), 1)


async def consumer(nc):
    """The pull consumer that all workers of the stage share; whoever comes first makes it."""
    js = nc.jetstream()
    config = ConsumerConfig(durable_name=STAGE, filter_subject=f"baton.v1.work.{STAGE}", max_ack_pending=10_000)
    config.ack_policy, config.ack_wait, config.max_deliver = AckPolicy.EXPLICIT, ACK_WAIT, -1
    info = None
    while info is None:
        try:
            info = await js.consumer_info("BATON_WORK", STAGE)
        except NotFoundError:
            with contextlib.suppress(APIError):  # somebody else has made it meanwhile, or there is no stream yet
                await js.add_consumer("BATON_WORK", config)
            await asyncio.sleep(0.2)
    return await js.pull_subscribe_bind(STAGE, stream="BATON_WORK"), info.config.ack_wait


async def main(url):
    nc = await nats.connect(url, name=NAME, max_reconnect_attempts=-1)
    (queue, ack_wait), running, stopping = await consumer(nc), set(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    announcing = asyncio.create_task(announce(nc, running, stopping))
    print(f"{NAME} serves {STAGE}", flush=True)
    while not stopping.is_set():
        if len(running) == SLOTS:
            await asyncio.wait(running, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            continue
        with contextlib.suppress(NatsError, TimeoutError):
            for message in await queue.fetch(1, timeout=0.5):
                task = asyncio.create_task(serve(nc, message, ack_wait))
                running.add(task)
                task.add_done_callback(running.discard)
    await say(nc, running, stopping)
    if running:
        await asyncio.wait(running, timeout=DRAIN)
    announcing.cancel()
    await nc.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"))

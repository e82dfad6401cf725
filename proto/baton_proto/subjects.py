"""NATS subjects, streams and buckets: built and parsed here and nowhere else."""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import NamedTuple

from .messages import KEY_PATTERN, REQUEST_ID_PATTERN, STAGE_PATTERN, VARIANT_PATTERN, WorkItem

PREFIX = "baton.v1"
DEFAULT_SHARDS = 16

WORK_STREAM = "BATON_WORK"
DEAD_STREAM = "BATON_DEAD"
CANCEL_STREAM = "BATON_CANCEL"
"""Notes about a request, of each kind the last one: cancel orders, returned items."""
RUNNING_STREAM = "BATON_RUNNING"
WAITING_STREAM = "BATON_WAITING"
AUDIT_STREAM = "BATON_AUDIT"
CONVERSATIONS_BUCKET = "baton_conversations"
ANSWERS_BUCKET = "baton_answers"
CACHE_BUCKET = "baton_cache"
DOCUMENTS_BUCKET = "baton_documents"
FILES_BUCKET = "baton_files"
"""How far the files are that were brought in."""
INGEST_STREAM = "BATON_INGEST"
INGEST_CONSUMER = "ingest"
INGEST = f"{PREFIX}.ingest"
"""Where files wait for ingest workers: a work queue of its own, so that documents hold up no question."""

RETRIEVE = "retrieve"
GENERATE = "generate"
TOOLS = "tools"
VARIED_STAGES = (RETRIEVE, GENERATE)
"""The stages that may have variants. A tool set needs none: another version of it is another set."""

CENSUS = f"{PREFIX}.census"
"""A message here asks every worker to announce itself at once."""

INVENTORY = f"{PREFIX}.inventory"
"""A request here is answered by every worker with its `Holdings`."""

FOLLOWED = f"{PREFIX}.followed"
"""A request here with a key in it is answered by each gateway that has a client which follows that request."""

_KEY = re.compile(KEY_PATTERN)
_STAGE = re.compile(STAGE_PATTERN)
_VARIANT = re.compile(VARIANT_PATTERN)
_ID = re.compile(REQUEST_ID_PATTERN)
_LOG = re.compile(r"baton\.v1\.(?:live|log)\.(0|[1-9][0-9]{0,8})\.([0-9a-f]{32})")


class LogAddress(NamedTuple):
    """Where a request's log lies."""

    shard: int
    key: str


def request_key(owner: str, request_id: str) -> str:
    """The request's key: the first 32 hex digits of SHA-256 over `owner`, a zero byte, and `request_id` (UTF-8).

    The owner is inside, so nobody can name another owner's request.
    """
    return hashlib.sha256(f"{owner}\0{request_id}".encode()).hexdigest()[:32]


def address(key: str, shards: int = DEFAULT_SHARDS) -> LogAddress:
    """The shard is CRC32 (zlib's polynomial) of the key's ASCII bytes, modulo the number of shards."""
    return LogAddress(zlib.crc32(checked_key(key).encode()) % shards, key)


def checked_key(key: str) -> str:
    """`key` itself if it is 32 lower-case hex digits; otherwise ValueError. It becomes part of subjects."""
    if not _KEY.search(key):
        raise ValueError(f"a request key is 32 lower-case hex digits, not {key!r}")
    return key


def log_subject(at: LogAddress) -> str:
    """Where writers append."""
    return f"{PREFIX}.log.{at.shard}.{at.key}"


def live_subject(at: LogAddress) -> str:
    """Where the stream republishes what it has stored; the only subject a gateway listens to."""
    return f"{PREFIX}.live.{at.shard}.{at.key}"


def log_stream(shard: int) -> str:
    return f"BATON_LOG_{shard}"


def parse_live(subject: str) -> LogAddress:
    """The address in a live or log subject.

    Raises:
        ValueError: it is neither.
    """
    found = _LOG.fullmatch(subject)
    if found is None:
        raise ValueError(f"not a log or live subject: {subject!r}")
    return LogAddress(int(found[1]), found[2])


def tools_stage(tool_set: str) -> str:
    return checked_stage(f"{TOOLS}.{tool_set}")


def checked_stage(stage: str) -> str:
    """`stage` itself if it is `retrieve`, `generate` or `tools.<set>`; otherwise ValueError."""
    if not _STAGE.search(stage):
        raise ValueError(f"a stage is 'retrieve', 'generate' or 'tools.<set>', not {stage!r}")
    return stage


def queue_name(stage: str, variant: str = "") -> str:
    """The name of the queue in which a stage's work waits, `generate`, or of that for one variant, `generate.b`.
    Stages without variants have one queue.

    Raises:
        ValueError: it cannot be the name of a stage or of a variant.
    """
    has_own = checked_variant(variant) and stage in VARIED_STAGES
    return f"{stage}.{variant}" if has_own else checked_stage(stage)


def parse_queue(name: str) -> tuple[str, str]:
    """Stage and variant of a queue.

    Raises:
        ValueError: there is no such queue.
    """
    stage, _, variant = name.partition(".")
    if stage in VARIED_STAGES and variant and _VARIANT.search(variant):
        return stage, variant
    return checked_stage(name), ""


def checked_variant(variant: str) -> str:
    """`variant` itself if it can be the name of one, or is empty; otherwise ValueError."""
    if not _VARIANT.search(variant):
        raise ValueError(f"a variant is 1 to 16 of a-z, 0-9 and -, and does not begin with -: not {variant!r}")
    return variant


def variant_at(item: WorkItem, stage: str) -> str:
    """The variant whose workers serve this item at a stage; empty: those of no variant."""
    return item.variant if stage in item.varied and stage in VARIED_STAGES else ""


def is_queue(name: str) -> bool:
    """Whether it is the name of a queue: somebody may have made other consumers and streams to look at things."""
    try:
        parse_queue(name)
    except ValueError:
        return False
    return True


def checked_queue(name: str) -> str:
    """`name` itself if it is that of a queue; otherwise ValueError."""
    parse_queue(name)
    return name


def work_subject(queue: str) -> str:
    return f"{PREFIX}.work.{checked_queue(queue)}"


def work_consumer(queue: str) -> str:
    """Name of the durable pull consumer that all workers of a queue share."""
    return checked_queue(queue).replace(".", "_")


def dead_subject(stage: str) -> str:
    return f"{PREFIX}.dead.{checked_stage(stage)}"


def cancel_subject(key: str) -> str:
    return f"{PREFIX}.cancel.{checked_key(key)}"


def returned_subject(key: str) -> str:
    return f"{PREFIX}.returned.{checked_key(key)}"


def kept_answer(key: str) -> str:
    """The subject behind `key` in the key-value bucket of answers."""
    return f"$KV.{ANSWERS_BUCKET}.{checked_key(key)}"


def conversation_subject(owner: str, conversation_id: str) -> str:
    """The subject behind a conversation's key, `<owner hash>.<conversation id>`, in its key-value bucket. The owner is
    inside, so nobody can name another owner's conversation.

    Raises:
        ValueError: the id is not of the form of a request id.
    """
    if not _ID.search(conversation_id):
        raise ValueError(f"a conversation id is 1 to 64 of A-Z, a-z, 0-9, _ and -, not {conversation_id!r}")
    return f"$KV.{CONVERSATIONS_BUCKET}.{owner_hash(owner)}.{conversation_id}"


def conversations_of(owner: str) -> str:
    """All conversations of an owner: a subject with a wildcard."""
    return f"$KV.{CONVERSATIONS_BUCKET}.{owner_hash(owner)}.*"


def cached(kind: str, digest: str) -> str:
    """The subject behind a cached value's key, `<kind>.<digest>`; the digest is 32 lower-case hex digits."""
    return f"$KV.{CACHE_BUCKET}.{kind}.{checked_key(digest)}"


def file_key(owner: str, name: str) -> str:
    """A file that was brought in, whatever its content: the first 32 hex digits of SHA-256 over `owner`, a zero byte,
    and `name` (UTF-8). The owner is inside, so nobody can replace another owner's file."""
    return hashlib.sha256(f"{owner}\0{name}".encode()).hexdigest()[:32]


def file_subject(owner: str, file: str) -> str:
    """The subject behind a file's key, `<owner hash>.<file>`, in the key-value bucket of files."""
    return f"$KV.{FILES_BUCKET}.{owner_hash(owner)}.{checked_key(file)}"


def files_of(owner: str | None = None) -> str:
    """All files of an owner, or of all: a subject with a wildcard."""
    return f"$KV.{FILES_BUCKET}.{'*' if owner is None else owner_hash(owner)}.*"


def upload_object(upload: str) -> str:
    """Name in the object store of a file's bytes until it has been ingested; `upload` is 32 lower-case hex digits."""
    return f"uploads/{checked_key(upload)}"


def owner_hash(owner: str) -> str:
    """The owner as a part of subjects: the first 32 hex digits of SHA-256 over `owner` (UTF-8)."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def running_subject(owner: str) -> str:
    """Where the running requests of an owner have their places."""
    return f"{PREFIX}.running.{owner_hash(owner)}"


def waiting_subject(lane: str) -> str:
    """Where the references wait that are let through when it is the turn of `lane`, 32 lower-case hex digits."""
    return f"{PREFIX}.waiting.{checked_key(lane)}"


def parse_waiting(subject: str) -> str:
    """The lane in a waiting subject.

    Raises:
        ValueError: it is none.
    """
    return checked_key(subject.removeprefix(f"{PREFIX}.waiting."))


def presence_subject(queue: str) -> str:
    return f"{PREFIX}.workers.{checked_queue(queue)}"


def work_message_id(key: str, seq: int) -> str:
    """`Nats-Msg-Id` of the work message for the hand-off in frame `seq`."""
    return f"{key}.{seq}"


def moved_message_id(key: str, seq: int) -> str:
    """`Nats-Msg-Id` of the same once it goes to the workers of no variant, because those of its variant are gone."""
    return f"{key}.{seq}.moved"


def handoff_object(key: str, seq: int) -> str:
    """Name in the object store of a hand-off too large for a message."""
    return f"handoff/{key}.{seq}"

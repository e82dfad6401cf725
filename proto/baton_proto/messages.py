"""Every message of the contract, each field listed once.

Four families: what a client sends, the frames of a request's log, what the gateway says about a connection, and what
workers tell each other. JSON and msgpack, the AsyncAPI document and the checks on input are all derived from these
classes. Unknown fields are ignored; an unknown `type` or a wrong major version is an error.

Times are milliseconds: durations as numbers ending in `_ms`, instants as Unix epoch in milliseconds, except for
`timestamp` in a frame, which is RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

WIRE_VERSION = 1
"""Major version of the messages between processes; a worker accepts this one and the one before."""

MAX_QUERY_BYTES = 32 * 1024
MAX_MESSAGE_BYTES = 10 * 1000 * 1000
"""Largest WebSocket message a client may send; beyond it the gateway closes with 1009."""
MAX_ENTRY_BYTES = 768 * 1024
"""Largest log entry or work message; NATS refuses 1 MiB, and its headers need room."""
MAX_ENTRY_FRAMES = 512
MAX_FRAME_BYTES = MAX_ENTRY_BYTES - 4 * 1024
"""Largest single frame; the rest of an entry needs the difference."""
MAX_ITEM_BYTES = 64 * MAX_ENTRY_BYTES
"""Largest work item in the object store."""
MAX_FREE_FORM_DEPTH = 16
"""Levels of maps and lists in a tool's arguments or parameters."""
MAX_ITEM_DEPTH = 32
"""Levels of maps and lists in a work item, itself included."""
MAX_HELD_ITEMS = 1_000
"""Most items that a worker tells of in one answer to an inventory."""
MAX_SNIPPET_CHARS = 500
MAX_TOP_K = 50

MAX_FILTERS_BYTES = 8 * 1024
"""Largest `filters` of a query: UTF-8 bytes of all its strings, and 8 for every other value."""
MAX_FILTERS_VALUES = 256
MAX_FILTERS_DEPTH = 4
"""Levels of maps and lists in `filters`, itself included."""

MAX_READERS = 64
"""Readers of one document."""

REQUEST_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$(?!\n)"
"""`$` alone would let a trailing line feed through in Python; the rest keeps it out in every dialect of JSON Schema."""

KEY_PATTERN = r"^[0-9a-f]{32}$(?!\n)"
STAGE_PATTERN = r"^(retrieve|generate|tools\.[A-Za-z0-9_-]{1,64})$(?!\n)"
VARIANT_PATTERN = r"^([a-z0-9][a-z0-9-]{0,15})?$(?!\n)"

Version = Annotated[int, Meta(ge=1)]
Key = Annotated[str, Meta(pattern=KEY_PATTERN)]
StageName = Annotated[str, Meta(pattern=STAGE_PATTERN)]
Variant = Annotated[str, Meta(pattern=VARIANT_PATTERN)]
"""Which of several versions of a stage's workers is meant; empty: those that are no variant."""
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
"""A bound that keeps out what JSON cannot carry: infinities and NaN."""
RequestId = Annotated[str, Meta(pattern=REQUEST_ID_PATTERN)]
ConversationId = Annotated[str, Meta(pattern=REQUEST_ID_PATTERN)]
Count = Annotated[int, Meta(ge=0)]
Language = Literal["zh", "en"]
Stage = Literal["understanding", "retrieving", "generating", "tool"]
FinishReason = Literal["stop", "length", "cancelled", "content_filter"]
ErrorCode = Literal[
    "bad_json",
    "bad_message",
    "unknown_type",
    "bad_request_id",
    "too_large",
    "unauthorized",
    "forbidden",
    "not_found",
    "gone",
    "conversation_busy",
    "rate_limited",
    "overloaded",
    "no_worker",
    "deadline",
    "retrieval_failed",
    "model_failed",
    "model_stalled",
    "poisoned",
    "log_lost",
    "internal",
]


def _wire_version() -> int:
    # A factory, because a field equal to a plain default would be left out of the bytes, and `v` must always be there.
    return WIRE_VERSION


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all messages: immutable, keyword-only, absent fields are not written."""


# --- client to server -------------------------------------------------------------------------------------------------


class Sampling(Message, frozen=True, kw_only=True):
    """How the model should sample. Absent means the server's setting."""

    seed: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=32_768)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=100)]], Meta(max_length=4)] | None = None


class Query(Sampling, frozen=True, kw_only=True, tag_field="type", tag="query"):
    """A question. A JSON object with `query` and no `type` is one too."""

    query: str
    request_id: RequestId | None = None
    conversation_id: ConversationId | None = None
    language: Language | None = None
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    filters: dict[str, Any] | None = None
    deadline_ms: Annotated[int, Meta(ge=1_000, le=600_000)] | None = None
    cache: bool = True
    on_disconnect: Literal["continue", "cancel"] | None = None
    if_busy: Literal["reject", "enqueue", "interrupt"] | None = None


class Resume(Message, frozen=True, kw_only=True, tag_field="type", tag="resume"):
    """Attach to a request from the frame after `after_seq` on; -1 means from the start."""

    request_id: RequestId
    after_seq: Annotated[int, Meta(ge=-1)] = -1


class Cancel(Message, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Stop a request: it ends with `done` and finish reason `cancelled`."""

    request_id: RequestId


class Auth(Message, frozen=True, kw_only=True, tag_field="type", tag="auth"):
    """A token, where no header carries one: the first message then. Later it renews the one before."""

    token: str


class Ping(Message, frozen=True, kw_only=True, tag_field="type", tag="ping"):
    """Answered by `pong`; for clients that cannot see the WebSocket's own pings."""


ClientMessage = Query | Resume | Cancel | Auth | Ping


# --- parts of frames and items ----------------------------------------------------------------------------------------


class Source(Message, frozen=True, kw_only=True):
    """One retrieved passage as a client sees it. `[n]` in the answer points at `n`; `start` and `end` are character
    offsets into the document's extracted text; `page` counts from 1; a higher `score` is better."""

    n: Annotated[int, Meta(ge=1)]
    id: str
    document_id: str
    title: str
    url: str
    snippet: Annotated[str, Meta(max_length=MAX_SNIPPET_CHARS)]
    score: Finite
    page: Annotated[int, Meta(ge=1)] | None = None
    start: Count | None = None
    end: Count | None = None


class Passage(Message, frozen=True, kw_only=True):
    """One retrieved passage as workers see it: a `Source` with its whole text instead of a snippet."""

    n: Annotated[int, Meta(ge=1)]
    id: str
    document_id: str
    title: str
    url: str
    text: str
    score: Finite
    page: Annotated[int, Meta(ge=1)] | None = None
    start: Count | None = None
    end: Count | None = None
    heading: str = ""


class ToolSpec(Message, frozen=True, kw_only=True):
    """A tool as a model is told of it. `parameters` is a JSON Schema of type object. `groups`: only a user whose claim
    `groups` names one of them may call it; none means everybody may."""

    name: Annotated[str, Meta(pattern=REQUEST_ID_PATTERN)]
    description: str
    parameters: dict[str, Any]
    idempotent: bool = True
    groups: list[str] = field(default_factory=list)


class ToolCall(Message, frozen=True, kw_only=True):
    call_id: str
    name: str
    arguments: dict[str, Any]


class ToolOutcome(Message, frozen=True, kw_only=True):
    """What a call gave: the text for the model. With `ok` false it says what went wrong. `passages` are the numbers of
    the item's passages that the call found; the model reads their texts with this result."""

    call_id: str
    name: str
    ok: bool
    content: str
    elapsed_ms: Count = 0
    passages: list[int] = field(default_factory=list)


class ToolTurn(Message, frozen=True, kw_only=True):
    """One round of calls. `text` is what the model had written in this turn before it asked for them."""

    calls: list[ToolCall]
    results: list[ToolOutcome]
    text: str = ""


class Citation(Message, frozen=True, kw_only=True):
    """`[n]` stands at characters `start` to `end` of the answer."""

    n: int
    start: Count
    end: Count


class PastTurn(Message, frozen=True, kw_only=True):
    """An earlier question of the conversation with its answer, without citations and cut to what a prompt may need.
    `standalone` is the question as it was searched for, where that was not the question itself."""

    query: str
    answer: str
    standalone: str = ""


class Usage(Message, frozen=True, kw_only=True, omit_defaults=False):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0


class Timings(Message, frozen=True, kw_only=True, omit_defaults=False):
    """`queue_ms` is the time in work queues, all stages together; `ttfb_ms` and `ttft_ms` count from the query's
    arrival at the gateway; `tokens_per_second` is over `generation_ms`."""

    queue_ms: Count = 0
    retrieval_ms: Count = 0
    ttfb_ms: Count | None = None
    ttft_ms: Count | None = None
    generation_ms: Count = 0
    tokens_per_second: Finite | None = None
    tool_calls: Count = 0


# --- work items -------------------------------------------------------------------------------------------------------


class WorkItem(Message, frozen=True, kw_only=True):
    """All a worker needs to go on with a request. It travels inside the log, in the `handoff` of a frame.

    `stage` is `retrieve`, `generate` or `tools.<set>`. `calls` is set for tools, and for a retriever that is to search
    again (`search_documents`). `history` are the conversation's turns before this one, oldest first. `after` is the key
    of the request that must have ended before this one begins: a worker gives the item back until then, and takes the
    history from the conversation when it has. `standalone` is the question so that it can be understood without the
    history; empty means that `query` is. `corpus` and `retriever` say which state of the documents was searched, and
    how: what a retriever contributes to the fingerprint. `queued_ms` is when this item was
    handed over, for the time in the queue. `place` is the stream sequence of the user's place among the running
    requests, which is freed when the log ends. `lane` is set where the gateway let the request wait for its user's turn
    before it went to the first stage (absent: it went there at once). `on_disconnect` is the query's, for whichever
    gateway its last client leaves. `variant` is the variant of workers that the request tries, and `varied` the stages
    at which it goes to them; at all others it goes to those of no variant. `extra` holds top-level fields this version
    does not know; they are written back as they came, so a newer worker's fields survive an older one's hand-off.
    """

    stage: StageName
    key: Key
    shard: Count
    request_id: RequestId
    owner: str
    query: str
    language: Language
    received_ms: int
    deadline_ms: int
    queued_ms: int
    v: Version = field(default_factory=_wire_version)
    claims: dict[str, Any] = field(default_factory=dict)
    conversation_id: str | None = None
    top_k: int | None = None
    filters: dict[str, Any] | None = None
    sampling: Sampling = Sampling()
    cache: bool = True
    passages: list[Passage] = field(default_factory=list)
    turns: list[ToolTurn] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    text: str = ""
    timings: Timings = Timings()
    usage: Usage = Usage()
    traceparent: str = ""
    variant: Variant = ""
    varied: list[StageName] = field(default_factory=list)
    place: Count | None = None
    lane: Key | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    history: list[PastTurn] = field(default_factory=list)
    after: Key | None = None
    standalone: str = ""
    corpus: str = ""
    retriever: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Handoff(Message, frozen=True, kw_only=True):
    """The baton passes to `stage`, to the workers of `variant` if it says one. The item is here, or, where it is too
    large for a message, in the object store under the name `object`."""

    stage: StageName
    variant: Variant = ""
    item: dict[str, Any] | None = None
    object: str | None = None


class WorkRef(Message, frozen=True, kw_only=True):
    """What lies in the work queue: which log holds the item, and the `seq` of the frame that handed it over."""

    stage: StageName
    variant: Variant = ""
    key: Key
    shard: Count
    seq: Count
    v: Version = field(default_factory=_wire_version)


# --- the log: frames and entries --------------------------------------------------------------------------------------


class Frame(Message, frozen=True, kw_only=True, tag_field="type"):
    """A frame of a request's log. The writer's sequencer sets `seq` and `timestamp`. `handoff` is internal: it is
    never shown to a client."""

    seq: Annotated[int, Meta(ge=-1)] = -1
    timestamp: str = ""
    handoff: Handoff | None = None


class Accepted(Frame, frozen=True, kw_only=True, tag="accepted"):
    """Always `seq` 0: the request is stored and will be answered, whatever disconnects. `variant` is the one that it
    tries, whoever serves it in the end (see `Done`)."""

    conversation_id: str
    variant: str | None = None


class Status(Frame, frozen=True, kw_only=True, tag="status"):
    """What is being done now. `content` is for people, in the request's language; `count` and `elapsed_ms` are there
    where they are known; `call_id` says of which tool call a `tool` status speaks."""

    stage: Stage
    content: str
    count: Count | None = None
    elapsed_ms: Count | None = None
    call_id: str | None = None


class Sources(Frame, frozen=True, kw_only=True, tag="sources"):
    """What the answer may cite, before the first `answer_chunk`. A later one adds numbers and never reuses one."""

    sources: list[Source]


class AnswerChunk(Frame, frozen=True, kw_only=True, tag="answer_chunk"):
    """A piece of the answer, to be put behind the pieces before it."""

    content: str


class ToolCalled(Frame, frozen=True, kw_only=True, tag="tool_call"):
    """A tool is being called."""

    call_id: str
    name: str
    arguments: dict[str, Any]


class ToolResult(Frame, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool call gave; with `ok` false, `content` says what went wrong."""

    call_id: str
    name: str
    ok: bool
    elapsed_ms: Count
    content: str


class AnswerReset(Frame, frozen=True, kw_only=True, tag="answer_reset"):
    """Discard the answer's chunks so far: a fail-over could not continue the text."""


class Done(Frame, frozen=True, kw_only=True, tag="done"):
    """The end of an answer. `cited` are the numbers in the text that stand in `sources`."""

    finish_reason: FinishReason
    cited: list[int]
    citations: list[Citation]
    usage: Usage
    timings: Timings
    fingerprint: str | None = None
    cache: Literal["hit", "miss", "off"] | None = None
    variant: str | None = None


class Error(Frame, frozen=True, kw_only=True, tag="error"):
    """The end of a request that failed. `message` is for people; `retryable`: the same question may succeed later."""

    code: ErrorCode
    message: str
    retryable: bool
    retry_after_ms: Count | None = None


LogFrame = Accepted | Status | Sources | AnswerChunk | ToolCalled | ToolResult | AnswerReset | Done | Error
TERMINAL = (Done, Error)


class LogEntry(Message, frozen=True, kw_only=True):
    """One message of a request's log: frames that were appended together. `append_id` is new for every append and
    tells a writer whose answer got lost whether the entry at the tail is its own."""

    request_id: RequestId
    append_id: Name
    writer: Name
    frames: Annotated[list[LogFrame], Meta(min_length=1, max_length=MAX_ENTRY_FRAMES)]
    v: Version = field(default_factory=_wire_version)


# --- connection frames (server to client, no seq) ---------------------------------------------------------------------


class Limits(Message, frozen=True, kw_only=True, omit_defaults=False):
    """What this server allows on one connection."""

    message_bytes: int
    query_bytes: int
    requests_per_connection: int
    idle_seconds: int


class Hello(Message, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """Sent first on every connection. `auth` says whether an `auth` message must follow."""

    protocol: Literal["baton.v1"]
    heartbeat_ms: int
    limits: Limits
    auth: Literal["off", "required", "ok"]
    server: str


class Resumed(Message, frozen=True, kw_only=True, tag_field="type", tag="resumed"):
    """The answer to `resume`. `next_seq` is the first frame that follows. With `recovered` false the log has expired,
    and `answer`, `sources` and `finish_reason` are what was kept of it; nothing follows."""

    request_id: str
    recovered: bool
    next_seq: int
    answer: str | None = None
    sources: list[Source] | None = None
    finish_reason: FinishReason | None = None


class Pong(Message, frozen=True, kw_only=True, tag_field="type", tag="pong"):
    """The answer to `ping`."""


# --- workers among themselves -----------------------------------------------------------------------------------------


class Announcement(Message, frozen=True, kw_only=True):
    """What a live worker says of itself on its presence subject, about once a second. A worker that has not been
    heard for `PRESENCE_TTL_MS` is taken for absent."""

    worker: str
    stage: StageName
    slots: Count
    running: Count
    v: Version = field(default_factory=_wire_version)
    variant: Variant = ""
    draining: bool = False
    tools: list[ToolSpec] = field(default_factory=list)


PRESENCE_INTERVAL_MS = 1_000
PRESENCE_TTL_MS = 4_000


class CancelOrder(Message, frozen=True, kw_only=True):
    """The last value on a request's cancel subject; its holder ends the log with `done`/`cancelled`."""

    key: Key
    requested_ms: int
    v: Version = field(default_factory=_wire_version)


class Returned(Message, frozen=True, kw_only=True):
    """The last value on a request's returned subject: so many deliveries of the hand-off in frame `seq` ended with its
    holder giving it back in good order. They do not count towards `poisoned`."""

    key: Key
    seq: Count
    deliveries: Count
    v: Version = field(default_factory=_wire_version)


class DeadWork(Message, frozen=True, kw_only=True):
    """A work item that was set aside because no worker survived it. `handoff` has the item itself: its log expires
    sooner than somebody may look."""

    ref: WorkRef
    request_id: str
    reason: str
    deliveries: int
    at_ms: int
    v: Version = field(default_factory=_wire_version)
    handoff: Handoff | None = None


class HeldItem(Message, frozen=True, kw_only=True):
    """A work item in the hands of a worker. `since_ms` is when it was taken."""

    key: Key
    request_id: str
    seq: Count
    since_ms: int
    deliveries: Count


class Holdings(Message, frozen=True, kw_only=True):
    """A worker's answer to a message on the inventory subject: what it holds now, the oldest `MAX_HELD_ITEMS` of
    `total` items."""

    worker: str
    stage: StageName
    total: Count
    items: Annotated[list[HeldItem], Meta(max_length=MAX_HELD_ITEMS)]
    v: Version = field(default_factory=_wire_version)


class StoredAnswer(Message, frozen=True, kw_only=True):
    """What is kept of a request when its log has expired: the final answer with its sources, or, with `answer` absent,
    only that it has been and how it ended. `outcome` is the finish reason, or the code of the error."""

    request_id: RequestId
    outcome: str
    ended_ms: int
    v: Version = field(default_factory=_wire_version)
    finish_reason: FinishReason | None = None
    conversation_id: str | None = None
    answer: str | None = None
    sources: list[Source] = field(default_factory=list)


class IngestItem(Message, frozen=True, kw_only=True):
    """A file to bring in, or to remove: a message of the ingest queue, with its `upload` as `Nats-Msg-Id`.

    `upload` names the bytes in the object store (`uploads/<upload>`), 32 hex digits that nobody can guess; for `remove`
    there are none, and it only tells this wish from others. An item whose `upload` is not the one in the file's record
    has been overtaken: it is acknowledged and dropped. With `archive` the bytes are a zip archive, and each file in it
    becomes an item of its own below `name`.
    """

    action: Literal["add", "remove"]
    file: Key
    owner: str
    name: Annotated[str, Meta(min_length=1, max_length=1_024)]
    upload: Key
    readers: Annotated[list[str], Meta(min_length=1, max_length=MAX_READERS)]
    metadata: dict[str, Any] = field(default_factory=dict)
    bytes: Count = 0
    content_hash: str = ""
    archive: bool = False
    v: Version = field(default_factory=_wire_version)


FileState = Literal["queued", "parsing", "writing", "ready", "failed", "removing"]


class FileRecord(Message, frozen=True, kw_only=True):
    """How far a file is: the value behind its key in the bucket of files, changed with compare-and-set.

    `document_id`, `title`, `media_type`, `passages` and `readers` are those of the version that questions find at this
    moment: while a changed file is read, and where it fails, the version before stays. `done` of `total` passages are
    written in the state `writing`. `error` says why it failed, for people. `upload` is that of the newest item.
    """

    file: Key
    owner: str
    name: Annotated[str, Meta(min_length=1, max_length=1_024)]
    upload: Key
    state: FileState
    updated_ms: int
    readers: list[str]
    v: Version = field(default_factory=_wire_version)
    document_id: str = ""
    title: str = ""
    media_type: str = ""
    content_hash: str = ""
    passages: Count = 0
    bytes: Count = 0
    done: Count = 0
    total: Count = 0
    error: str = ""


class ConversationTurn(Message, frozen=True, kw_only=True):
    """A turn as it is kept. `outcome` is the finish reason, or the code of the error; `answer` is absent where there is
    none. The numbers in the answer, in `sources` and in `citations` are those of the live answer."""

    request_id: RequestId
    asked_ms: int
    query: str
    outcome: str
    standalone: str = ""
    answer: str | None = None
    sources: list[Source] = field(default_factory=list)
    cited: list[int] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)


class RunningTurn(Message, frozen=True, kw_only=True):
    """A request of a conversation that runs or waits. `since_ms` is when it was let in."""

    key: Key
    request_id: RequestId
    since_ms: int


class Conversation(Message, frozen=True, kw_only=True):
    """A conversation as it is kept, under its owner's hash and its id. `turns` are the newest, oldest first; `dropped`
    counts those before, which are no longer kept. `running` are the requests that have not been recorded yet, in the
    order in which they were let in; the next one waits for the last of them."""

    conversation_id: ConversationId
    title: str
    created_ms: int
    updated_ms: int
    v: Version = field(default_factory=_wire_version)
    turns: list[ConversationTurn] = field(default_factory=list)
    running: list[RunningTurn] = field(default_factory=list)
    dropped: Count = 0


WireMessage = (
    LogEntry
    | WorkRef
    | WorkItem
    | Announcement
    | CancelOrder
    | Returned
    | DeadWork
    | Holdings
    | StoredAnswer
    | Conversation
    | IngestItem
    | FileRecord
)

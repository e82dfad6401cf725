"""Every metric, declared once with unit and meaning. Observed where work enters or leaves a service, nowhere else.

docs/metrics.md is made from this. No label may take values without bound: each is one of a fixed set, a stage (one of a
variant's as in `generate.b`), a variant of the settings, or bounded by `Names`.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

disable_created_metrics()  # type: ignore[no-untyped-call]  # a further series for each counter and histogram that nobody looks at

TTFB_OBJECTIVE_S, TTFT_OBJECTIVE_S, RETRIEVAL_OBJECTIVE_S = 0.3, 1.0, 0.5

# Objectives are bucket edges, so that a share of requests that keep them is counted and not estimated.
_LATENCY = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_LONG = (*_LATENCY, 60.0, 120.0, 300.0)
_GAPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 15.0)
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5)
_TOKENS = (1, 2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)

# --- gateway ----------------------------------------------------------------------------------------------------------
TTFB = Histogram(
    "baton_ttfb_seconds", "From a query's arrival to the first frame that a worker wrote.", buckets=_LATENCY
)
TTFT = Histogram("baton_ttft_seconds", "From a query's arrival to its first answer_chunk.", buckets=_LATENCY)
RETRIEVAL = Histogram(
    "baton_retrieval_seconds", "Duration of a retrieval, as its worker measured it.", buckets=_LATENCY
)
ANSWER = Histogram("baton_answer_seconds", "From a query's arrival to its terminal frame.", buckets=_LONG)
QUEUE = Histogram("baton_queue_seconds", "Time of a request in work queues, all stages together.", buckets=_LATENCY)
TOKENS_PER_SECOND = Histogram(
    "baton_tokens_per_second", "Tokens per second of one answer, while it was generated.", buckets=_TOKENS
)
TOKENS = Counter("baton_tokens_total", "Tokens, as generators counted them; none for cached answers.", ["kind"])
TOOL_CALLS = Counter("baton_tool_calls_total", "Tool calls that ended.", ["ok"])
REQUESTS = Counter(
    "baton_requests_total", "Requests that ended: finish reason, or the code of their error.", ["outcome"]
)
REFUSED = Counter("baton_refused_messages_total", "Client messages that became no request, by error code.", ["code"])
CONNECTIONS = Gauge("baton_connections", "Open WebSocket connections.")
RUNNING = Gauge("baton_running_requests", "Requests that this gateway follows and that have not ended.")
WAITING = Gauge(
    "baton_waiting_requests",
    "Accepted requests that wait for their user's turn, over all gateways, as this one sees it.",
)
WAITED = Histogram(
    "baton_waiting_seconds",
    "Time that a request waited for its user's turn before it went to a worker.",
    buckets=_LATENCY,
)
SLOW = Gauge(
    "baton_slow_connections", "Connections whose client is so far behind that chunks waiting for it are joined."
)
CLOSED = Counter("baton_closed_connections_total", "Connections that the gateway closed, by close code.", ["code"])
FRAMES = Counter("baton_frames_total", "Frames relayed to clients.")
JOINED = Counter("baton_joined_frames_total", "Chunks that were joined to an earlier one for a slow client.")
RESUMES = Counter(
    "baton_resumes_total",
    "Requests that a client came back to: their log was followed on, the kept answer was sent, or both are gone.",
    ["outcome"],
)
GAPS = Counter("baton_repaired_gaps_total", "Times that missing frames were fetched from the log.")
CANCELS = Counter("baton_cancels_total", "Cancels that clients asked for.")
ABANDONED = Counter("baton_abandoned_total", "Requests that were cancelled because nobody followed them any more.")
WORKERS = Gauge("baton_workers", "Live workers of a stage, as this gateway hears of them.", ["stage"])
SLOTS = Gauge("baton_worker_slots", "Items that the live workers of a stage hold at most, all together.", ["stage"])
QUEUED = Gauge("baton_work_queued", "Work items of a stage that no worker has taken yet.", ["stage"])
FILL = Gauge(
    "baton_stream_fill_ratio",
    "How full a stream is that refuses more when it is full, as a share of its limit; of the logs the fullest shard.",
    ["stream"],
)
VARIANT_REQUESTS = Counter(
    "baton_variant_requests_total",
    "Requests that ended, by the variant that they tried (or `none`); only where variants have a share.",
    ["variant", "outcome"],
)
VARIANT_SECONDS = Histogram(
    "baton_variant_seconds",
    "The same measures as above by variant: from a query's arrival to the first frame of a worker (ttfb), the first "
    "answer_chunk (ttft) and the end (answer), and the retrieval.",
    ["variant", "measure"],
    buckets=_LONG,
)
VARIANT_SHARE = Gauge(
    "baton_variant_share_ratio", "Share of the conversations that try a variant, by the settings.", ["variant"]
)
MOVED = Counter(
    "baton_moved_items_total",
    "Work items of a variant that had lost its workers, which this gateway gave to the workers of none.",
    ["stage", "variant"],
)
SET_ASIDE = Gauge("baton_set_aside", "Work items that no worker has survived, kept for a person to look at.")

# --- workers ----------------------------------------------------------------------------------------------------------
WORK = Counter("baton_work_items_total", "Work items that left a worker.", ["stage", "outcome"])
WORK_RUNNING = Gauge("baton_work_running", "Work items that this worker holds.")
WORK_SECONDS = Histogram("baton_work_seconds", "Time a worker held an item.", ["stage"], buckets=_LONG)
CANCEL_SECONDS = Histogram(
    "baton_cancel_seconds",
    "From a user's order to cancel to the stored end of the log, where its holder honoured it.",
    buckets=_LATENCY,
)
REDELIVERED = Counter(
    "baton_redelivered_total",
    "Work items that came again: their holder was lost, or gave them back because it was going away.",
    ["stage"],
)
FAILOVERS = Counter("baton_failovers_total", "Work items that were taken over from a holder that was lost.", ["stage"])
RETRIEVAL_STEPS = Histogram(
    "baton_retrieval_step_seconds",
    "Time of one step of a search that was not known: rewrite (the question), embed (it), search (the store), rerank.",
    ["step"],
    buckets=_LATENCY,
)
TOKEN_GAP = Histogram(
    "baton_token_gap_seconds", "Time between two pieces of text from a model, of one turn.", buckets=_GAPS
)
TOOL_SECONDS = Histogram(
    "baton_tool_seconds",
    "Time of one call of a tool, tries and waiting for a slot included; `unknown` is no tool of this worker.",
    ["tool", "ok"],
    buckets=_LONG,
)
GENERATOR = Gauge("baton_generator_info", "Generator and model of this process; always 1.", ["generator", "model"])
CITATIONS_DROPPED = Counter(
    "baton_citations_dropped_total", "Citations of passages that the model had not been given, taken out of answers."
)
SEARCHES = Counter(
    "baton_searches_total",
    "Searches that went well, known ones included: `found` something, or `nothing` that the asker may see.",
    ["outcome"],
)
RERANKS = Counter("baton_reranks_total", "Questions whose passages a reranker was given, by outcome.", ["outcome"])
APPENDS = Counter("baton_log_appends_total", "Appends to logs, by result.", ["result"])
CACHE = Counter(
    "baton_cache_total",
    "Look-ups in the cache (hit, miss, failed, unreadable) and values for it (stored, not_stored, outdated, too_large, "
    "too_many), by kind.",
    ["kind", "outcome"],
)

# --- ingest workers ---------------------------------------------------------------------------------------------------
INGEST_FILES = Counter(
    "baton_ingest_files_total",
    "Files that left an ingest worker: added, replaced, unchanged, unpacked, removed, failed, later, lost, …",
    ["outcome"],
)
INGEST_SECONDS = Histogram("baton_ingest_seconds", "Time an ingest worker held a file.", buckets=_LONG)
INGEST_WAITING = Gauge("baton_ingest_waiting", "Files in the ingest queue, those that are worked on included.")

# --- everywhere -------------------------------------------------------------------------------------------------------
NATS_CONNECTED = Gauge("baton_nats_connected", "1 while there is a connection to NATS.")
NATS_RECONNECTS = Counter("baton_nats_reconnects_total", "Reconnections to NATS.")
NATS_SLOW = Counter("baton_nats_slow_consumer_total", "Times that NATS messages were dropped because we were slow.")
LOOP_LAG = Histogram(
    "baton_event_loop_lag_seconds", "How late a task has its turn that asks for one every 250 ms.", buckets=_LAG
)
DRAINING = Gauge("baton_draining", "1 from the signal to end on.")
BUILD = Gauge(
    "baton_build_info", "Version and variant (or `none`) of a process; always 1.", ["version", "service", "variant"]
)

SERVED_BY = {
    "Gateway": (
        TTFB, TTFT, RETRIEVAL, ANSWER, QUEUE, TOKENS_PER_SECOND, TOKENS, TOOL_CALLS, REQUESTS, REFUSED, CONNECTIONS,
        RUNNING, WAITING, WAITED, SLOW, CLOSED, FRAMES, JOINED, RESUMES, GAPS, CANCELS, ABANDONED, WORKERS, SLOTS,
        QUEUED, FILL, SET_ASIDE, VARIANT_REQUESTS, VARIANT_SECONDS, VARIANT_SHARE, MOVED,
    ),
    "Workers": (
        WORK, WORK_RUNNING, WORK_SECONDS, CANCEL_SECONDS, REDELIVERED, FAILOVERS, RETRIEVAL_STEPS, SEARCHES, RERANKS,
        TOKEN_GAP, GENERATOR, CITATIONS_DROPPED, TOOL_SECONDS, APPENDS, CACHE,
    ),
    "Ingest workers": (INGEST_FILES, INGEST_SECONDS, INGEST_WAITING),
    "Every service": (NATS_CONNECTED, NATS_RECONNECTS, NATS_SLOW, LOOP_LAG, DRAINING, BUILD),
}  # fmt: skip
"""Which service observes what. (Each serves all of them; what it does not observe stays at 0 or has no series.)"""

MAX_NAMES = 100
NO_VARIANT = "none"


def begin(metric: Counter | Histogram, *values: str) -> None:
    """Let the series of these values of its one label begin at 0: the first event of one that begins with it is seen by
    no `rate` and no alert."""
    for value in values:
        metric.labels(value)


class Names:
    """Bounds the values of a label: of names that somebody else chooses only the first so many are told apart."""

    def __init__(self, most: int = MAX_NAMES) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """The name, or `other`."""
        if name in self._known or len(self._known) < self._most:
            self._known.add(name)
            return name
        return "other"


def exposition(accept: str) -> tuple[bytes, str]:
    """What `/metrics` answers, and its content type: OpenMetrics, which has the exemplars, for those who accept it."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type

"""Every metric, declared once with unit and meaning. Observed where work enters or leaves a service, nowhere else."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Objectives (first frame in 300 ms, first token in 1 s, retrieval in 500 ms) are bucket edges.
_LATENCY = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_TOKENS = (1, 2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)

# --- gateway ----------------------------------------------------------------------------------------------------------
TTFB = Histogram(
    "baton_ttfb_seconds", "From a query's arrival to the first frame that a worker wrote.", buckets=_LATENCY
)
TTFT = Histogram("baton_ttft_seconds", "From a query's arrival to its first answer_chunk.", buckets=_LATENCY)
RETRIEVAL = Histogram(
    "baton_retrieval_seconds", "Duration of a retrieval, as its worker measured it.", buckets=_LATENCY
)
ANSWER = Histogram(
    "baton_answer_seconds", "From a query's arrival to its terminal frame.", buckets=(*_LATENCY, 60.0, 120.0, 300.0)
)
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
CLOSED = Counter("baton_closed_connections_total", "Connections that the gateway closed, by close code.", ["code"])
FRAMES = Counter("baton_frames_total", "Frames relayed to clients.")
GAPS = Counter("baton_repaired_gaps_total", "Times that missing frames were fetched from the log.")
CANCELS = Counter("baton_cancels_total", "Cancels that clients asked for.")
ABANDONED = Counter("baton_abandoned_total", "Requests that were cancelled because nobody followed them any more.")

# --- workers ----------------------------------------------------------------------------------------------------------
WORK = Counter("baton_work_items_total", "Work items that left a worker.", ["stage", "outcome"])
WORK_RUNNING = Gauge("baton_work_running", "Work items that this worker holds.")
WORK_SECONDS = Histogram("baton_work_seconds", "Time a worker held an item.", ["stage"], buckets=_LATENCY)
CANCEL_SECONDS = Histogram(
    "baton_cancel_seconds",
    "From a user's order to cancel to the stored end of the log, where its holder honoured it.",
    buckets=_LATENCY,
)
REDELIVERED = Counter("baton_redelivered_total", "Work items that came again after another holder was lost.", ["stage"])
CITATIONS_DROPPED = Counter(
    "baton_citations_dropped_total", "Citations of passages that the model had not been given, taken out of answers."
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
INGEST_SECONDS = Histogram(
    "baton_ingest_seconds", "Time an ingest worker held a file.", buckets=(*_LATENCY, 60.0, 120.0, 300.0)
)
INGEST_WAITING = Gauge("baton_ingest_waiting", "Files in the ingest queue, those that are worked on included.")

# --- everywhere -------------------------------------------------------------------------------------------------------
NATS_RECONNECTS = Counter("baton_nats_reconnects_total", "Reconnections to NATS.")
NATS_SLOW = Counter("baton_nats_slow_consumer_total", "Times that NATS messages were dropped because we were slow.")
BUILD = Gauge("baton_build_info", "Version of this process; always 1.", ["version", "service"])

"""The system: what each replica carries, what waits, how full things are."""

from __future__ import annotations

from board import WHERE, Query, Row, board, gauge, lines, per_second, rate, total
from grafana_foundation_sdk.models.dashboard import Dashboard


def system() -> Dashboard:
    return board(
        "baton-system",
        "Baton: the system",
        "What each replica carries, what waits, and how full things are.",
        [_connections(), _work(), _storage(), _processes(), _ingest()],
    )


def _connections() -> Row:
    return Row(
        "Gateways",
        [
            lines(
                "Connections",
                "Open WebSockets of each gateway.",
                gauge("baton_connections", "instance"),
                "none",
                stacked=True,
            ),
            lines(
                "Running questions",
                "That each gateway follows.",
                gauge("baton_running_requests", "instance"),
                "none",
                stacked=True,
            ),
            lines("Frames", "Relayed to clients.", per_second("baton_frames_total", "instance"), "ops", stacked=True),
            lines(
                "Closed connections",
                "By close code.",
                per_second("baton_closed_connections_total", "code"),
                "ops",
                stacked=True,
            ),
            lines(
                "Slow clients",
                "Connections so far behind that chunks are joined, and how many chunks are.",
                [
                    *gauge("baton_slow_connections", "instance"),
                    Query(total("baton_joined_frames_total"), "joined frames per second"),
                ],
                "none",
            ),
            lines(
                "Coming back",
                "Resumes by what was left, and gaps that were repaired from the log.",
                [
                    *per_second("baton_resumes_total", "outcome"),
                    Query(total("baton_repaired_gaps_total"), "repaired gaps"),
                ],
                "ops",
            ),
        ],
    )


def _work() -> Row:
    return Row(
        "Work",
        [
            lines(
                "Workers", "Alive, by stage, as gateways hear of them.", gauge("baton_workers", "stage", "max"), "none"
            ),
            lines(
                "Waiting for a worker",
                "Items of each stage that none has taken, and how many its workers hold at most.",
                [
                    *gauge("baton_work_queued", "stage", "max"),
                    Query(f"max by (stage) (baton_worker_slots{{{WHERE}}})", "slots of {{stage}}"),
                ],
                "none",
            ),
            lines(
                "Waiting for their turn",
                "Questions of users who have many, over all gateways.",
                [Query(f"max(baton_waiting_requests{{{WHERE}}})", "waiting")],
                "none",
            ),
            lines(
                "Held",
                "Items that each worker works on.",
                gauge("baton_work_running", "instance"),
                "none",
                stacked=True,
            ),
            lines(
                "Items",
                "That left a worker, by outcome.",
                per_second("baton_work_items_total", "outcome"),
                "ops",
                stacked=True,
            ),
            lines(
                "Came again",
                "Redeliveries of all kinds, and those of them that took over from a lost holder.",
                [
                    Query(total("baton_redelivered_total", by="stage"), "{{stage}} again"),
                    Query(total("baton_failovers_total", by="stage"), "{{stage}} taken over"),
                ],
                "ops",
            ),
        ],
    )


def _storage() -> Row:
    return Row(
        "Streams and logs",
        [
            lines(
                "How full",
                "Of the logs the fullest shard. 1 = nothing more is taken.",
                gauge("baton_stream_fill_ratio", "stream", "max"),
                "percentunit",
                objective=0.8,
            ),
            lines(
                "Appends to logs",
                "By result; all but `stored` are tried again or find another writer.",
                per_second("baton_log_appends_total", "result"),
                "ops",
            ),
            lines(
                "Set aside",
                "Items that no worker has survived.",
                [Query(f"max(baton_set_aside{{{WHERE}}})", "items")],
                "none",
                objective=1,
            ),
        ],
    )


def _processes() -> Row:
    late = f"histogram_quantile(0.99, sum by (le, instance) ({rate('baton_event_loop_lag_seconds_bucket')}))"
    return Row(
        "Processes",
        [
            lines(
                "Event loop",
                "How late a task has its turn, 99th percentile, by replica.",
                [Query(late, "{{instance}}")],
                objective=0.05,
            ),
            lines(
                "CPU",
                "Cores, by replica.",
                [Query(_ours("process_cpu_seconds_total", how="rate"), "{{instance}}")],
                "none",
            ),
            lines(
                "Memory",
                "Resident, by replica.",
                [Query(_ours("process_resident_memory_bytes"), "{{instance}}")],
                "bytes",
            ),
            lines(
                "NATS",
                "Replicas without a connection, reconnections and dropped messages.",
                [
                    Query(
                        f"count(baton_nats_connected{{{WHERE}}}) - sum(baton_nats_connected{{{WHERE}}})",
                        "without connection",
                    ),
                    Query(total("baton_nats_reconnects_total"), "reconnections per second"),
                    Query(total("baton_nats_slow_consumer_total"), "times too slow per second"),
                ],
                "none",
            ),
            lines(
                "Draining",
                "Replicas that were told to end.",
                [Query(f"sum(baton_draining{{{WHERE}}})", "draining")],
                "none",
            ),
            lines(
                "Versions",
                "Processes of each service and version.",
                [Query(f"count by (service, version) (baton_build_info{{{WHERE}}})", "{{service}} {{version}}")],
                "none",
            ),
        ],
    )


def _ours(series: str, how: str = "") -> str:
    """A metric that every Python process has, of Baton's only."""
    figure = f"{how}({series}[$__rate_interval])" if how else series
    return f"{figure} * on (instance) group_left () baton_build_info{{{WHERE}}}"


def _ingest() -> Row:
    return Row(
        "Documents",
        [
            lines(
                "Files",
                "That left an ingest worker, by outcome.",
                per_second("baton_ingest_files_total", "outcome"),
                "ops",
                stacked=True,
            ),
            lines(
                "Waiting files",
                "Those that are worked on included.",
                [Query(f"max(baton_ingest_waiting{{{WHERE}}})", "files")],
                "none",
            ),
            lines(
                "Time of a file",
                "95th percentile.",
                [Query(f"histogram_quantile(0.95, sum by (le) ({rate('baton_ingest_seconds_bucket')}))", "p95")],
            ),
        ],
    )

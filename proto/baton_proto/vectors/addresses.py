"""Golden vectors of keys, shards, subjects and names."""

from __future__ import annotations

from baton_proto import subjects

from .samples import Case

_REQUESTS = [
    ("u-17", "r-1"),
    ("", "r-1"),
    ("u-17r", "-1"),
    ("张三", "请-is-not-allowed-but-hashes"),
    ("a\0b", "x" * 64),
]
_SHARDS = (1, 16, 256)
_STAGES = ("retrieve", "generate", "tools.default", "tools.Web_search-2")
_QUEUES = (("generate", ""), ("retrieve", "b"), ("generate", "2026-11"), ("tools.default", ""), ("tools.default", "b"))


def address_cases() -> list[Case]:
    cases: list[Case] = []
    for owner, request_id in _REQUESTS:
        key = subjects.request_key(owner, request_id)
        for shards in _SHARDS:
            at = subjects.address(key, shards)
            cases.append(
                {
                    "name": f"{owner!r}, {request_id!r}, {shards} shards",
                    "owner": owner,
                    "request_id": request_id,
                    "shards": shards,
                    "key": key,
                    "shard": at.shard,
                    "stream": subjects.log_stream(at.shard),
                    "log": subjects.log_subject(at),
                    "live": subjects.live_subject(at),
                    "cancel": subjects.cancel_subject(key),
                }
            )
    return cases


def stage_cases() -> list[Case]:
    return [
        {
            "name": stage,
            "stage": stage,
            "work": subjects.work_subject(stage),
            "consumer": subjects.work_consumer(stage),
            "dead": subjects.dead_subject(stage),
            "presence": subjects.presence_subject(stage),
        }
        for stage in _STAGES
    ]


def queue_cases() -> list[Case]:
    return [
        {
            "name": f"{stage}, {variant or 'no variant'}",
            "stage": stage,
            "variant": variant,
            "queue": queue,
            "work": subjects.work_subject(queue),
            "consumer": subjects.work_consumer(queue),
            "presence": subjects.presence_subject(queue),
        }
        for stage, variant in _QUEUES
        for queue in [subjects.queue_name(stage, variant)]
    ]


def handoff_cases() -> list[Case]:
    key = subjects.request_key(*_REQUESTS[0])
    return [
        {
            "name": f"hand-off in frame {seq}",
            "key": key,
            "seq": seq,
            "message_id": subjects.work_message_id(key, seq),
            "object": subjects.handoff_object(key, seq),
        }
        for seq in (0, 7, 70_000)
    ]

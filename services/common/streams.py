"""Makes every stream and bucket, and changes them to the settings: one step that everybody may run at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    ObjectStoreConfig,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, BadRequestError, NotFoundError

from baton_proto import subjects

from .bus import Bus, end_tasks
from .config import NatsSettings
from .settings import SettingsError

log = logging.getLogger(__name__)

_NAME_IN_USE = 10058
LOOK_EVERY_S = 0.5
DUPLICATE_WINDOW_S = 660
"""Longer than the longest deadline: a reference that is published once more when the queue has forgotten its message id
finds a log that has ended. Otherwise the item would be in the queue twice."""
CANCEL_MAX_AGE_S = 900
DEAD_MAX_AGE_S = 7 * 24 * 3600
FILES_MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of the records of files: some 300,000 of them."""


def stream_configs(settings: NatsSettings) -> list[StreamConfig]:
    """All streams that are not buckets made by the client library, as they should be."""
    common: dict[str, Any] = {"storage": StorageType(settings.log_storage), "num_replicas": settings.replicas}
    configs = [
        StreamConfig(
            name=subjects.WORK_STREAM,
            subjects=[f"{subjects.PREFIX}.work.>"],
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            max_msgs=settings.work_max_items,
            max_age=settings.log_max_age_s,
            duplicate_window=min(DUPLICATE_WINDOW_S, settings.log_max_age_s),
            **common,
        ),
        StreamConfig(
            name=subjects.INGEST_STREAM,
            subjects=[subjects.INGEST],
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            max_msgs=settings.ingest_max_items,
            duplicate_window=DUPLICATE_WINDOW_S,  # no age: a file that was accepted is not lost
            **common,
        ),
        StreamConfig(
            name=subjects.WAITING_STREAM,
            subjects=[f"{subjects.PREFIX}.waiting.*"],
            discard=DiscardPolicy.NEW,
            max_msgs=settings.work_max_items,
            max_age=settings.log_max_age_s,
            duplicate_window=min(DUPLICATE_WINDOW_S, settings.log_max_age_s),
            **common,
        ),
        StreamConfig(
            name=subjects.CANCEL_STREAM,
            subjects=[f"{subjects.PREFIX}.cancel.*", f"{subjects.PREFIX}.returned.*"],
            max_msgs_per_subject=1,
            max_age=CANCEL_MAX_AGE_S,
            max_bytes=64 * 1024 * 1024,
            **common,
        ),
        StreamConfig(
            name=subjects.DEAD_STREAM,
            subjects=[f"{subjects.PREFIX}.dead.>"],
            max_msgs=10_000,
            max_age=DEAD_MAX_AGE_S,
            **common,
        ),
    ]
    configs += [
        _bucket_config(subjects.ANSWERS_BUCKET, settings.answers_max_age_s, settings.answers_max_bytes, common),
        _bucket_config(
            subjects.CONVERSATIONS_BUCKET, settings.conversations_max_age_s, settings.conversations_max_bytes, common
        ),
        _bucket_config(subjects.CACHE_BUCKET, settings.cache_max_age_s, settings.cache_max_bytes, common),
        _bucket_config(subjects.FILES_BUCKET, None, FILES_MAX_BYTES, common, DiscardPolicy.NEW),
    ]
    return configs + [_log_config(shard, settings, common) for shard in range(settings.shards)]


def _bucket_config(
    bucket: str,
    max_age_s: int | None,
    max_bytes: int,
    common: dict[str, Any],
    discard: DiscardPolicy = DiscardPolicy.OLD,
) -> StreamConfig:
    """A key-value bucket. Where it is full the oldest values go, unless `discard` says otherwise: the client libraries
    would refuse new ones."""
    return StreamConfig(
        name=f"KV_{bucket}",
        subjects=[f"$KV.{bucket}.>"],
        max_msgs_per_subject=1,
        discard=discard,
        max_age=max_age_s,
        max_bytes=max_bytes,
        allow_direct=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,  # as in the buckets that the client library makes, which cannot be changed back
        deny_delete=True,
        **common,
    )


def _places_config(per_user: int, settings: NatsSettings) -> StreamConfig:
    return StreamConfig(
        name=subjects.RUNNING_STREAM,
        subjects=[f"{subjects.PREFIX}.running.*"],
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=per_user,
        allow_msg_ttl=True,
        storage=StorageType(settings.log_storage),
        num_replicas=settings.replicas,
    )


def _log_config(shard: int, settings: NatsSettings, common: dict[str, Any]) -> StreamConfig:
    return StreamConfig(
        name=subjects.log_stream(shard),
        subjects=[f"{subjects.PREFIX}.log.{shard}.*"],
        republish=RePublish(
            src=f"{subjects.PREFIX}.log.{shard}.*", dest=f"{subjects.PREFIX}.live.{shard}.{{{{wildcard(1)}}}}"
        ),
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        max_age=settings.log_max_age_s,
        max_bytes=settings.log_max_bytes,
        allow_direct=True,
        **common,
    )


async def ensure(bus: Bus, places_per_user: int | None = None) -> None:
    """Make or change all streams and buckets. Safe to run by many processes at once; repeated until it works.

    Args:
        places_per_user: requests of one user that may run at once; only gateways know.

    Raises:
        SettingsError: a setting that cannot be changed any more.
    """
    pause = 0.2
    while True:
        try:
            await _ensure_once(bus)
            if places_per_user is not None:
                await _ensure_places(bus, places_per_user)
        except (TimeoutError, NatsError, OSError) as error:
            log.warning("JetStream is not ready (%s); trying again", error or type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 5.0)
        else:
            return


async def _ensure_places(bus: Bus, per_user: int) -> None:
    """Make or change the stream of running requests' places. Only gateways do: the limit is a setting of theirs, and a
    worker that does not know it must not set it back."""
    js = bus.client.jetstream(timeout=5)
    config = _places_config(per_user, bus.settings)
    try:
        existing = (await js.stream_info(subjects.RUNNING_STREAM)).config
    except NotFoundError:
        existing = None
    await _ensure_stream(js, config, existing)


@contextlib.asynccontextmanager
async def kept(bus: Bus, places_per_user: int | None = None) -> AsyncIterator[None]:
    """Make the streams now, and again whenever the connection was lost: a server that keeps them in memory has
    forgotten them if it was started anew."""
    await ensure(bus, places_per_user)
    watching = asyncio.create_task(_again_after_reconnects(bus, places_per_user), name="streams")
    try:
        yield
    finally:
        await end_tasks(watching)


async def _again_after_reconnects(bus: Bus, places_per_user: int | None) -> None:
    reconnects = bus.reconnects
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if bus.reconnects != reconnects:
            reconnects = bus.reconnects
            await ensure(bus, places_per_user)


async def _ensure_once(bus: Bus) -> None:
    js = bus.client.jetstream(timeout=5)
    settings = bus.settings
    existing = {info.config.name: info.config for info in await js.streams_info_iterator()}
    for config in stream_configs(settings):
        await _ensure_stream(js, config, existing.get(config.name))
    if f"OBJ_{subjects.DOCUMENTS_BUCKET}" not in existing:
        await _make_documents(js, settings)


async def ensure_documents(bus: Bus) -> None:
    """Make the store of originals, the queue of files and their records where there are none yet; repeated until it
    works. It changes nothing: whoever brings documents in from a shell may well have other settings than the
    services."""
    ours = (subjects.INGEST_STREAM, f"KV_{subjects.FILES_BUCKET}")
    await _ensure_missing(bus, [config for config in stream_configs(bus.settings) if config.name in ours])


async def ensure_missing(bus: Bus, places_per_user: int) -> None:
    """Make those streams and buckets that are not there yet, and change none; repeated until it works."""
    await _ensure_missing(bus, [*stream_configs(bus.settings), _places_config(places_per_user, bus.settings)])


async def _ensure_missing(bus: Bus, wanted: list[StreamConfig]) -> None:
    js = bus.client.jetstream(timeout=5)
    while True:
        try:
            if not await _is_there(js, f"OBJ_{subjects.DOCUMENTS_BUCKET}"):
                await _make_documents(js, bus.settings)
            for config in wanted:
                if not await _is_there(js, config.name or ""):
                    await _tolerant(js.add_stream(config))
            return
        except (TimeoutError, NatsError, OSError) as error:
            log.warning("JetStream is not ready (%s); trying again", error or type(error).__name__)
            await asyncio.sleep(random.uniform(0.2, 1.0))


async def _is_there(js: JetStreamContext, stream: str) -> bool:
    try:
        await js.stream_info(stream)
    except NotFoundError:
        return False
    return True


async def _make_documents(js: JetStreamContext, settings: NatsSettings) -> None:
    config = ObjectStoreConfig(storage=StorageType(settings.log_storage), replicas=settings.replicas)
    await _tolerant(js.create_object_store(subjects.DOCUMENTS_BUCKET, config=config))


async def _ensure_stream(js: JetStreamContext, config: StreamConfig, existing: StreamConfig | None) -> None:
    if existing is None:
        await _tolerant(js.add_stream(config))
    elif existing.storage != config.storage:
        raise SettingsError([_storage_is_fixed(config, existing)])
    elif _differs(config, existing):
        await js.update_stream(config)


def _storage_is_fixed(wanted: StreamConfig, existing: StreamConfig) -> str:
    return (
        f"BATON_LOG_STORAGE={_plain(wanted.storage)}: the stream {wanted.name} is there already with "
        f"{_plain(existing.storage)} storage, and NATS cannot change that. Set BATON_LOG_STORAGE to what it is, or, "
        "while no request runs that anybody needs, delete the streams BATON_* and KV_baton_* and start again."
    )


def _plain(storage: StorageType | None) -> str:
    return StorageType(storage or StorageType.FILE).value


def _differs(wanted: StreamConfig, existing: StreamConfig) -> bool:
    """Whether a setting that we choose differs; what we leave to the server does not count."""
    want, have = wanted.as_dict(), existing.as_dict()
    return any(value not in (None, 0, False) and have.get(name) != value for name, value in want.items())


async def _tolerant(creating: Any) -> None:
    """Create what somebody else may be creating at this moment."""
    try:
        await creating
    except BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise


async def ensure_consumer(bus: Bus, queue: str, ack_wait_s: float, concurrency: int) -> None:
    """Make the durable pull consumer that all workers of a queue share.

    There is no delivery limit on the server: a worker counts deliveries itself, so that it can end the log.
    """
    name, subject = subjects.work_consumer(queue), subjects.work_subject(queue)
    await _ensure_consumer(bus, subjects.WORK_STREAM, name, subject, ack_wait_s, concurrency)


async def ensure_ingest_consumer(bus: Bus, ack_wait_s: float) -> None:
    """Make the durable pull consumer that all ingest workers share, likewise without a delivery limit."""
    await _ensure_consumer(bus, subjects.INGEST_STREAM, subjects.INGEST_CONSUMER, subjects.INGEST, ack_wait_s, 0)


async def _ensure_consumer(bus: Bus, stream: str, name: str, subject: str, ack_wait_s: float, concurrency: int) -> None:
    js = bus.client.jetstream(timeout=5)
    config = ConsumerConfig(
        name=name,
        durable_name=name,
        filter_subject=subject,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=ack_wait_s,
        max_deliver=-1,
        max_ack_pending=max(10_000, concurrency),
        max_waiting=4096,
    )
    while True:
        try:
            try:
                existing = await js.consumer_info(stream, name)
            except NotFoundError:
                existing = None
            if existing is None:
                await js.add_consumer(stream, config)
            elif existing.config.ack_wait != ack_wait_s:
                # A worker that is none of ours may have made it otherwise, and not everything can be changed.
                await js.add_consumer(stream, existing.config.evolve(ack_wait=ack_wait_s))
            return
        except (TimeoutError, APIError, NatsError) as error:
            log.warning("the work queue is not ready (%s); trying again", error or type(error).__name__)
            await asyncio.sleep(random.uniform(0.2, 1.0))

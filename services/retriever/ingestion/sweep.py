"""Putting right what was left between two steps by somebody who was killed there."""

from __future__ import annotations

import logging

import msgspec

from baton_proto import subjects
from baton_proto.messages import FileRecord, IngestItem
from services.common.bus import Bus, Refused
from services.common.clock import now_ms
from services.common.files import Files, waits

log = logging.getLogger(__name__)

UPLOAD_AGE_S = 24 * 3600.0
"""Uploads so old go that no record waits for."""
LOST_AFTER_S = 60.0
"""A file that has waited for so long while the queue is empty waits for an item that nobody has published."""
MAX_LOOKED_AT = 100_000


async def sweep(files: Files, bus: Bus, upload_age_s: float = UPLOAD_AGE_S, lost_after_s: float = LOST_AFTER_S) -> None:
    """Remove bytes that nobody waits for, and publish again what was lost before it was published. Any number of
    workers may do so at once.

    Raises:
        Unconfirmed, Full
    """
    state = await bus.stream_state(subjects.INGEST_STREAM)
    lost: dict[str, FileRecord] = {}
    if not state.get("messages"):
        oldest = now_ms() - lost_after_s * 1000
        lost = {one.upload: one for one in await files.all() if waits(one) and one.updated_ms < oldest}
    looked_at = 0
    async for upload, age_s, item in files.uploads():
        looked_at += 1
        if looked_at > MAX_LOOKED_AT:
            return
        if upload in lost:
            del lost[upload]
            if item is not None:
                log.warning("%s waits, but is not in the queue: it is queued again", item.name)
                await files.publish(item)
        elif age_s > upload_age_s and not await _waits_for(files, upload, item):
            log.warning("an upload that nobody waits for goes: %s", item.name if item else upload)
            await files.drop_upload(upload)
    for record in lost.values():
        await _without_bytes(files, record)


async def sweep_chunks(bus: Bus, age_s: float = UPLOAD_AGE_S) -> None:
    """Remove what somebody left who was killed while storing an original, a view or an upload.

    Raises:
        Unconfirmed
    """
    if dropped := await bus.drop_stray_chunks(age_s):
        log.warning("what was left of %d objects goes: storing them was begun and never finished", dropped)


async def _waits_for(files: Files, upload: str, item: IngestItem | None) -> bool:
    record = None if item is None else await files.get(item.owner, item.file)
    return record is not None and record.upload == upload and waits(record)


async def _without_bytes(files: Files, record: FileRecord) -> None:
    """A record that waits for an item which neither the queue nor an upload has."""
    if record.state == "removing":
        item = IngestItem(
            action="remove",
            file=record.file,
            owner=record.owner,
            name=record.name,
            upload=record.upload,
            readers=record.readers,
        )
        await files.publish(item)
        return
    held = await files.hold(record.owner, record.file)
    if held.record != record:
        return
    failed = msgspec.structs.replace(
        record, state="failed", error="its bytes were lost on the way; bring it in again", updated_ms=now_ms()
    )
    try:
        await files.put(failed, held.revision)
    except Refused:
        return

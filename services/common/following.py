"""A request's log, followed entry by entry as it grows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from baton_proto import codec
from baton_proto.messages import LogEntry
from baton_proto.sequencer import Assembler, Gap
from baton_proto.subjects import LogAddress

from .bus import Bus, Stored
from .log import StoredEntry, read_entries

FOLLOW_QUEUE = 4_096


async def follow_entries(bus: Bus, at: LogAddress, silence_s: float = 3.0) -> AsyncIterator[StoredEntry | None]:
    """The entries of a log from its start, in order and each once, as they are stored, to its terminal frame.

    Gives None about once a second in which nothing came. Ends without a terminal frame where the log is, or becomes,
    gone. What the live path loses is read again, at the latest after `silence_s` seconds without an entry.

    Raises:
        Unconfirmed: nobody answered.
        codec.WireError: an entry is unreadable.
    """
    arrived: asyncio.Queue[Stored] = asyncio.Queue(FOLLOW_QUEUE)

    def on_live(stored: Stored) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # a gap, which is read again
            arrived.put_nowait(stored)

    stop = await bus.follow(at, on_live)
    assembler, last, silent = Assembler(), 0, 0.0
    try:
        batch = await read_entries(bus, at)
        while True:
            if not batch and silent >= silence_s:
                silent = 0.0
                if await bus.tail(at) is None:
                    return
                batch = await read_entries(bus, at, last)
            elif not batch and last == 0:
                return
            for stored in batch:
                last = max(last, stored.stream_seq)
                if list(assembler.feed(stored.entry)):
                    yield stored
            if assembler.ended:
                return
            batch = []
            try:
                async with asyncio.timeout(1.0):
                    live = await arrived.get()
            except TimeoutError:
                silent += 1.0
                yield None
                continue
            silent = 0.0
            entry = codec.decode(live.data, LogEntry)
            batch = [StoredEntry(entry, live.stream_seq)]
            if entry.frames[0].seq > assembler.next_seq:
                batch = await read_entries(bus, at, last)
    except Gap as gap:
        raise codec.WireError(f"the log {at.key} has a hole: {gap}") from None
    finally:
        await stop()

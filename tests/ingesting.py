"""An ingest worker in this process, on a real NATS and a real Milvus, and what it has made of files."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from baton_proto.messages import FileRecord
from services.common import streams
from services.common.bus import Bus
from services.common.config import IngestSettings, NatsSettings, RetrieverSettings
from services.common.connection import connect
from services.common.documents import PREFIX, VIEWS, Documents
from services.common.files import Files, waits
from services.retriever.ingest import Library, open_library
from services.retriever.ingestion.busy import Busy
from services.retriever.ingestion.handling import Handling
from services.retriever.ingestion.worker import IngestWorker
from tests.servers.processes import eventually

EVERYBODY = ["everybody"]


@dataclass
class Place:
    """Files, the library that they go into, and a worker that can be started."""

    bus: Bus
    library: Library
    settings: IngestSettings
    files: Files = field(init=False)
    busy: Busy = field(init=False)
    handling: Handling = field(init=False)

    def __post_init__(self) -> None:
        self.files = Files(self.bus)
        self.busy = Busy(self.library.store)
        self.handling = Handling(self.files, self.library, self.busy, self.settings)

    @contextlib.asynccontextmanager
    async def working(self, drain_s: float = 10.0) -> AsyncIterator[IngestWorker]:
        worker = IngestWorker(self.bus, self.handling, self.busy, self.settings)
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop, drain_s))
        try:
            yield worker
        finally:
            stop.set()
            await task

    async def add(self, name: str, data: bytes | str, **fields: object) -> FileRecord:
        data = data.encode() if isinstance(data, str) else data
        wanted = {"owner": "", "readers": EVERYBODY, **fields}
        return await self.files.add(name=name, data=data, **wanted)  # type: ignore[arg-type]

    async def done(self, *records: FileRecord, within_s: float = 60.0) -> list[FileRecord | None]:
        """What the records have become when nobody works on them any more."""

        async def ended() -> bool:
            found = [await self.files.get(one.owner, one.file) for one in records]
            return all(one is None or not waits(one) for one in found)

        await eventually(ended, "the files are ready or have failed", within_s)
        return [await self.files.get(one.owner, one.file) for one in records]

    async def uploads(self) -> list[str]:
        return [name async for name, _, _ in self.files.uploads()]

    async def uploads_gone(self) -> bool:
        return not await self.uploads()

    async def assert_nothing_twice(self) -> None:
        """Each ready file is one whole document with one original and one view, and there is nothing else."""
        await assert_nothing_twice(self.bus, self.library, await self.files.all())


async def assert_nothing_twice(bus: Bus, library: Library, records: list[FileRecord]) -> None:
    wanted = {one.document_id: one for one in records if one.document_id}
    documents = await library.documents()
    assert Counter(info.document_id for info in documents) == Counter(wanted.keys())
    for info in documents:
        assert info.passages == wanted[info.document_id].passages > 0
        assert await library.store.ordinals(info.document_id) == set(range(info.passages)), info.name
    assert {one.name async for one in bus.objects(PREFIX)} == {PREFIX + one for one in wanted}
    assert {one.name async for one in bus.objects(VIEWS)} == {VIEWS + one for one in wanted}


@contextlib.contextmanager
def worker_thread(url: str, settings: RetrieverSettings, **ingest: object) -> Iterator[None]:
    """An ingest worker in a thread of this process, for tests that run commands."""
    begun = threading.Event()

    async def work() -> None:
        nats = NatsSettings(url=url, shards=4)
        async with (
            connect(nats, "ingest") as bus,
            streams.kept(bus),
            place(bus, settings, **ingest) as one,
            one.working(),
        ):
            begun.set()
            while not over.is_set():  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.02)

    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        over.set()
        thread.join(30)


@contextlib.asynccontextmanager
async def place(bus: Bus, settings: RetrieverSettings, **ingest: object) -> AsyncIterator[Place]:
    async with open_library(settings, Documents(bus)) as library:
        yield Place(bus, library, IngestSettings(**ingest))  # type: ignore[arg-type]

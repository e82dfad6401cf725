"""`python -m services.retriever.ingestion`: puts the ingest worker together and reads the environment."""

from __future__ import annotations

import asyncio
import threading

from services.common import streams
from services.common.config import IngestSettings, NatsSettings, ProcessSettings, RetrieverSettings
from services.common.connection import connect
from services.common.documents import Documents
from services.common.files import Files
from services.common.process import instance_name, read_settings, run, serve
from services.retriever.ingest import open_library

from .busy import Busy
from .handling import Handling
from .worker import IngestWorker


def main() -> None:
    nats, settings, ingest, process = read_settings(
        "retriever.ingestion", NatsSettings, RetrieverSettings, IngestSettings
    )
    run(serve(process, lambda stop, ready: _serve(nats, settings, ingest, process, stop, ready)))


async def _serve(
    nats: NatsSettings,
    settings: RetrieverSettings,
    ingest: IngestSettings,
    process: ProcessSettings,
    stop: asyncio.Event,
    ready: threading.Event,
) -> None:
    async with (
        connect(nats, instance_name("ingest")) as bus,
        streams.kept(bus),
        open_library(settings, Documents(bus)) as library,
    ):
        busy = Busy(library.store)
        handling = Handling(Files(bus), library, busy, ingest)
        ready.set()
        await IngestWorker(bus, handling, busy, ingest).run(stop, process.drain_s)


if __name__ == "__main__":
    main()

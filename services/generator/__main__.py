"""`python -m services.generator`: puts the generator together and reads the environment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from baton_proto import subjects
from services.common.bus import Bus
from services.common.config import GeneratorSettings, NatsSettings, WorkerSettings
from services.common.presence import Presence
from services.common.process import Opened, load_factory, read_settings, run, serve_stage

from .service import generate_handler

SHIPPED = {
    "extractive": "services.generator.extractive:open_generator",
    "openai": "services.generator.openai_chat:open_generator",
}


def main() -> None:
    nats, worker, settings, process = read_settings("generator", NatsSettings, WorkerSettings, GeneratorSettings)
    open_generator = load_factory("BATON_GENERATOR", settings.generator, SHIPPED)

    @contextlib.asynccontextmanager
    async def open_handler(_: Bus, presence: Presence) -> AsyncIterator[Opened]:
        async with open_generator(settings) as generator:
            yield Opened(generate_handler(generator, settings, presence.tools))

    run(serve_stage(subjects.GENERATE, open_handler, nats, worker, process))


if __name__ == "__main__":
    main()

"""`python -m services.generator`: puts the generator together and reads the environment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from baton_proto import subjects
from services.common import metrics
from services.common.bus import Bus
from services.common.cache import open_cache
from services.common.config import CacheSettings, GeneratorSettings, NatsSettings, WorkerSettings
from services.common.presence import Presence
from services.common.process import Opened, load_factory, package_version, read_settings, run, serve_stage

from .caching import Answers
from .service import generate_handler

SHIPPED = {
    "extractive": "services.generator.extractive:open_generator",
    "openai": "services.generator.openai_chat:open_generator",
}


def main() -> None:
    nats, worker, settings, caching, process = read_settings(
        "generator", NatsSettings, WorkerSettings, GeneratorSettings, CacheSettings
    )
    metrics.GENERATOR.labels(settings.generator, settings.llm_model or settings.generator).set(1)
    open_generator = load_factory("BATON_GENERATOR", settings.generator, SHIPPED)

    @contextlib.asynccontextmanager
    async def open_handler(bus: Bus, presence: Presence) -> AsyncIterator[Opened]:
        async with open_generator(settings) as generator, open_cache(bus) as cache:
            answers = Answers(cache if caching.cache == "on" else None, caching, package_version())
            yield Opened(generate_handler(generator, settings, presence.tools, answers=answers))

    run(serve_stage(subjects.GENERATE, open_handler, nats, worker, process))


if __name__ == "__main__":
    main()

"""A generator that writes so many tokens at so many a second, so that a load test measures Baton and not a model.

`BATON_GENERATOR=bench.load.paced_generator:open_generator`; `LOAD_TOKENS` and `LOAD_TOKENS_PER_S` in the environment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from baton_proto.messages import Usage
from services.common.config import GeneratorSettings
from services.generator.port import Event, Finish, Generator, Prompt, Text


class Paced:
    def __init__(self, tokens: int, per_s: float) -> None:
        self._tokens = tokens
        self._per_s = per_s

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number in range(self._tokens):
            # By the clock, not by the pause before: a late token does not make all later ones late.
            await asyncio.sleep(max(0.0, started + number / self._per_s - loop.time()))
            yield Text("年假 " if prompt.language == "zh" else "leave ")
        yield Finish("stop", Usage(completion_tokens=self._tokens))


@asynccontextmanager
async def open_generator(_: GeneratorSettings) -> AsyncIterator[Generator]:
    yield Paced(int(os.environ["LOAD_TOKENS"]), float(os.environ["LOAD_TOKENS_PER_S"]))

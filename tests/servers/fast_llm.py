"""A language model that never stops, or after so many tokens: a chat completions server, in a process of its own, that
sends a token every few milliseconds until its client closes the connection, and remembers when that was.

`GET /closed` gives `{"<number>": <seconds of the machine's monotonic clock>}` for the questions that held `number 17`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers.llm import DONE, delta, head
from tests.servers.processes import accepts, free_port, running, wait_until

_NUMBER = re.compile(r"number (\d+)")


@dataclass
class FastLLM:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def closed(self) -> dict[int, float]:
        """When the connections of which questions were closed, by `time.monotonic`."""
        found: dict[str, float] = httpx.get(f"http://127.0.0.1:{self.port}/closed").json()
        return {int(number): at for number, at in found.items()}


@contextlib.contextmanager
def fast_llm(folder: Path, every_s: float, tokens: int = 0) -> Iterator[FastLLM]:
    """
    Args:
        tokens: of each answer; 0 = without end.
    """
    port = free_port()
    argv = [sys.executable, "-m", "tests.servers.fast_llm", "--port", str(port), "--every", str(every_s)]
    with running([*argv, "--tokens", str(tokens)], folder / "fast_llm.log") as process:
        wait_until(lambda: accepts(port) or not process.alive, "the model's server accepts connections")
        assert process.alive, process.text()
        yield FastLLM(port)


async def _serve(port: int, every_s: float, tokens: int) -> None:
    closed: dict[str, float] = {}
    loop = asyncio.get_running_loop()

    async def stream(writer: asyncio.StreamWriter) -> None:
        started = loop.time()
        for number in range(1, tokens + 1) if tokens else itertools.count(1):
            writer.write(delta("word "))
            await writer.drain()
            await asyncio.sleep(max(0.0, started + number * every_s - loop.time()) if tokens else every_s)
        writer.write(delta(finish="stop") + DONE)
        writer.close()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            if request.startswith("GET"):
                writer.write(head(kind="application/json") + json.dumps(closed).encode())
            else:
                length = int(re.search(r"(?i)content-length: (\d+)", request)[1])  # type: ignore[index]
                question = json.loads(await reader.readexactly(length))["messages"][1]["content"]
                writer.write(head())
                streaming = asyncio.create_task(stream(writer))
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                if numbered := _NUMBER.search(question):
                    closed[numbered[1]] = time.monotonic()
                streaming.cancel()
                await asyncio.gather(streaming, return_exceptions=True)
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--every", type=float, required=True)
    parser.add_argument("--tokens", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.every, options.tokens))

"""The benchmark of what Baton adds to a model, in small. How much it may be is for `make bench` on a quiet machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.overhead import client_cpu, first_tokens, measured, system_cpu
from tests.servers.fast_llm import fast_llm
from tests.system import System

ANSWERS, TOKENS = 4, 5
FAR_TOO_MUCH_MS = 150.0
"""Ten times what is wanted at the median: something waits that should not, however busy the machine is."""


def test_the_first_token_comes_soon_after_the_models_own() -> None:
    async def measure(one: System, llm_url: str) -> float:
        await system_cpu(one, llm_url, ANSWERS, TOKENS)  # fails by itself where a token is missing
        return await first_tokens(one, llm_url, requests=15, pause_s=0.0)

    assert 0 < measured(0.005, TOKENS, measure) < FAR_TOO_MUCH_MS


def test_the_client_code_costs_little_beside_the_http_client(tmp_path: Path) -> None:
    with fast_llm(tmp_path, 0.001, 200) as llm:
        assert 0 < asyncio.run(client_cpu(llm.url, 200, runs=3)) < 3

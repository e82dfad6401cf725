"""Requests whose clients have left, where another gateway may follow them still."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from services.common.bus import Unconfirmed
from services.gateway.leaving import ASK_S, Leaving


class Elsewhere:
    """Another gateway that follows the request, and stands still for so many questions."""

    connected = True

    def __init__(self, still_s: float) -> None:
        self._left_s = still_s

    async def request(self, subject: str, data: bytes, seconds: float) -> bytes:
        if self._left_s > 0:
            self._left_s -= seconds
            raise Unconfirmed("no answer")
        return b""


@pytest.mark.parametrize(("still_s", "cancelled"), [(0.0, False), (1.5, False), (1_000.0, True)])
def test_a_request_is_cancelled_only_where_no_gateway_says_for_two_seconds_that_it_follows_it(
    still_s: float, cancelled: bool
) -> None:
    assert ASK_S < 1.5, "a question that is lost is asked again"

    async def main() -> None:
        ended: list[Any] = []

        async def cancel(one: Any) -> None:
            ended.append(one)

        leaving = Leaving(Elsewhere(still_s), 0.0, cancel)  # type: ignore[arg-type]
        follower: Any = Follower()
        leaving.left(follower, wished=True)
        await asyncio.gather(*leaving._asking.values())
        assert bool(ended) is cancelled

    asyncio.run(main())


class Follower:
    """What `Leaving` looks at in one."""

    at = SimpleNamespace(key="0" * 32)
    request_id = "r"
    deadline_ms = 1
    on_disconnect = "cancel"
    ended = False

    def hide(self) -> None:
        pass

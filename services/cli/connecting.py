"""The WebSocket to a gateway, and why there is none."""

from __future__ import annotations

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from baton_proto.messages import MAX_MESSAGE_BYTES

from .options import is_local

CONNECT_S = 10.0


def open_socket(url: str, token: str) -> connect:
    """A connection to a gateway, for `async with`."""
    return connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"} if token else None,
        open_timeout=CONNECT_S,
        close_timeout=1.0,
        max_size=MAX_MESSAGE_BYTES,
        compression=None,
        proxy=None if is_local(url) else True,
        user_agent_header="baton-ask",
    )


def reason_of(error: Exception) -> str:
    """Why a connection could not be made, or ended, in a few words."""
    if isinstance(error, InvalidStatus):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, ConnectionClosed):
        close = error.rcvd
        return f"{close.code} {close.reason}".strip() if close else "it broke off"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)

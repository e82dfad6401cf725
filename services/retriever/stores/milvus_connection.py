"""The way to Milvus: bounded in time whatever the server does, and reconnecting by itself.

pymilvus' blocking client runs in a bounded pool of threads. Every call carries a deadline of its own, and the waiting
side gives up at the same deadline, so a Milvus that is down, hangs or never answers costs `timeout_s`, not a request.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import grpc
from pymilvus import MilvusClient, MilvusException

from services.common.errors import ServiceError

from .port import Unreachable

T = TypeVar("T")
THREADS = 16
CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
COLLECTION_MISSING = 100
COLLECTION_RELEASED = 101
_CONNECT_FAILED = 2
_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
}
_CHANNEL = {
    # Channels of one process share their connections and back-off by default: after an outage a new channel would wait
    # up to two minutes because an old one has failed before.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    # In spite of its name this is the time that one attempt to connect is given.
    "grpc.min_reconnect_backoff_ms": 3_000,
    "grpc.max_reconnect_backoff_ms": 1_000,
}


class Connection:
    """Calls on one Milvus. It connects with the first call, so it can be made while Milvus is still starting."""

    def __init__(self, uri: str, token: str = "", threads: int = THREADS) -> None:
        # It prints a traceback for each failed call, also for those that are expected and handled here.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self._uri = uri
        self._token = token
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="milvus")

    async def run(self, call: Callable[[MilvusClient, float], T], timeout_s: float) -> T:
        """What `call(client, seconds left)` returns; it runs in a thread of its own.

        Raises:
            Unreachable: there was no answer within `timeout_s`.
            MilvusException: Milvus has answered with an error.
        """
        deadline = time.monotonic() + timeout_s
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._attempt, call, deadline)
        try:
            # Not `asyncio.wait_for`: before Python 3.12 it may swallow a cancellation that comes as the future ends.
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise Unreachable(self._late(timeout_s)) from None
        except grpc.RpcError as error:
            raise self._translated(error, timeout_s) from error
        except MilvusException as error:
            if error.code == _CONNECT_FAILED or isinstance(error.code, grpc.StatusCode):
                raise Unreachable(self._down()) from error
            raise

    async def close(self) -> None:
        """Give the connection up; calls that still run end with it."""
        client, self._client = self._client, None
        self._pool.shutdown(wait=False, cancel_futures=True)
        if client is not None:
            # Not in the pool: all its threads may be waiting for a Milvus that hangs, and this is what ends their wait.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await asyncio.to_thread(client.close)

    def _attempt(self, call: Callable[[MilvusClient, float], T], deadline: float) -> T:
        client = self._connected(deadline)
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return call(client, left)

    def _connected(self, deadline: float) -> MilvusClient:
        if self._client is not None:
            return self._client
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        try:
            if self._client is None:
                _import_before_threads_do()
                left = max(0.05, min(CONNECT_TIMEOUT_S, deadline - time.monotonic()))
                self._client = MilvusClient(
                    self._uri, token=self._token, timeout=left, dedicated=True, grpc_options=_CHANNEL
                )
            return self._client
        finally:
            self._lock.release()

    def _translated(self, error: grpc.RpcError, timeout_s: float) -> ServiceError:
        code = error.code() if callable(getattr(error, "code", None)) else None
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(self._late(timeout_s))
        if code in _PASSING:
            return Unreachable(self._down())
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return ServiceError("retrieval_failed", "Milvus does not accept BATON_MILVUS_TOKEN.")
        return ServiceError("retrieval_failed", "The document store failed.", retryable=True)

    @staticmethod
    def _down() -> str:
        return "The document store cannot be reached. It may be starting; try again in a moment."

    @staticmethod
    def _late(timeout_s: float) -> str:
        return f"The document store has not answered within {timeout_s:g} s. Try again in a moment."


def _import_before_threads_do() -> None:
    """With its first search pymilvus executes `scipy.sparse`, where that is installed, past the import system's locks;
    two first searches at once then fail (in 3.0.2, `SciPyHelper`). They do not where it has been imported."""
    with suppress(ImportError):
        importlib.import_module("scipy.sparse")

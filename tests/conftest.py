"""Fixtures for every layer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers.milvus import Milvus, milvus_lite
from tests.servers.nats import Nats, nats_server

# Property tests find the same on every machine, however slow it is.
settings.register_profile("baton", derandomize=True, deadline=None, database=None)
settings.load_profile("baton")


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start, also where they run in the background of a shell that has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> None:
    """A developer's own BATON_* and OTEL_* settings must not change what tests see."""
    for name in list(os.environ):
        if name.startswith(("BATON_", "OTEL_")):
            del os.environ[name]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    """A fresh nats-server for one test."""
    with nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Milvus]:
    """One Milvus Lite for all tests of this process; each uses a collection of its own."""
    with milvus_lite(tmp_path_factory.mktemp("milvus")) as server:
        yield server

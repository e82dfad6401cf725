"""The gateway's picture of all files: in order, without what nobody is shown, and right from its first moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from baton_proto.messages import FileRecord
from baton_proto.subjects import owner_hash
from services.common.config import GatewaySettings
from services.common.files import Files, Removed
from services.gateway.auth import Identity
from services.gateway.catalogue import Catalogue, Viewer

ANN = Viewer(Identity("ann", {"sub": "ann"}, expires=2e9), GatewaySettings())
BOB = Viewer(Identity("bob", {"sub": "bob"}, expires=2e9), GatewaySettings())


def record(n: int, updated_ms: int, owner: str = "ann", **fields: Any) -> FileRecord:
    wanted: dict[str, Any] = {"state": "ready", "readers": [f"user:{owner}"], "content_hash": "c" * 64, **fields}
    return FileRecord(file=f"{n:032x}", owner=owner, name=f"{n}.md", upload="1" * 32, updated_ms=updated_ms, **wanted)


class Stored:
    """Files that are kept, and changes that are told while they are read."""

    def __init__(self, records: list[FileRecord], *meanwhile: FileRecord | Removed) -> None:
        self.records = records
        self.meanwhile = meanwhile

    async def watch(self, tell: Callable[[FileRecord | Removed], None]) -> Callable[[], Awaitable[None]]:
        self.tell = tell

        async def stop() -> None:
            return None

        return stop

    async def all(self) -> list[FileRecord]:
        for change in self.meanwhile:
            self.tell(change)
        return self.records


def opened(stored: Stored, *added: FileRecord) -> Catalogue:
    catalogue = Catalogue(cast(Files, stored))
    for one in added:
        catalogue.added(one)
    asyncio.run(catalogue.open())
    return catalogue


def listed(catalogue: Catalogue, viewer: Viewer = ANN, most: int = 10) -> list[int]:
    return [int(one.file, 16) for one in catalogue.newest(viewer, most)[0]]


def test_the_last_changed_comes_first_and_what_there_is_no_room_for_is_told() -> None:
    stored = Stored([record(1, 50), record(2, 70), record(3, 60), record(4, 90, "bob")])
    catalogue = opened(stored)
    assert listed(catalogue) == [2, 3, 1]
    stored.tell(record(1, 80))
    assert listed(catalogue) == [1, 2, 3]
    found, truncated = catalogue.newest(ANN, 2)
    assert ([int(one.file, 16) for one in found], truncated) == ([1, 2], True)
    assert catalogue.newest(ANN, 3)[1] is False
    assert listed(catalogue, BOB) == [4]


def test_what_happens_while_the_files_are_read_is_not_undone_by_what_was_read() -> None:
    gone, changed = record(1, 50), record(2, 60, state="queued")
    stored = Stored([gone, changed], Removed(owner_hash("ann"), gone.file), record(2, 70, passages=3))
    catalogue = opened(stored)
    assert [one.passages for one in catalogue.newest(ANN, 10)[0]] == [3]


def test_a_file_that_was_ready_before_anybody_asked_is_not_told_as_queued() -> None:
    catalogue = opened(Stored([record(1, 60)]), record(1, 50, state="queued"))
    assert [one.state for one in catalogue.newest(ANN, 10)[0]] == ["ready"]
    # Where a replica lags, what this gateway has done itself is the newer one.
    lagging = opened(Stored([record(1, 40)]), record(1, 50, state="queued"))
    assert [one.state for one in lagging.newest(ANN, 10)[0]] == ["queued"]


def test_a_catalogue_that_is_opened_again_forgets_what_has_gone() -> None:
    stored = Stored([record(1, 50), record(2, 60)])
    catalogue = opened(stored)
    asyncio.run(catalogue.close())
    stored.records = [record(2, 60)]
    asyncio.run(catalogue.open())
    assert listed(catalogue) == [2]


def test_a_file_is_found_by_its_own_id_and_by_its_documents() -> None:
    catalogue = opened(Stored([record(1, 50, document_id="d" * 32), record(2, 60)]))
    for name, file in (("d" * 32, 1), (f"{1:032x}", 1), (f"{2:032x}", 2)):
        found = catalogue.find(name, ANN)
        assert found is not None
        assert int(found.file, 16) == file
        assert catalogue.find(name, BOB) is None
    assert catalogue.find("e" * 32, ANN) is None

"""What an ingestion tells: file by file while it runs, and all of it at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["added", "replaced", "unchanged", "duplicate", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `reason` says why it was not ingested."""

    path: str
    status: Status
    reason: str = ""
    document_id: str = ""
    passages: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` files are dealt with; `outcome` is that of the last one."""

    done: int
    total: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Report:
    """All that an ingestion did, file by file."""

    outcomes: Sequence[Outcome]
    elapsed_s: float

    def of(self, *status: Status) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status in status]

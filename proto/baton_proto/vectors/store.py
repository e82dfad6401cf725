"""The files of golden vectors: which there are, how they are compared, and that they only grow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accepted import accepted_cases, connection_cases
from .addresses import address_cases, handoff_cases, queue_cases, stage_cases
from .client import accepted_client_cases, rejected_client_cases
from .readers import reader_cases
from .rejected import rejected_cases
from .samples import Case

FILES: dict[str, Callable[[], list[Case]]] = {
    "accepted": accepted_cases,
    "rejected": rejected_cases,
    "client_accepted": accepted_client_cases,
    "client_rejected": rejected_client_cases,
    "connection": connection_cases,
    "addresses": address_cases,
    "stages": stage_cases,
    "queues": queue_cases,
    "handoffs": handoff_cases,
    "readers": reader_cases,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """`changed` says what no longer is as released; `added` is new; `all` is what the file should hold."""

    changed: list[str]
    added: list[Case]
    all: list[Case]


def read(path: Path) -> list[Case]:
    """The cases in a file; none where there is no file yet."""
    if not path.exists():
        return []
    cases: list[Case] = json.loads(path.read_text("utf-8"))
    return cases


def write(path: Path, cases: list[Case]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", "utf-8")


def compare(released: list[Case], made: list[Case]) -> Difference:
    """Sets what the code makes against what was released."""
    by_name = {case["name"]: case for case in made}
    if len(by_name) != len(made):
        raise ValueError("two cases have the same name")
    changed = [f"{case['name']!r} has changed" for case in released if by_name.get(case["name"], case) != case]
    changed += [f"{case['name']!r} is no longer made" for case in released if case["name"] not in by_name]
    known = {case["name"] for case in released}
    added = [case for case in made if case["name"] not in known]
    return Difference(changed, added, released + added)


def case_bytes(case: Case) -> bytes:
    """The bytes of a case: `hex`, `text`, or the recipe in `build` for large ones."""
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    if "text" in case:
        text: str = case["text"]
        return text.encode()
    build: dict[str, Any] = case["build"]
    middle: bytes = bytes.fromhex(build["repeat"]) * build["times"]
    return bytes.fromhex(build["prefix"]) + middle + bytes.fromhex(build["suffix"])

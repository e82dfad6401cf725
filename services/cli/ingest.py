"""`baton ingest` and `baton documents`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from services.common.config import ALL_SETTINGS, NatsSettings, RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError, load

from .direct import quiet_bus

# What talks to Milvus is imported where it is used: it takes a second to load, and other commands should not wait.
if TYPE_CHECKING:
    from services.retriever.ingest import Library
    from services.retriever.report import Progress as Step
    from services.retriever.report import Report
    from services.retriever.stored import DocumentInfo

_SHOWN_SKIPPED = 10
_CONNECT_TIMEOUT_S = 10.0


class CannotStart(Exception):
    """What the command needs is not there; the text says what."""


def register(subparsers: Any) -> None:
    """Add both commands to the command line's parser."""
    ingest = subparsers.add_parser(
        "ingest",
        help="add documents (Markdown, text, HTML, PDF)",
        description="Add files, or folders with all below them. What is already there costs nothing; a changed file "
        "replaces its earlier version.",
    )
    ingest.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    ingest.add_argument(
        "--metadata", action="append", default=[], metavar="KEY=VALUE", help="for filters; may be repeated"
    )
    ingest.add_argument("--json", action="store_true", help="print the report as JSON")
    ingest.set_defaults(func=run_ingest)
    documents = subparsers.add_parser("documents", help="list or delete documents")
    documents.add_argument("--json", action="store_true", help="print JSON")
    documents.add_argument("--delete", metavar="ID", help="remove this document, its passages and its original")
    documents.set_defaults(func=run_documents)


def run_ingest(args: argparse.Namespace) -> int:
    """Exit code 1 if any file failed or nothing could be ingested, 2 if the command itself is wrong."""
    try:
        metadata = _metadata(args.metadata)
    except ValueError as error:
        print(f"baton ingest: {error}", file=sys.stderr)
        return 2
    return _run(lambda: _ingest(args.paths, metadata, as_json=args.json))


def run_documents(args: argparse.Namespace) -> int:
    """Exit code 1 if there is no document of the id to delete."""
    if args.delete:
        return _run(lambda: _delete(args.delete, as_json=args.json))
    return _run(lambda: _list(as_json=args.json))


def _run(command: Callable[[], Coroutine[Any, Any, int]]) -> int:
    from services.common.bus import Unconfirmed

    try:
        with quiet_bus():
            return asyncio.run(command())
    except (SettingsError, CannotStart) as error:
        problem = str(error)
    except ServiceError as error:
        problem = error.message
    except Unconfirmed as error:
        problem = f"NATS has not confirmed that an original is stored ({error}). Run the same command again to go on."
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to go on.", file=sys.stderr)
        return 130
    print(f"baton: {problem}", file=sys.stderr)
    return 1


async def _ingest(paths: list[Path], metadata: dict[str, Any], *, as_json: bool) -> int:
    async with _library() as library:
        with _progress(quiet=as_json) as on_progress:
            report = await library.ingest(paths, on_progress, metadata)
    if as_json:
        print(json.dumps(_report_map(report), ensure_ascii=False))
    else:
        _print_report(report)
    return 1 if report.of("failed") else 0


async def _list(*, as_json: bool) -> int:
    from services.retriever.stores.opening import open_store

    (settings,) = load([RetrieverSettings], ALL_SETTINGS)
    async with open_store(settings) as store:
        documents = await store.documents()
    if as_json:
        print(json.dumps([asdict(info) for info in documents], ensure_ascii=False))
        return 0
    if not documents:
        print("No documents yet. Add some with: baton ingest PATH")
        return 0
    _print_documents(documents)
    return 0


async def _delete(document_id: str, *, as_json: bool) -> int:
    async with _library() as library:
        deleted = await library.delete(document_id)
    if as_json:
        print(json.dumps({"document_id": document_id, "deleted": deleted}))
    elif deleted:
        print(f"Deleted {document_id}.")
    else:
        print(f"baton: there is no document {document_id!r}; `baton documents` lists them", file=sys.stderr)
    return 0 if deleted else 1


@asynccontextmanager
async def _library() -> AsyncIterator[Library]:
    from services.common.documents import open_documents
    from services.retriever.ingest import open_library

    nats, retriever = load([NatsSettings, RetrieverSettings], ALL_SETTINGS)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                originals = await stack.enter_async_context(open_documents(nats))
        except TimeoutError:
            raise CannotStart(
                f"NATS cannot be reached at {nats.url} (BATON_NATS_URL); is the system running?"
            ) from None
        yield await stack.enter_async_context(open_library(retriever, originals))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Step], None]]:
    """A bar on a terminal, a line for each file elsewhere."""
    console = Console(stderr=True)
    if quiet:
        yield lambda step: None
    elif not console.is_terminal:
        yield lambda step: print(f"[{step.done}/{step.total}] {step.outcome.status:<9} {step.outcome.path}", flush=True)
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("Ingesting", total=None)

            def show(step: Step) -> None:
                bar.update(task, completed=step.done, total=step.total)

            yield show


def _print_documents(documents: list[DocumentInfo]) -> None:
    """A table as wide as the terminal; where there is none, lines of fields between tabs, with nothing cut off."""
    columns = ("id", "name", "title", "passages", "ingested")
    rows = []
    for info in documents:
        when = datetime.fromtimestamp(info.ingested_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        rows.append((info.document_id, info.name, info.title, str(info.passages or "incomplete"), when))
    console = Console()
    if not console.is_terminal:
        print(*("\t".join(row) for row in [columns, *rows]), sep="\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*(Text(field) for field in row))
    console.print(table)


def _report_map(report: Report) -> dict[str, Any]:
    return {
        "elapsed_s": round(report.elapsed_s, 3),
        "passages": sum(outcome.passages for outcome in report.of("added", "replaced")),
        "files": [asdict(outcome) for outcome in report.outcomes],
    }


def _print_report(report: Report) -> None:
    written = report.of("added", "replaced")
    counts = [
        f"{len(report.of(status))} {status}"
        for status in ("added", "replaced", "unchanged", "duplicate", "skipped", "failed")
        if report.of(status)
    ]
    passages = f" ({sum(outcome.passages for outcome in written)} passages)" if written else ""
    print(f"{', '.join(counts) or 'no files'}{passages} in {report.elapsed_s:.1f} s")
    for outcome in report.of("failed"):
        print(f"  failed   {outcome.path}: {outcome.reason}")
    passed_over = report.of("skipped", "duplicate")
    for outcome in passed_over[:_SHOWN_SKIPPED]:
        print(f"  {outcome.status:<8} {outcome.path}: {outcome.reason}")
    if len(passed_over) > _SHOWN_SKIPPED:
        print(f"  and {len(passed_over) - _SHOWN_SKIPPED} more; --json names them all")


def _metadata(pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` as metadata; a value that reads as a number or true or false is one.

    Raises:
        ValueError: with the pair that is wrong.
    """
    from services.retriever.filters import COLUMNS, is_key

    metadata: dict[str, Any] = {}
    for pair in pairs:
        key, equals, raw = pair.partition("=")
        if not equals or not is_key(key):
            raise ValueError(f"--metadata takes KEY=VALUE, KEY being letters, digits and underscores, not {pair!r}")
        if key in COLUMNS:
            raise ValueError(f"--metadata cannot set {key!r}: every document has that already")
        try:
            value = json.loads(raw)
        except ValueError:
            value = raw
        metadata[key] = value if isinstance(value, (str, int, float, bool)) else raw
    return metadata

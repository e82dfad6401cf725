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

# What is heavy is imported where it is used: other commands should not wait for it.
if TYPE_CHECKING:
    from baton_proto.messages import FileRecord
    from services.common.bus import Bus
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
        help="add documents: files, folders, zip archives",
        description="Send files, folders with all below them, or zip archives to the ingest workers, and follow them "
        "until each is ready or has failed. What is already there costs nothing; a changed file replaces its earlier "
        "version. Stopped, it goes on when it is repeated.",
    )
    ingest.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file, folder or zip archive")
    ingest.add_argument(
        "--reader",
        action="append",
        default=[],
        metavar="PRINCIPAL",
        help="who may read them: everybody (if none is named), user:NAME or group:NAME; may be repeated",
    )
    ingest.add_argument(
        "--again",
        action="store_true",
        help="send files too that are known to be there: after the document store has lost them",
    )
    ingest.add_argument("--no-wait", action="store_true", help="do not wait for the ingest workers")
    ingest.add_argument(
        "--metadata", action="append", default=[], metavar="KEY=VALUE", help="for filters; may be repeated"
    )
    ingest.add_argument("--json", action="store_true", help="print the report as JSON")
    ingest.set_defaults(func=run_ingest)
    documents = subparsers.add_parser("documents", help="list or delete documents")
    documents.add_argument("--json", action="store_true", help="print JSON")
    documents.add_argument("--delete", metavar="ID", help="remove this document or file, its passages and its original")
    documents.set_defaults(func=run_documents)


def run_ingest(args: argparse.Namespace) -> int:
    """Exit code 1 if any file failed or nothing could be ingested, 2 if the command itself is wrong."""
    from baton_proto.readers import EVERYBODY, checked_readers

    try:
        metadata = _metadata(args.metadata)
        readers = checked_readers(args.reader or [EVERYBODY])
    except ValueError as error:
        print(f"baton ingest: {error}", file=sys.stderr)
        return 2
    return _run(lambda: _ingest(args, metadata, readers))


def run_documents(args: argparse.Namespace) -> int:
    """Exit code 1 if there is no document of the id to delete."""
    if args.delete:
        return _run(lambda: _delete(args.delete, as_json=args.json))
    return _run(lambda: _list(as_json=args.json))


def _run(command: Callable[[], Coroutine[Any, Any, int]]) -> int:
    from services.common.bus import Full, Unconfirmed

    from .bringing_in import Stuck

    try:
        with quiet_bus():
            return asyncio.run(command())
    except (SettingsError, CannotStart, Stuck) as error:
        problem = str(error)
    except ServiceError as error:
        problem = error.message
    except Full as error:
        problem = f"NATS takes no more files ({error}); try again when some have been dealt with."
    except Unconfirmed as error:
        problem = f"NATS did not answer ({error}). Run the same command again to go on."
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to go on.", file=sys.stderr)
        return 130
    print(f"baton: {problem}", file=sys.stderr)
    return 1


async def _ingest(args: argparse.Namespace, metadata: dict[str, Any], readers: tuple[str, ...]) -> int:
    from services.retriever.ingest import Whose

    from .bringing_in import BringingIn

    (settings,) = load([RetrieverSettings], ALL_SETTINGS)
    async with _bus() as bus:
        with _progress(quiet=args.json) as on_progress:
            bringing = BringingIn(bus, settings, Whose("", readers), metadata, on_progress, _note)
            report = await bringing.run(args.paths, wait=not args.no_wait, again=args.again)
    if args.json:
        print(json.dumps(_report_map(report, bringing.queued), ensure_ascii=False))
    else:
        _print_report(report, bringing.queued)
    return 1 if report.of("failed") else 0


async def _list(*, as_json: bool) -> int:
    async with _bus() as bus:
        rows = await _rows(bus)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    if not rows:
        print("No documents yet. Add some with: baton ingest PATH")
        return 0
    _print_documents(rows)
    return 0


async def _delete(wanted: str, *, as_json: bool) -> int:
    from services.common.documents import Documents
    from services.common.files import Files
    from services.retriever.ingest import open_library

    from .bringing_in import removed

    (settings,) = load([RetrieverSettings], ALL_SETTINGS)
    async with _bus() as bus:
        records = await Files(bus).all()
        record = next((one for one in records if wanted in (one.document_id, one.file)), None)
        if record is not None:
            await removed(bus, record, _note)
            deleted = True
        else:  # brought in without the queue
            async with open_library(settings, Documents(bus)) as library:
                deleted = await library.delete(wanted)
    if as_json:
        print(json.dumps({"document_id": wanted, "deleted": deleted}))
    elif deleted:
        print(f"Deleted {wanted}.")
    else:
        print(f"baton: there is no document {wanted!r}; `baton documents` lists them", file=sys.stderr)
    return 0 if deleted else 1


async def _rows(bus: Bus) -> list[dict[str, Any]]:
    """All files with what is stored of them, and the documents that came in without the queue; by name."""
    from services.common.files import Files
    from services.retriever.stores.opening import open_store

    (settings,) = load([RetrieverSettings], ALL_SETTINGS)
    records = await Files(bus).all()
    known = True
    async with open_store(settings) as store:
        try:
            infos = {info.document_id: info for info in await store.documents()}
        except ServiceError as error:
            if not records:
                raise
            _note(f"What is stored cannot be told: {error.message}")
            infos, known = {}, False
    rows = [_row(infos.pop(record.document_id, None), record, known=known) for record in records]
    rows += [_row(info, None) for info in infos.values()]
    return sorted(rows, key=lambda row: (row["name"], row["owner"]))


def _row(info: DocumentInfo | None, record: FileRecord | None, *, known: bool = True) -> dict[str, Any]:
    """What is told of a file; `known`: without `info` the store does not have it."""
    row: dict[str, Any] = {"document_id": "", "title": "", "media_type": "", "language": "", "metadata": {}}
    if record is not None:
        row |= {name: getattr(record, name) for name in _OF_RECORDS}
        if info is None and known and record.state == "ready" and record.document_id:
            row |= {"state": "missing", "error": _MISSING}
    if info is not None:
        row = {**row, **asdict(info), **({} if record is None else {"owner": record.owner})}
        row.setdefault("state", "ready" if info.passages else "incomplete")
        row.setdefault("updated_ms", info.ingested_ms)
    return row


_OF_RECORDS = (
    "file", "name", "owner", "state", "error", "document_id", "title", "media_type", "passages", "bytes", "done",
    "total", "readers", "updated_ms",
)  # fmt: skip


_MISSING = "The document store has lost it. Bring it in again with: baton ingest --again PATH"


def _note(text: str) -> None:
    print(f"baton: {text}", file=sys.stderr, flush=True)


@asynccontextmanager
async def _bus() -> AsyncIterator[Bus]:
    """A connection. Streams that are not there are made; others are left as they are."""
    from services.common import streams
    from services.common.connection import connect

    (nats,) = load([NatsSettings], ALL_SETTINGS)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                bus = await stack.enter_async_context(connect(nats, "baton-documents"))
                await streams.ensure_documents(bus)
        except TimeoutError:
            raise CannotStart(
                f"NATS cannot be reached at {nats.shown_url} (BATON_NATS_URL); is the system running?"
            ) from None
        yield bus


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


def _print_documents(documents: list[dict[str, Any]]) -> None:
    """A table as wide as the terminal; where there is none, lines of fields between tabs, with nothing cut off."""
    columns = ("id", "name", "title", "state", "passages", "readers", "changed", "error")
    rows = []
    for row in documents:
        when = datetime.fromtimestamp(row["updated_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        state = f"{row['state']} {row['done']}/{row['total']}" if row["state"] == "writing" else row["state"]
        id, readers = row["document_id"] or row["file"], ", ".join(row["readers"])
        texts = (id, row["name"], row["title"], state, str(row["passages"]), readers, when, row.get("error", ""))
        rows.append(tuple(" ".join(text.split()) for text in texts))
    console = Console()
    if not console.is_terminal:
        print(*("\t".join(texts) for texts in [columns, *rows]), sep="\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for one in rows:
        table.add_row(*(Text(text) for text in one))
    console.print(table)


def _report_map(report: Report, queued: int) -> dict[str, Any]:
    return {
        "elapsed_s": round(report.elapsed_s, 3),
        "passages": sum(outcome.passages for outcome in report.of("added", "replaced")),
        "queued": queued,
        "files": [asdict(outcome) for outcome in report.outcomes],
    }


def _print_report(report: Report, queued: int) -> None:
    written = report.of("added", "replaced")
    counts = [
        f"{len(report.of(status))} {status}"
        for status in ("added", "replaced", "unchanged", "duplicate", "skipped", "failed")
        if report.of(status)
    ]
    if queued:
        counts.append(f"{queued} queued")
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

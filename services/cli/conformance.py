"""`baton conformance`: drives a worker over NATS through what proto/README.md promises, and says what it got wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .direct import CannotReach, quiet_bus
from .options import bounded, check_writable

if TYPE_CHECKING:
    from conformance.promise import Outcome
    from conformance.running import Subject

KEPT, BROKEN, CANNOT = 0, 1, 2


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "conformance",
        help="find out whether a worker keeps what the wire contract promises",
        description="Acts as the gateway and the other stages, drives a worker of any language over NATS through what "
        "proto/README.md promises, and says in words what it got wrong. Without --nats a nats-server is started for "
        "it.",
        epilog="Exit status: 0 every promise was kept that could be tried, 1 some were broken, 2 it could not be run "
        "or nothing could be tried.",
    )
    parser.add_argument("kind", choices=("retriever", "generator", "tools"), help="what the worker is")
    parser.add_argument(
        "--nats", default="", metavar="URL", help="the NATS where the worker is, as nats://127.0.0.1:4222"
    )
    parser.add_argument(
        "--command",
        default="",
        metavar="COMMAND",
        help="start the worker so, with BATON_NATS_URL and NATS_URL set and {nats} replaced, and also kill, freeze and "
        "stop it",
    )
    parser.add_argument(
        "--set", default="default", type=_set, metavar="NAME", help="tool set of a tools worker [default]"
    )
    parser.add_argument(
        "--variant",
        default="",
        type=_variant,
        metavar="NAME",
        help="of a retriever or generator that is started as a variant, as with BATON_VARIANT=NAME [none]",
    )
    parser.add_argument(
        "--call",
        action="append",
        default=[],
        type=_call,
        metavar="NAME=JSON",
        help='a call for a tools worker, as calculator={"expression":"6*7"}; several times. One that takes a second '
        "shows more. Without any, the first tools are called with arguments made from their schemas",
    )
    parser.add_argument("--question", metavar="TEXT", help="the question to ask; one with a long answer shows more")
    parser.add_argument(
        "--restricted",
        type=_restricted,
        metavar="GROUP=ID",
        help="for a retriever: a document, by its id, that only this group may read and that the question finds",
    )
    parser.add_argument(
        "--timeout", type=bounded(1.0, 600.0), default=20.0, metavar="S", help="longest wait for the worker's part [20]"
    )
    parser.add_argument(
        "--wait", type=bounded(1.0, 3_600.0), default=60.0, metavar="S", help="longest wait for the worker to come [60]"
    )
    parser.add_argument(
        "--ack-wait",
        type=bounded(1.0, 60.0),
        metavar="S",
        help="in a nats-server of its own: make the stage's consumer before the worker does, with this ack wait; a "
        "short one is quicker, an overloaded machine needs a longer one",
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this promise; several times")
    parser.add_argument("--list", action="store_true", help="say what would be tried, and try nothing")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write the outcome there, as JUnit XML")
    parser.set_defaults(func=main)


def main(arguments: argparse.Namespace) -> int:
    from conformance.running import CannotRun
    from evaluation.running import interruptible
    from services.common.bus import Unconfirmed
    from services.common.settings import SettingsError

    subject = _subject(arguments)
    promises = subject.promises()
    if mistake := _mistake(arguments, {one.name for one in promises}):
        print(f"baton conformance: {mistake}", file=sys.stderr)
        return CANNOT
    if arguments.list:
        print(*(f"{one.name}  ({one.section})\n    {one.text}" for one in promises), sep="\n")
        return KEPT
    try:
        if arguments.junit is not None:
            check_writable(arguments.junit)
        with interruptible(), quiet_bus():
            outcomes = asyncio.run(_examined(subject))
        if arguments.junit is not None:
            _write(arguments.junit, subject.stage, outcomes)
    except (CannotRun, CannotReach, Unconfirmed, SettingsError, OSError) as error:
        print(f"baton conformance: {error}", file=sys.stderr)
        return CANNOT
    if all(one.verdict == "not seen" for one in outcomes):
        return CANNOT
    return BROKEN if any(one.verdict == "broken" for one in outcomes) else KEPT


def _mistake(arguments: argparse.Namespace, names: set[str]) -> str:
    """What is wrong with the arguments together; empty where nothing is."""
    if unknown := set(arguments.only) - names:
        return f"no promise of kind {arguments.kind} is called {', '.join(sorted(unknown))}; --list tells their names"
    if arguments.nats and arguments.ack_wait is not None:
        return "--ack-wait is for a nats-server of the kit's own: leave out --nats"
    if arguments.variant and arguments.kind == "tools":
        return "--variant is for a retriever or generator: another version of a tool set is another --set"
    for kind, option in (("tools", "call"), ("retriever", "restricted")):
        if getattr(arguments, option) and arguments.kind != kind:
            return f"--{option} is for a {kind} worker" if kind == "tools" else f"--{option} is for a {kind}"
    return ""


def _subject(arguments: argparse.Namespace) -> Subject:
    from conformance.kit import QUESTION, Options
    from conformance.running import Subject

    options = Options(
        question=arguments.question or QUESTION,
        calls=arguments.call,
        restricted=arguments.restricted,
        patience_s=arguments.timeout,
        start_s=arguments.wait,
    )
    return Subject(
        kind=arguments.kind,
        tool_set=arguments.set,
        variant=arguments.variant,
        nats=arguments.nats,
        command=arguments.command,
        ack_wait_s=arguments.ack_wait,
        only=arguments.only,
        options=options,
    )


async def _examined(subject: Subject) -> list[Outcome]:
    from conformance.report import line, summary
    from conformance.running import examine

    outcomes = await examine(
        subject, lambda outcome: print(line(outcome), flush=True), lambda text: print(text, flush=True)
    )
    print(f"\n{summary(outcomes)}")
    return outcomes


def _write(path: Path, stage: str, outcomes: list[Outcome]) -> None:
    from conformance.report import write_junit

    write_junit(path, stage, outcomes)
    print(f"written: {path}")


def _set(text: str) -> str:
    from baton_proto.subjects import tools_stage

    try:
        tools_stage(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 64 of A-Z a-z 0-9 _ -") from None
    return text


def _variant(text: str) -> str:
    from baton_proto.subjects import checked_variant

    try:
        return checked_variant(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _restricted(text: str) -> tuple[str, str]:
    group, _, document_id = text.partition("=")
    if not group or not document_id:
        raise argparse.ArgumentTypeError(f"{text!r} is not GROUP=ID")
    return group, document_id


def _call(text: str) -> tuple[str, dict[str, Any]]:
    name, _, arguments = text.partition("=")
    try:
        value = json.loads(arguments or "{}")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the arguments are not JSON ({error})") from None
    if not name or not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME={{…}}")
    return name, value

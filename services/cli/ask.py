"""`baton ask "…"`: one question over the gateway's WebSocket, answered in the terminal."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any
from urllib.parse import urlsplit

from baton_proto.messages import MAX_QUERY_BYTES, REQUEST_ID_PATTERN

DEFAULT_URL = "ws://127.0.0.1:8000/ws"
DONE, FAILED, USAGE, NO_CONNECTION = 0, 1, 2, 3
CHINESE = re.compile(r"[\u3400-\u9fff]")


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "ask",
        help="ask a question and watch the answer come",
        description="Asks a question. In a terminal the steps and the answer appear as they happen; in a pipe the "
        "answer is plain text. A lost connection is made again, and the answer goes on where it was. Ctrl-C stops it.",
        epilog="Exit status: 0 answered, 1 the server gave an error, 2 wrong arguments, 3 no connection, 130 stopped.",
    )
    parser.add_argument("question", nargs="+", help="the question; - reads it from standard input")
    parser.add_argument(
        "--url",
        action="append",
        help=f"the gateway's WebSocket (default: {DEFAULT_URL}); may be given several times, or several separated by "
        "commas: then each new try goes to the next one",
    )
    parser.add_argument(
        "--give-up-after",
        type=_bounded(0, 86_400),
        default=600,
        metavar="S",
        help="seconds to try to come back when the connection is lost (default: %(default)s)",
    )
    parser.add_argument("--token", default="", help="token for a gateway that wants one")
    parser.add_argument("--language", choices=("zh", "en"), help="language of the steps (default: the question's)")
    parser.add_argument("--conversation", metavar="ID", help="continue a conversation")
    parser.add_argument("--top-k", type=_bounded(1, 50), metavar="N", help="most passages to retrieve (1 to 50)")
    parser.add_argument(
        "--deadline-ms", type=_bounded(1_000, 600_000), metavar="MS", help="most time for the answer (1000 to 600000)"
    )
    parser.add_argument("--json", action="store_true", help="print each frame as a line of JSON, as received")
    parser.set_defaults(func=main)


def main(arguments: argparse.Namespace) -> int:
    import asyncio

    from .conversation import CannotConnect, NobodyReads, converse

    question = " ".join(arguments.question)
    question = (sys.stdin.read() if question == "-" else question).strip()
    arguments.url = _urls(arguments.url)
    if problem := _problem(question, arguments):
        print(f"baton ask: {problem}", file=sys.stderr)
        return USAGE
    wishes = {
        "language": arguments.language,
        "conversation_id": arguments.conversation,
        "top_k": arguments.top_k,
        "deadline_ms": arguments.deadline_ms,
    }
    query = {"query": question, **{name: value for name, value in wishes.items() if value is not None}}
    try:
        display = _display(question, arguments)
        return asyncio.run(converse(arguments.url, arguments.token, query, display, arguments.give_up_after))
    except CannotConnect as error:
        print(f"baton ask: {error}", file=sys.stderr)
        return NO_CONNECTION
    except NobodyReads:
        raise BrokenPipeError from None


def _urls(given: list[str] | None) -> list[str]:
    """All gateways that were named, in order."""
    return [url.strip() for some in given or [] for url in some.split(",") if url.strip()] or [DEFAULT_URL]


def _problem(question: str, arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments; empty if nothing is."""
    if not question:
        return "the question is empty"
    if len(question.encode(errors="replace")) > MAX_QUERY_BYTES:
        return f"the question is longer than {MAX_QUERY_BYTES} bytes"
    for url in arguments.url:
        if urlsplit(url).scheme not in ("ws", "wss") or not urlsplit(url).hostname:
            return f"--url {url}: expected something like {DEFAULT_URL}"
    if arguments.conversation is not None and not re.match(REQUEST_ID_PATTERN, arguments.conversation):
        return "--conversation: 1 to 64 letters, digits, - or _"
    return ""


def _display(question: str, arguments: argparse.Namespace) -> Any:
    from .display import JsonLines, Live, Plain

    language = arguments.language or ("zh" if CHINESE.search(question) else "en")
    origin = arguments.url[0].replace("ws", "http", 1)
    if arguments.json:
        return JsonLines(sys.stdout)
    if sys.stdout.isatty():
        return Live(language, origin)
    return Plain(sys.stdout, sys.stderr, language, origin)


def _bounded(least: int, most: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not from {least} to {most}")
        return value

    return number

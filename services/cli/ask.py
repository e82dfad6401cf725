"""`baton ask "…"`: one question over the gateway's WebSocket, answered in the terminal."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from baton_proto.messages import MAX_QUERY_BYTES

from .options import (
    NO_CONNECTION,
    USAGE,
    add_gateway_options,
    add_question_options,
    problem_with_conversation,
    problem_with_urls,
    urls_of,
    wishes_of,
)

CHINESE = re.compile(r"[\u3400-\u9fff]")


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "ask",
        help="ask a question and watch the answer come",
        description="Asks a question. In a terminal the steps and the answer appear as they happen; in a pipe the "
        "answer is plain text. A lost connection is made again, and the answer goes on where it was. Ctrl-C stops it. "
        "It tells the conversation's id, with which another question can go on.",
        epilog="Exit status: 0 answered, 1 the server gave an error, 2 wrong arguments, 3 no connection, 130 stopped.",
    )
    parser.add_argument("question", nargs="+", help="the question; - reads it from standard input")
    add_gateway_options(parser)
    add_question_options(parser)
    parser.set_defaults(func=main)


def main(arguments: argparse.Namespace) -> int:
    import asyncio

    from .conversation import CannotConnect, NobodyReads, converse

    question = " ".join(arguments.question)
    question = (sys.stdin.read() if question == "-" else question).strip()
    arguments.url = urls_of(arguments.url)
    if problem := problem_with(question, arguments):
        print(f"baton ask: {problem}", file=sys.stderr)
        return USAGE
    query = {"query": question, **wishes_of(arguments)}
    try:
        display = display_for(question, arguments)
        return asyncio.run(converse(arguments.url, arguments.token, query, display, arguments.give_up_after))
    except CannotConnect as error:
        print(f"baton ask: {error}", file=sys.stderr)
        return NO_CONNECTION
    except NobodyReads:
        raise BrokenPipeError from None


def problem_with(question: str, arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments; empty if nothing is."""
    if not question:
        return "the question is empty"
    if len(question.encode(errors="replace")) > MAX_QUERY_BYTES:
        return f"the question is longer than {MAX_QUERY_BYTES} bytes"
    return problem_with_urls(arguments.url) or problem_with_conversation(arguments.conversation)


def display_for(question: str, arguments: argparse.Namespace, *, go_on: bool = True) -> Any:
    """Where the answer is shown. `go_on`: tell how the conversation can be gone on with."""
    from .display import JsonLines, Live, Plain

    language = arguments.language or ("zh" if CHINESE.search(question) else "en")
    origin = arguments.url[0].replace("ws", "http", 1)
    if arguments.json:
        return JsonLines(sys.stdout)
    if sys.stdout.isatty():
        return Live(language, origin, go_on=go_on)
    return Plain(sys.stdout, sys.stderr, language, origin, go_on=go_on)

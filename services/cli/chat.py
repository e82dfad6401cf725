"""`baton chat`: question after question in one conversation."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from .ask import display_for, problem_with
from .options import (
    DONE,
    FAILED,
    NO_CONNECTION,
    USAGE,
    add_gateway_options,
    add_question_options,
    problem_with_conversation,
    problem_with_urls,
    urls_of,
    wishes_of,
)

PROMPT = "> "
INTERRUPTED = 130


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "chat",
        help="ask question after question in one conversation",
        description="Asks each line that it reads, in one conversation, so that a question may refer to those before. "
        "Ctrl-C stops an answer, Ctrl-D (or the end of the input) ends the chat, and then it tells the conversation's "
        "id.",
        epilog="Exit status: 0 all were answered, 1 some were not, 2 wrong arguments, 3 no connection, 130 stopped at "
        "the prompt.",
    )
    add_gateway_options(parser)
    add_question_options(parser)
    parser.set_defaults(func=main)


def main(arguments: argparse.Namespace) -> int:
    arguments.url = urls_of(arguments.url)
    if problem := problem_with_urls(arguments.url) or problem_with_conversation(arguments.conversation):
        print(f"baton chat: {problem}", file=sys.stderr)
        return USAGE
    try:
        return _chat(arguments)
    finally:
        if arguments.conversation:
            print(
                f"Conversation {arguments.conversation}: baton chat --conversation {arguments.conversation}",
                file=sys.stderr,
            )


def _chat(arguments: argparse.Namespace) -> int:
    """Until the input ends. `arguments.conversation` is set to the conversation's id."""
    from .answer import Answer
    from .conversation import CannotConnect, NobodyReads, converse, new_request_id

    status = DONE
    for question in _questions():
        if problem := problem_with(question, arguments):
            print(f"baton chat: {problem}", file=sys.stderr)
            status = FAILED
            continue
        answer = Answer(new_request_id())
        query = {"query": question, **wishes_of(arguments)}
        display = display_for(question, arguments, go_on=False)
        try:
            outcome = asyncio.run(
                converse(arguments.url, arguments.token, query, display, arguments.give_up_after, answer)
            )
        except CannotConnect as error:
            print(f"baton chat: {error}", file=sys.stderr)
            return NO_CONNECTION
        except NobodyReads:
            raise BrokenPipeError from None
        arguments.conversation = answer.conversation_id or arguments.conversation
        if outcome not in (DONE, INTERRUPTED):
            status = FAILED
    return status


def _questions() -> Iterator[str]:
    """Each line that is not empty; in a terminal with a prompt, and with the keys that edit a line."""
    in_terminal = sys.stdin.isatty()
    if in_terminal:
        with contextlib.suppress(ImportError):  # not everywhere
            import readline  # noqa: F401
    while True:
        try:
            line = input(PROMPT) if in_terminal else sys.stdin.readline()
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            print(file=sys.stderr)
            raise
        if not in_terminal and not line:
            return
        if line.strip():
            yield line.strip()

"""What the commands that talk to a gateway have in common: where it is, and what may be asked for with a question."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from baton_proto.messages import REQUEST_ID_PATTERN

DEFAULT_URL = "ws://127.0.0.1:8000/ws"
DONE, FAILED, USAGE, NO_CONNECTION = 0, 1, 2, 3


def add_gateway_options(parser: argparse.ArgumentParser, *, default: Any = None) -> None:
    """`--url` and `--token`. `default` is for both: `argparse.SUPPRESS` where a command above has them too."""
    parser.add_argument(
        "--url",
        action="append",
        default=default,
        help=f"the gateway's WebSocket or page (default: {DEFAULT_URL}); several times, or several by "
        "commas: then each new try goes to the next one",
    )
    parser.add_argument("--token", default=default or "", help="token for a gateway that wants one")


def add_question_options(parser: argparse.ArgumentParser) -> None:
    """What goes with a question. `wishes_of` reads it."""
    parser.add_argument(
        "--give-up-after",
        type=bounded(0, 86_400),
        default=600,
        metavar="S",
        help="seconds to try to come back when the connection is lost (default: %(default)s)",
    )
    parser.add_argument("--language", choices=("zh", "en"), help="language of the steps (default: the question's)")
    parser.add_argument("--conversation", metavar="ID", help="continue a conversation")
    parser.add_argument(
        "--if-busy",
        choices=("reject", "enqueue", "interrupt"),
        help="what to do while another question of the conversation runs: give up (the default), wait for its end, or "
        "stop it",
    )
    parser.add_argument("--no-cache", action="store_true", help="have it answered afresh")
    parser.add_argument("--top-k", type=bounded(1, 50), metavar="N", help="most passages to retrieve (1 to 50)")
    parser.add_argument(
        "--deadline-ms", type=bounded(1_000, 600_000), metavar="MS", help="most time for the answer (1000 to 600000)"
    )
    sampling = parser.add_argument_group("sampling", "How the model should sample; the server's settings otherwise.")
    sampling.add_argument("--seed", type=bounded(0, 2**53), metavar="N", help="the same seed, the same answer")
    sampling.add_argument("--temperature", type=bounded(0.0, 2.0), metavar="T", help="0 to 2")
    sampling.add_argument("--top-p", type=_top_p, metavar="P", help="over 0, at most 1")
    sampling.add_argument("--max-tokens", type=bounded(1, 32_768), metavar="N", help="most tokens of the answer")
    parser.add_argument("--json", action="store_true", help="print each frame as a line of JSON, as received")


def wishes_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of a `query` that were asked for."""
    wishes = {
        "language": arguments.language,
        "conversation_id": arguments.conversation,
        "if_busy": arguments.if_busy,
        "cache": False if arguments.no_cache else None,
        "top_k": arguments.top_k,
        "deadline_ms": arguments.deadline_ms,
        "seed": arguments.seed,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "max_tokens": arguments.max_tokens,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def urls_of(given: list[str] | None) -> list[str]:
    """All gateways that were named, in order."""
    return [socket_url(url) for some in given or [] for url in some.split(",") if url.strip()] or [DEFAULT_URL]


def socket_url(url: str) -> str:
    """A gateway's WebSocket, also where the address of its page is given."""
    scheme, separator, rest = url.strip().partition("://")
    if separator and scheme in ("http", "https"):
        return f"{scheme.replace('http', 'ws')}://{rest.rstrip('/').removesuffix('/ws')}/ws"
    return url.strip()


def is_local(url: str) -> bool:
    """Whether it names this machine: to it no proxy of the environment leads."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def problem_with_urls(urls: list[str]) -> str:
    """What is wrong with them; empty if nothing is."""
    for url in urls:
        if urlsplit(url).scheme not in ("ws", "wss") or not urlsplit(url).hostname:
            return f"--url {url}: expected something like {DEFAULT_URL}"
    return ""


def problem_with_conversation(conversation: str | None, name: str = "--conversation") -> str:
    if conversation is not None and not re.match(REQUEST_ID_PATTERN, conversation):
        return f"{name}: 1 to 64 letters, digits, - or _"
    return ""


def bounded(least: float, most: float) -> Any:
    """A type for numbers of the type of `least`, within bounds."""
    kind = type(least)

    def number(text: str) -> float:
        value: float = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not from {least} to {most}")
        return value

    return number


def check_writable(path: Path) -> None:
    """Raises OSError where no file can be written: before the work, and not after it."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a"):
        pass
    if new:
        path.unlink()


def _top_p(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not over 0 and at most 1")
    return value

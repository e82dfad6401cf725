"""`baton conversations`: list, show and delete conversations, over the gateway's HTTP addresses."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from .options import (
    DONE,
    FAILED,
    NO_CONNECTION,
    USAGE,
    add_gateway_options,
    is_local,
    problem_with_conversation,
    problem_with_urls,
    urls_of,
)

TIMEOUT_S = 15.0


class _Refused(Exception):
    """The gateway's answer was an error; the text says which."""


class _CannotConnect(Exception):
    """No gateway answers; the text says where and why."""


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "conversations",
        help="list, show or delete conversations",
        description="Lists the conversations of the token's user, the newest first.",
        epilog="Exit status: 0 done, 1 the gateway gave an error, 2 wrong arguments, 3 no connection, 130 stopped.",
    )
    add_gateway_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=main, do=_list, id=None)
    actions = parser.add_subparsers(title="with one of them", metavar="ACTION")
    for name, do, text in (
        ("show", _show, "show its questions and answers with their sources"),
        ("delete", _delete, "delete it for good, with its answers and their logs"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        action.add_argument("id", metavar="ID")
        add_gateway_options(action, default=argparse.SUPPRESS)
        if do is _delete:
            action.add_argument("--yes", action="store_true", help="do not ask first")
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        action.set_defaults(do=do)


def main(arguments: argparse.Namespace) -> int:
    arguments.url = urls_of(arguments.url)
    problem = problem_with_urls(arguments.url) or problem_with_conversation(arguments.id, "ID")
    status = USAGE
    if not problem:
        do: Callable[[argparse.Namespace], int] = arguments.do
        try:
            return do(arguments)
        except _Refused as error:
            problem, status = str(error), FAILED
        except _CannotConnect as error:
            problem, status = str(error), NO_CONNECTION
    print(f"baton conversations: {problem}", file=sys.stderr)
    return status


def _list(arguments: argparse.Namespace) -> int:
    found = _request(arguments, "GET", "conversations")["conversations"]
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    elif found:
        from .conversation_lines import print_list

        print_list(found)
    else:
        print('No conversations yet. Begin one with: baton ask "…"')
    return DONE


def _show(arguments: argparse.Namespace) -> int:
    found = _request(arguments, "GET", f"conversations/{arguments.id}")
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        from .conversation_lines import conversation_lines

        print("\n".join(conversation_lines(found, _origin(arguments.url[0]))))
    return DONE


def _delete(arguments: argparse.Namespace) -> int:
    if not arguments.yes:
        if not sys.stdin.isatty():
            print("baton conversations: nobody is here to ask; --yes deletes without asking", file=sys.stderr)
            return USAGE
        found = _request(arguments, "GET", f"conversations/{arguments.id}")
        from .display import printable

        title = " ".join(printable(str(found["title"])).split())
        if input(f"Delete “{title}” ({len(found['turns'])} questions) for good? [y/N] ").strip().lower() not in (
            "y",
            "yes",
        ):
            print("Nothing was deleted.")
            return DONE
    _request(arguments, "DELETE", f"conversations/{arguments.id}")
    print(json.dumps({"deleted": arguments.id}) if arguments.json else f"Deleted {arguments.id}.")
    return DONE


def _request(arguments: argparse.Namespace, method: str, path: str) -> Any:
    """What the first gateway that can be reached says.

    Raises:
        _Refused, _CannotConnect
    """
    import httpx

    headers = {"Authorization": f"Bearer {arguments.token}"} if arguments.token else {}
    problem = ""
    for url in arguments.url:
        try:
            with httpx.Client(timeout=TIMEOUT_S, trust_env=not is_local(url)) as client:
                return _answer(client.request(method, urljoin(_origin(url), path), headers=headers))
        except httpx.HTTPError as error:
            problem = problem or f"no connection to {url}: {error or type(error).__name__}"
    raise _CannotConnect(f"{problem}. Is Baton running? `make run` starts it.")


def _answer(response: Any) -> Any:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        raise _Refused(f"HTTP {response.status_code}; is that a gateway of this version?")
    hint = "; give a valid token with --token" if response.status_code == 401 else ""
    raise _Refused(f"{error.get('code')}: {error.get('message')}{hint}")


def _origin(url: str) -> str:
    """`wss://example.org/baton/ws` is beside `https://example.org/baton/conversations`."""
    return urljoin(url.replace("ws", "http", 1), ".")

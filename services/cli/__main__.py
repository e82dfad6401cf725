"""`baton`, the command line. Each command is a module with `register(subparsers)`, which sets its parser's `func`: it
takes the parsed arguments and returns the exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = ("ask", "chat", "conversations", "ingest", "eval", "run", "log", "work", "conformance")
"""Modules of this package, in the order of `baton --help`. They import what is heavy only when they are used."""

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status. Expected failures are told in a sentence, never as a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.func(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (`baton … | head`) has gone; Python must not try to flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="baton", description="Answers over your documents, every step visible.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"services.cli.{name}").register(subparsers)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"baton {version('baton')}")
        except PackageNotFoundError:
            print("baton (from source, not installed)")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())

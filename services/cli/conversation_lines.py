"""Conversations as lines of text. No I/O but the table of the list."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .answer import Answer
from .display import WORDS, closing_words, printable, source_lists

FINISHED = ("stop", "length", "cancelled", "content_filter")


def print_list(found: list[dict[str, Any]]) -> None:
    """A table as wide as the terminal; where there is none, lines of fields between tabs, with nothing cut off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = ("id", "title", "questions", "updated", "running")
    rows = [
        (
            str(each["conversation_id"]),
            _one_line(each["title"]),
            str(each["turns"]),
            when(each["updated_ms"]),
            str(each["running"] or ""),
        )
        for each in found
    ]
    console = Console()
    if not console.is_terminal:
        print(*("\t".join(row) for row in [columns, *rows]), sep="\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "updated"))
    for row in rows:
        table.add_row(*(Text(field) for field in row))
    console.print(table)


def conversation_lines(found: dict[str, Any], origin: str) -> list[str]:
    """The questions and answers, each answer with the sources it cites and those it does not."""
    lines = [f"{_one_line(found['title'])}  ({found['conversation_id']}, {when(found['created_ms'])})"]
    if found.get("dropped"):
        lines.append(f"({found['dropped']} earlier questions are no longer kept)")
    for turn in found["turns"]:
        lines += ["", *_turn_lines(turn, origin)]
    for request_id in found.get("running", []):
        lines += ["", f"({request_id} is being answered, or waits)"]
    return lines


def _turn_lines(turn: dict[str, Any], origin: str) -> list[str]:
    answer = kept_answer(turn)
    lines = [f"> {line}" for line in printable(turn["query"]).split("\n")]
    if turn.get("standalone"):
        lines.append(f"  (understood as: {_one_line(turn['standalone'])})")
    if answer.text:
        lines += ["", printable(answer.text)]
    for heading, some in source_lists(answer, WORDS["en"], origin):
        lines += ["", heading, *some]
    closing, _ = closing_words(answer, WORDS["en"])
    return [*lines, "", closing] if closing else lines


def kept_answer(turn: dict[str, Any]) -> Answer:
    """A kept turn as the answer that it was."""
    answer = Answer(turn["request_id"], text=turn.get("answer") or "", sources=turn.get("sources") or [])
    outcome = turn["outcome"]
    if outcome in FINISHED:
        answer.end = {"type": "done", "finish_reason": outcome, "cited": turn.get("cited") or []}
    else:
        answer.end = {"type": "error", "code": outcome, "message": "there is no answer"}
    return answer


def when(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _one_line(text: str) -> str:
    return " ".join(printable(str(text)).split())

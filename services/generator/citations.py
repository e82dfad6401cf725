"""Checks the citations in an answer while it streams: no I/O, and nothing is held back but a mark that may be one.

A mark is a pair of brackets around numbers of at most three digits: `[1]`, `[1, 2]`, `[1-3]`, `【1】`, with ASCII or
full-width brackets and digits. It is rewritten as `[1][2]`; numbers that were not offered are dropped and counted, and
where nothing of a mark is left, the blank before it goes too. Everything else passes unchanged, also longer numbers in
brackets: `国发[2024]12号` is a document's number, not a citation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from baton_proto.messages import Citation

MAX_MARK_CHARS = 40
"""A bracket that is not closed after so many characters is text."""
MAX_DIGITS = 3
_MAX_NESTED = 3
_MAX_RANGE = 20

_CLOSERS = {"[": "]", "【": "】", "［": "］"}
_OPENER = re.compile(r"[\[【［]")
_START = re.compile(r"[\[【［]| \Z| (?=[\[【［])")
_INSIDE = frozenset("0123456789０１２３４５６７８９ \t\u3000\xa0,，、;；-–—~～")
_TO_ASCII = str.maketrans("０１２３４５６７８９，、；;–—~～\t\u3000\xa0", "0123456789,,,,----   ")
_SOURCE_MARK = re.compile(r"[\[【［]\s*([\d０-９][\d０-９\s,，、;；\-–—~～]*)[\]】］]")


def without_marks(text: str) -> str:
    """Source text whose own bracketed numbers cannot be taken for citations: `[3]` becomes `(3)`."""
    return _SOURCE_MARK.sub(lambda mark: f"({mark[1].strip()})", text)


class CitationChecker:
    """Takes an answer in pieces and gives it back checked; how it was split makes no difference.

    `cited` lists the numbers in order of first use; `citations` says where in the returned text each `[n]` stands;
    `dropped` counts numbers that were not offered.

    Args:
        offered: the numbers that may be cited.
    """

    def __init__(self, offered: Iterable[int]) -> None:
        self.cited: list[int] = []
        self.citations: list[Citation] = []
        self.dropped = 0
        self.length = 0
        self.offer(offered)
        # What may turn out to be a mark: for each open bracket the text from it on. Brackets inside brackets are kept
        # apart because dropping the inner mark must not make a new one of what surrounds it.
        self._open: list[str] = []
        self._blank = ""
        self._out: list[str] = []

    def offer(self, numbers: Iterable[int]) -> None:
        """From here on these numbers may be cited."""
        self._offered = frozenset(numbers)

    def feed(self, text: str) -> str:
        """The text that is now certain. At most `MAX_MARK_CHARS` characters for each open bracket stay behind."""
        at = 0
        while at < len(text):
            if self._open:
                self._inside(text[at])
                at += 1
                continue
            found = _START.search(text, at)
            end = found.start() if found else len(text)
            if end > at:
                self._emit(self._take_blank() + text[at:end])
            if found is None:
                break
            self._outside(text[end])
            at = end + 1
        return self._taken()

    def flush(self) -> str:
        """The rest, at the end of a turn: a mark that was never closed is text."""
        self._give_up()
        self._emit(self._take_blank())
        return self._taken()

    def _outside(self, char: str) -> None:
        if char == " ":
            self._emit(self._take_blank())
            self._blank = char
        else:
            self._open.append(char)

    def _inside(self, char: str) -> None:
        mark = self._open[-1]
        if char == _CLOSERS[mark[0]]:
            self._close(mark[1:], mark + char)
        elif char in _CLOSERS:
            if len(self._open) < _MAX_NESTED:
                self._open.append(char)
        elif char in _INSIDE and len(mark) < MAX_MARK_CHARS:
            self._open[-1] = mark + char
        else:
            self._give_up()
            if char == " ":
                self._blank = char
            else:
                self._emit(char)

    def _close(self, inner: str, mark: str) -> None:
        numbers = _numbers(inner)
        if numbers is None:
            self._open[-1] = mark
            self._give_up()
            return
        kept = [number for number in numbers if number in self._offered]
        self.dropped += len(numbers) - len(kept)
        self._open.pop()
        if kept:
            self._give_up()
            self._emit(self._take_blank())
            for number in kept:
                self._cite(number)
        elif self._open:
            self._open[-1] = self._open[-1].removesuffix(" ")
        else:
            self._blank = ""

    def _cite(self, number: int) -> None:
        mark = f"[{number}]"
        self.citations.append(Citation(n=number, start=self.length, end=self.length + len(mark)))
        if number not in self.cited:
            self.cited.append(number)
        self._emit(mark)

    def _give_up(self) -> None:
        """What is held is text after all."""
        if self._open:
            held, self._open = "".join(self._open), []
            self._emit(self._take_blank() + held)

    def _take_blank(self) -> str:
        blank, self._blank = self._blank, ""
        return blank

    def _emit(self, text: str) -> None:
        if text:
            self.length += len(text)
            self._out.append(text)

    def _taken(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text


def _numbers(inner: str) -> list[int] | None:
    """The numbers between a mark's brackets, without repetition, or None where it is no mark."""
    found: list[int] = []
    for part in re.split(r"[,\s]+", re.sub(r"\s*-\s*", "-", inner.translate(_TO_ASCII)).strip(" ,")):
        ends = part.split("-")
        if len(ends) > 2 or not all(end.isdecimal() and len(end) <= MAX_DIGITS for end in ends):
            return None
        first, last = int(ends[0]), int(ends[-1])
        if last - first > _MAX_RANGE or last < first:
            return None
        found.extend(range(first, last + 1))
    return list(dict.fromkeys(found))

"""A document's text as HTML that can do no harm, with a passage of it marked.

All offsets are characters of the text that is given. Nothing in a text becomes markup: Markdown is read without HTML,
and what comes out of it is cleaned again.
"""

from __future__ import annotations

import html
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Characters that no text should hold (Unicode's noncharacters), to carry a passage's edges through a paragraph."""
_AS_LINES = str.maketrans({"\r": "\n", "\0": "\ufffd", OPEN: "\ufffd", CLOSE: "\ufffd"})
_ALLOWED = {**nh3.ALLOWED_ATTRIBUTES, "mark": {"id"}}
_PASSAGE = "passage"


@dataclass(frozen=True, slots=True)
class Span:
    """The characters `[start, end)`."""

    start: int
    end: int

    def within(self, start: int, end: int) -> Span:
        """What of it lies in `[start, end)`, counted from there; empty where nothing does."""
        first, last = max(self.start, start), min(self.end, end)
        return Span(first - start, max(first, last) - start)

    def __bool__(self) -> bool:
        return self.start < self.end


NOTHING = Span(0, 0)


def marked_plain(text: str, span: Span = NOTHING, *, first: bool = True) -> str:
    """Plain text as HTML; `first` tells whether this is where to scroll to."""
    return f"<pre>{_marked_text(text, span, first=first)}</pre>"


def marked_markdown(text: str, span: Span = NOTHING, *, first: bool = True) -> str:
    """Markdown as HTML: the passage exactly within paragraphs, by lines in tables and code."""
    text = text.replace("\r\n", " \n").translate(_AS_LINES)
    marking = _Marking(text, span, first)
    markdown = _markdown()
    environment: dict[str, object] = {}
    tokens = markdown.parse(text, environment)
    if span:
        tokens = list(marking.tokens(tokens, markdown, environment))
    return nh3.clean(markdown.renderer.render(tokens, markdown.options, environment), attributes=_ALLOWED)


def _marked_text(text: str, span: Span, *, first: bool) -> str:
    before, inside, after = text[: span.start], text[span.start : span.end], text[span.end :]
    if not span:
        return html.escape(text)
    name = f' id="{_PASSAGE}"' if first else ""
    return f"{html.escape(before)}<mark{name}>{html.escape(inside)}</mark>{html.escape(after)}"


def _markdown() -> MarkdownIt:
    # An image would be loaded from elsewhere, which tells somebody that the document was read.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    markdown.add_render_rule("marked_code", _render_code)
    return markdown


def _render_code(_: object, tokens: list[Token], at: int, *__: object) -> str:
    token = tokens[at]
    span = Span(token.meta["start"], token.meta["end"])
    return f"<pre><code>{_marked_text(token.content, span, first=token.meta['first'])}</code></pre>\n"


@dataclass(slots=True)
class _Marking:
    """Puts `mark` elements around what of a document's tokens lies in the passage."""

    text: str
    span: Span
    first: bool
    starts: list[int] = field(init=False)
    in_row: bool = False

    def __post_init__(self) -> None:
        self.starts = [0, *(at + 1 for at, char in enumerate(self.text) if char == "\n")]

    def tokens(self, tokens: list[Token], markdown: MarkdownIt, environment: dict[str, object]) -> Iterator[Token]:
        for token in tokens:
            if token.type in ("tr_open", "tr_close"):
                self.in_row = token.type == "tr_open"
            if token.type in ("fence", "code_block") and (part := self._part(token, int(token.type == "fence"))):
                token.type, token.meta = "marked_code", {"start": part.start, "end": part.end, "first": self._id()}
            elif token.type == "inline" and token.content and (part := self._part(token, 0)):
                self._inline(token, part, markdown, environment)
            yield token

    def _part(self, token: Token, skipped: int) -> Span:
        """What of a token's content lies in the passage. `skipped` lines of its own come before the content."""
        if token.map is None:
            return NOTHING
        first, end = token.map
        if self.in_row:  # cells are taken with their row
            whole = self.span.within(self._start(first), self._start(end))
            return Span(0, len(token.content)) if whole else NOTHING
        inside: list[int] = []
        position = 0
        for number, line in enumerate(token.content.split("\n"), first + skipped):
            if number >= end:
                break
            start = self._start(number)
            source = self.text[start : self._start(number + 1)]
            start += max(0, source.rfind(line.rstrip()))
            part = self.span.within(start, start + len(line))
            if part:
                inside += [position + part.start, position + part.end]
            position += len(line) + 1
        return Span(inside[0], inside[-1]) if inside else NOTHING

    def _start(self, line: int) -> int:
        return self.starts[line] if line < len(self.starts) else len(self.text)

    def _inline(self, token: Token, part: Span, markdown: MarkdownIt, environment: dict[str, object]) -> None:
        content = token.content
        if content[: part.start].strip() or content[part.end :].strip():
            signed = content[: part.start] + OPEN + content[part.start : part.end] + CLOSE + content[part.end :]
            children: list[Token] = []
            markdown.inline.parse(signed, markdown, environment, children)
            text = "".join(child.content for child in children)
            if text.count(OPEN) == text.count(CLOSE) == 1:
                token.children = list(self._runs(children))
                return
            # An edge has come to lie within an address: then rather the whole paragraph.
        token.children = [self._open(), *(token.children or []), Token("mark_close", "mark", -1)]

    def _runs(self, children: list[Token]) -> Iterator[Token]:
        """Each run of text between the signs in a `mark` of its own, so that elements stay properly nested."""
        marking = False
        for child in children:
            pieces = list(_pieces(child.content))
            if child.type != "text":
                inside = marking or OPEN in pieces
                for sign in pieces:
                    marking = sign == OPEN if sign in (OPEN, CLOSE) else marking
                child.content = child.content.replace(OPEN, "").replace(CLOSE, "")
                yield from self._wrapped(child) if inside and child.type == "code_inline" else [child]
                continue
            for piece in pieces:
                if piece in (OPEN, CLOSE):
                    marking = piece == OPEN
                    continue
                run = Token("text", "", 0, content=piece)
                yield from self._wrapped(run) if marking else [run]

    def _wrapped(self, token: Token) -> Iterator[Token]:
        yield self._open()
        yield token
        yield Token("mark_close", "mark", -1)

    def _open(self) -> Token:
        return Token("mark_open", "mark", 1, attrs={"id": _PASSAGE} if self._id() else {})

    def _id(self) -> bool:
        """Whether this is where to scroll to: once."""
        first, self.first = self.first, False
        return first


def _pieces(text: str) -> Iterator[str]:
    """The text before, between and after the signs, and the signs themselves."""
    while (at := min((text.find(sign) for sign in (OPEN, CLOSE) if sign in text), default=-1)) >= 0:
        if at:
            yield text[:at]
        yield text[at]
        text = text[at + 1 :]
    if text:
        yield text


def parts(text: str, passages: tuple[tuple[int, int], ...], limit: int) -> list[int]:
    """Where the parts of a long text start: none longer than `limit`, each at a passage where that can be."""
    places = sorted({start for start, _ in passages if 0 < start < len(text)})
    found = [0]
    while len(text) - found[-1] > limit:
        at = bisect_right(places, found[-1] + limit)
        place = places[at - 1] if at else 0
        found.append(place if place > found[-1] else found[-1] + limit)
    return found

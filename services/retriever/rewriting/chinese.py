"""The rule for Chinese: what a follow-up lacks, and how it is joined with the question before."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from . import chinese_forms as forms
from .chinese_words import LONGEST, NEEDS_OBJECT, THINGS, WORDS
from .pieces import Kind, Piece, has, of, replaced

_MAX_SUBJECT = 4
_LASTING = frozenset({"kin"})
_MAX_FRAGMENT = 16


def join(text: str, before: str) -> str | None:
    """`text` with what it takes from `before`; None where it stands alone."""
    if forms.COURTESY.fullmatch(text) or forms.ALONE.search(text):
        return None
    if forms.MORE.fullmatch(text):
        return before
    connective = forms.CONNECTIVE.match(text)
    said = text[connective.end() :] if connective else text
    if not said.strip("呢?？。 "):
        return before
    fragment = _fragment(said, bool(connective))
    if fragment:
        return _with_fragment(fragment, before)
    pieces = cut(said)
    return _with_subject(said, pieces, before) if _lacks_subject(said, pieces, bool(connective)) else None


def join_subject(text: str, words: str) -> str | None:
    """As `join`, where the question before was in another language: all there is of it is what it was about."""
    connective = forms.CONNECTIVE.match(text)
    said = text[connective.end() :] if connective else text
    if not words or forms.COURTESY.fullmatch(text) or forms.ALONE.search(text) or _fragment(said, bool(connective)):
        return None
    return f"{words} {said}" if _lacks_subject(said, cut(said), bool(connective)) else None


def subject(text: str) -> str:
    """What a question is about, in its own words."""
    return _subject(text, cut(text))


def cut(text: str) -> list[Piece]:
    """The question in pieces: the longest word that a list knows at each place, and topics in between."""
    pieces: list[Piece] = []
    at = 0
    while at < len(text):
        piece = _amount(text, at) or _word(text, at) or _latin(text, at)
        blank = forms.SPACE.match(text, at) if piece is None else None
        if blank:
            at = blank.end()
            continue
        piece = piece or Piece(Kind.TOPIC, at, at + 1)
        last = pieces[-1] if pieces else None
        if last is not None and last.end == piece.start and _one_topic(last, piece):
            pieces[-1] = Piece(Kind.TOPIC, last.start, piece.end)
        else:
            pieces.append(piece)
        at = piece.end
    return pieces


def _one_topic(last: Piece, piece: Piece) -> bool:
    """Whether two pieces are one word: two unknown characters, an action of one character beside one (停车, 餐补), or
    加班 and 费."""
    single = piece.end - piece.start == 1
    if piece.kind is Kind.ASPECT:
        return single and last.kind is Kind.TOPIC
    if piece.kind is not Kind.TOPIC:
        return False
    if last.kind is Kind.ASPECT:
        return last.end - last.start == 1
    return last.kind is Kind.TOPIC or (last.kind is Kind.EVENT and last.end - last.start > 1 and single)


def _word(text: str, at: int) -> Piece | None:
    for length in range(min(LONGEST, len(text) - at), 0, -1):
        known = WORDS.get(text[at : at + length])
        if known is not None:
            return Piece(known[0], at, at + length, known[1])
    return None


def _amount(text: str, at: int) -> Piece | None:
    found = forms.AMOUNT.match(text, at)
    return Piece(Kind.CONDITION, at, found.end(), "amount") if found else None


def _latin(text: str, at: int) -> Piece | None:
    found = forms.LATIN.match(text, at)
    return Piece(Kind.TOPIC, at, found.end()) if found else None


def _fragment(said: str, connective: bool) -> str:
    """What a question that is no whole question names: 病假 of 那病假呢?; empty where it is a whole one."""
    tail = forms.STRONG.search(said) or forms.WEAK.search(said)
    assert tail is not None
    marked = connective or tail.re is forms.STRONG
    named = forms.ABOUT.sub("", said[: tail.start()], count=1) if marked else said[: tail.start()]
    named = named.strip("，, ").removesuffix("的").removesuffix("也")
    if not named or len(named) > _MAX_FRAGMENT or forms.ASKS.search(named + "?"):
        return ""
    pieces = cut(named)
    if marked:
        return named if has(pieces, Kind.TOPIC, Kind.CONDITION, Kind.EVENT, Kind.ASPECT) else ""
    # A condition without a question (试用期?, 深圳) goes on as well; a topic of its own may be a search.
    only_narrows = has(pieces, Kind.CONDITION) and not has(pieces, Kind.TOPIC, Kind.EVENT, Kind.POINTER)
    return named if only_narrows else ""


def _lacks_subject(said: str, pieces: Sequence[Piece], connective: bool) -> bool:
    """Whether a question is about nothing of its own."""
    pointers = of(pieces, Kind.POINTER)
    topics = of(pieces, Kind.TOPIC, Kind.EVENT)
    if forms.COMPARES.match(said):
        return True
    if pointers and (not topics or pointers[0].start < topics[0].start):
        return True
    if has(pieces, Kind.TOPIC):
        return False
    if has(pieces, Kind.EVENT):
        return connective and not has(pieces, Kind.ASPECT)
    if any(piece.group == "period" for piece in pieces) and not connective:
        return any(said[piece.start : piece.end] in NEEDS_OBJECT for piece in pieces)
    return True


def _with_subject(said: str, pieces: Sequence[Piece], before: str) -> str:
    earlier = cut(before)
    content = has(pieces, Kind.ASPECT, Kind.CONDITION, Kind.EVENT, Kind.TOPIC)
    if not content and not (forms.MINE.search(said) and forms.LEFT.search(said)):
        if forms.QUANTITY.search(said):
            words = of(earlier, Kind.TOPIC, Kind.EVENT, Kind.ASPECT, Kind.CONDITION)
            return _joined(before, words) + said if words else said
        return f"{forms.END.sub('', before)}，{said}"
    things = not any(said[piece.start : piece.end] in THINGS for piece in pieces)
    about = _subject(before, earlier, {piece.group for piece in pieces if piece.group}, things)
    pointer = next((piece for piece in pieces if piece.kind is Kind.POINTER), None)
    if pointer is None or said[pointer.start : pointer.end].endswith("期间"):
        return about + said
    if said[pointer.start : pointer.end] in {"这样", "那样", "这里", "那里", "刚才", "刚刚", "上面", "前面"}:
        return f"{about}，{said}"
    return replaced(said, pointer, about)


def _with_fragment(named: str, before: str) -> str:
    """The question before, about what the fragment names: in the place of what it was about where both are of one kind,
    as a further condition where they are not."""
    pieces, earlier = cut(named), cut(before)
    if not has(pieces, Kind.TOPIC, Kind.CONDITION, Kind.EVENT):
        return f"{_subject(before, earlier)}{named}?"
    text = before
    added = ""
    topics = of(pieces, Kind.TOPIC)
    if has(pieces, Kind.EVENT) and has(pieces, Kind.ASPECT):
        return f"{_subject(before, earlier)}{named}怎么办?"
    if topics:
        core = named[topics[0].start : topics[-1].end]
        at = _like(core, before, earlier)
        if len(core) == 1:
            return f"{_subject(before, earlier)}{named}?"
        text, added = (_without_modifier(before, at, core), "") if at is not None else (before, core)
        conditions = [piece for piece in pieces if piece.kind is Kind.CONDITION and not _inside(piece, topics)]
    else:
        conditions = of(pieces, Kind.CONDITION)
    for condition in conditions:
        words = named[condition.start : condition.end]
        same = next((piece for piece in cut(text) if piece.group and piece.group == condition.group), None)
        text, added = (replaced(text, same, words), added) if same else (text, words + added)
    if not topics and has(pieces, Kind.EVENT):
        return _with_event(named, pieces, text)
    if not topics and has(pieces, Kind.ASPECT):
        added, text = named, before
    return added + forms.DROPPED_LEAD.sub("", text, count=1) if added else text


def _with_event(named: str, pieces: Sequence[Piece], text: str) -> str:
    """离职 in the place of 转正 where the question was about nothing else; otherwise it happens to that."""
    earlier = cut(text)
    events = of(earlier, Kind.EVENT)
    if events and not has(earlier, Kind.TOPIC) and not has(pieces, Kind.ASPECT):
        event = of(pieces, Kind.EVENT)[0]
        return replaced(text, events[-1], named[event.start : event.end])
    return f"{named}，{forms.DROPPED_LEAD.sub('', text, count=1)}"


def _like(core: str, before: str, earlier: Sequence[Piece]) -> Piece | None:
    """The piece of the question before in whose place the topic comes: it ends alike (年假, 病假), or is the last."""
    topics = of(earlier, Kind.TOPIC)
    alike = [piece for piece in topics if before[piece.end - 1] == core[-1]]
    return alike[-1] if alike else topics[-1] if topics else None


def _without_modifier(before: str, at: Piece, core: str) -> str:
    """The topic in the other's place, without what was said of the other only (没休完的年假, 到明年): a search would
    find the other by it."""
    modifier = forms.MODIFIER.search(before[: at.start])
    start = modifier.start() if modifier and not has(cut(modifier[0]), Kind.TOPIC) else at.start
    return before[:start] + core + forms.WHEN.sub("", before[at.end :])


def _inside(piece: Piece, topics: Sequence[Piece]) -> bool:
    return topics[0].start <= piece.start < topics[-1].end


def _subject(text: str, pieces: Sequence[Piece], without: Collection[str] = (), things: bool = False) -> str:
    """The words that say what a question is about; with `things` also the paper or the money that it asks for. Other
    conditions are not carried on than whose death it was."""
    kept = [
        piece
        for piece in pieces
        if piece.kind in (Kind.TOPIC, Kind.EVENT)
        or (piece.group in _LASTING and piece.group not in without)
        or (things and text[piece.start : piece.end] in THINGS)
    ]
    if not kept:
        kept = [piece for piece in pieces if piece.kind is Kind.CONDITION and piece.group not in without]
    return _joined(text, kept[-_MAX_SUBJECT:])


def _joined(text: str, pieces: Sequence[Piece]) -> str:
    """The pieces' words, with the 的 that stood between two of them and the 了 behind an event."""
    parts: list[str] = []
    for at, piece in enumerate(pieces):
        between = text[pieces[at - 1].end : piece.start] if at else ""
        if between in ("的", " "):
            parts.append(between)
        elif at and text[piece.start].isascii() and parts[-1][-1].isascii():
            parts.append(" ")
        parts.append(text[piece.start : piece.end])
        if piece.kind is Kind.EVENT and text.startswith("了", piece.end):
            parts.append("了")
    return "".join(parts)

"""The rule for English: what a follow-up lacks, and how it is joined with the question before."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from services.retriever.search_text import stem

from . import english_forms as forms
from .english_words import ASPECT_STEMS, LONGEST, NEEDS_OBJECT, WORDS
from .pieces import Kind, Piece, has, of, replaced

_WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
_AMOUNT = re.compile(r"\d[\d,.]*|\b(?:two|three|four|five|six|seven|eight|nine|ten|twenty)\b", re.IGNORECASE)
_MAX_FRAGMENT_WORDS = 7
_MAX_SUBJECT = 4
_LASTING = frozenset({"kin"})
_PLURAL = re.compile(r"(?<!s)s$")


def join(text: str, before: str) -> str | None:
    """`text` with what it takes from `before`; None where it stands alone."""
    if forms.COURTESY.fullmatch(text) or forms.ALONE.search(text):
        return None
    if forms.MORE.fullmatch(text):
        return before
    connective = forms.CONNECTIVE.match(text)
    said = text[connective.end() :] if connective else text
    if forms.MORE.fullmatch(said) or not said.strip("?.! "):
        return before if "?" in text or forms.MORE.fullmatch(said) else None
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
    return f"{words}: {said}" if _lacks_subject(said, cut(said), bool(connective)) else None


def subject(text: str) -> str:
    """What a question is about, in its own words."""
    return _subject(text, cut(text))


def cut(text: str) -> list[Piece]:
    """The question in pieces: the longest phrase that a list knows at each place, and topics in between."""
    words = list(_WORD.finditer(text))
    pieces: list[Piece] = []
    at = 0
    while at < len(words):
        piece, used = _phrase(text, words, at)
        last = pieces[-1] if pieces else None
        if last and last.kind is piece.kind is Kind.TOPIC and text[last.end : piece.start].strip(" ") == "":
            pieces[-1] = Piece(Kind.TOPIC, last.start, piece.end)
        else:
            pieces.append(piece)
        at += used
    return pieces


def _phrase(text: str, words: Sequence[re.Match[str]], at: int) -> tuple[Piece, int]:
    start = words[at].start()
    for used in range(min(LONGEST, len(words) - at), 0, -1):
        end = words[at + used - 1].end()
        phrase = text[start:end]
        known = None if phrase == "IT" else WORDS.get(phrase.lower().replace("’", "'"))
        if known is not None:
            return Piece(known[0], start, end, known[1]), used
    end = words[at].end()
    if _AMOUNT.fullmatch(words[at][0]):
        return Piece(Kind.CONDITION, start, end, "amount"), 1
    if forms.THAT_ALONE.match(text, start):
        return Piece(Kind.POINTER, start, end), 1
    word = words[at][0].lower()
    if word.isalpha() and stem(word) in ASPECT_STEMS:
        return Piece(Kind.ASPECT, start, end), 1
    return Piece(Kind.FUNCTION if word == "that" else Kind.TOPIC, start, end), 1


def _fragment(said: str, connective: bool) -> str:
    """What a question that is no whole question names: sick leave of "what about sick leave?"; empty if it is one."""
    about = forms.ABOUT.match(said)
    named = said[about.end() :] if about else said
    if not about and (forms.WHOLE.match(named) or forms.WHAT_IF.match(named)):
        return ""
    named = forms.TO_WHOM.sub("for ", forms.TAIL.sub("", named), count=1) if about else forms.TAIL.sub("", named)
    pieces = cut(named)
    if not named or len(named.split()) > _MAX_FRAGMENT_WORDS + 3 * bool(about):
        return ""
    if about or connective or forms.PREPOSITION.match(named):
        return named if has(pieces, *_CONTENT) else ""
    # Two words without a question go on as well; a topic of its own may be a search.
    return named if has(pieces, Kind.CONDITION) and not has(pieces, Kind.TOPIC, Kind.EVENT, Kind.POINTER) else ""


_CONTENT = (Kind.TOPIC, Kind.CONDITION, Kind.EVENT, Kind.ASPECT)


def _lacks_subject(said: str, pieces: Sequence[Piece], connective: bool) -> bool:
    """Whether a question is about nothing of its own."""
    topics = of(pieces, Kind.TOPIC, Kind.EVENT)
    pointers = _pointers(said, pieces)
    if pointers and (not topics or pointers[0].start < topics[0].start or not has(topics, Kind.TOPIC)):
        return True
    if has(pieces, Kind.TOPIC):
        return False
    if has(pieces, Kind.EVENT):
        return connective or bool(forms.WHAT_IF.match(said))
    if any(piece.group == "period" for piece in pieces) and not connective:
        return any(said[piece.start : piece.end].lower() in NEEDS_OBJECT for piece in pieces)
    return True


def _pointers(said: str, pieces: Sequence[Piece]) -> list[Piece]:
    empty = [(found.start(), found.end()) for found in forms.EMPTY_IT.finditer(said)]
    return [piece for piece in of(pieces, Kind.POINTER) if not any(start <= piece.start < end for start, end in empty)]


def _with_subject(said: str, pieces: Sequence[Piece], before: str) -> str:
    earlier = cut(before)
    about = _subject(before, earlier, {piece.group for piece in pieces if piece.group})
    many = forms.HOW_MANY.match(said)
    if many and about:
        days = " days of" if re.search(r"\bdays? of\b", before, re.IGNORECASE) or "day" in many[0].lower() else ""
        return f"{said[: many.start()]}How {'many' if days else many[1].lower()}{days} {about}{said[many.end() :]}"
    if forms.WHY.fullmatch(said) or (
        not has(pieces, *_CONTENT)
        and not (forms.MINE.search(said) and forms.LEFT.search(said))
        and not _pointers(said, pieces)
    ):
        rest = forms.INTERROGATIVE.sub("", before).rstrip("?.! ") or about
        return f"{_capital(rest)}: {_small(said)}"
    pointer = next(iter(_pointers(said, pieces)), None)
    if pointer is None or not about or has(earlier, Kind.EVENT):
        return f"{_capital(about)}: {_small(said)}" if about else said
    word = said[pointer.start : pointer.end].lower()
    if word in ("its", "their", "theirs"):
        return replaced(said, pointer, f"{about}'s")
    if word in ("these", "those", "this") and not _stands_alone(said, pieces, pointer):
        return f"{_capital(about)}: {_small(said)}"
    return replaced(said, pointer, about)


def _stands_alone(said: str, pieces: Sequence[Piece], pointer: Piece) -> bool:
    """`this` as a word of its own, not as in `this limit`."""
    after = next((piece for piece in pieces if piece.start >= pointer.end), None)
    return after is None or after.kind is Kind.FUNCTION or said[pointer.end : after.start].strip() != ""


def _with_fragment(named: str, before: str) -> str:
    """The question before, about what the fragment names: in the place of what it was about where both are of one kind,
    as a further condition where they are not."""
    pieces, earlier = cut(named), cut(before)
    preposition = forms.PREPOSITION.match(named)
    topics = of(pieces, Kind.TOPIC)
    if not has(pieces, Kind.TOPIC, Kind.CONDITION, Kind.EVENT):
        about = _subject(before, earlier)
        return f"{_capital(about)}: {named}?" if about else f"{named}?"
    if topics:
        core = forms.ARTICLE.sub("", named[preposition.end() :] if preposition else named, count=1)
        at = _like(core, before, earlier, only_alike=preposition is not None)
        if at is not None:
            # Without what was said of the other only: a search would find the other by it.
            return forms.DAYS_OF_DAYS.sub(r"\1", before[: at.start] + core + forms.WHEN.sub("", before[at.end :]))
        return f"{before.rstrip('?.! ')} {named}?"
    text = before
    added = False
    for condition in of(pieces, Kind.CONDITION):
        words = named[condition.start : condition.end]
        same = next((piece for piece in cut(text) if piece.group and piece.group == condition.group), None)
        text, added = (replaced(text, same, words), added) if same else (text, True)
    if not added and not has(pieces, Kind.EVENT):
        return text
    linked = named if preposition or has(pieces, Kind.EVENT) else f"for {named}"
    return f"{before.rstrip('?.! ')} {linked}?"


def _like(core: str, before: str, earlier: Sequence[Piece], only_alike: bool) -> Piece | None:
    """The piece of the question before in whose place the topic comes: one with the same last word, else the last."""
    head = _head(core)
    topics = of(earlier, Kind.TOPIC)
    alike = [piece for piece in topics if _head(before[piece.start : piece.end]) == head]
    if alike:
        return alike[-1]
    return topics[-1] if topics and not only_alike else None


def _head(phrase: str) -> str:
    words = _WORD.findall(phrase.lower())
    return _PLURAL.sub("", words[-1]) if words else ""


def _subject(text: str, pieces: Sequence[Piece], without: Collection[str] = ()) -> str:
    """The words that say what a question is about. Conditions are not carried on, but whose death it was."""
    chosen = [
        piece
        for piece in pieces
        if piece.kind in (Kind.TOPIC, Kind.EVENT) or (piece.group in _LASTING and piece.group not in without)
    ]
    if not chosen:
        chosen = [piece for piece in pieces if piece.kind is Kind.CONDITION and piece.group not in without]
    chosen = chosen[-_MAX_SUBJECT:]
    parts: list[str] = []
    for at, piece in enumerate(chosen):
        between = text[chosen[at - 1].end : piece.start] if at else ""
        linked = re.fullmatch(r" (?:(?:of|for|in|at|on|to|from|during)(?: the| my| a)?|and|or|is|are|was) ", between)
        parts.append((between if linked else " ") if at else "")
        parts.append(text[piece.start : piece.end])
    return "".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text if text.startswith(("I ", "I'")) or text[:2].isupper() else text[:1].lower() + text[1:]

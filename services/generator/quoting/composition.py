"""The answer's text: quoted units with their citations, and what is said where there is nothing to quote."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from baton_proto.messages import Language, Passage

from .question import Question, read_question
from .ranking import Scored, rank_units
from .selection import MAX_SENTENCES, MIN_COVERAGE, Selection, select
from .units import Unit, units_of

_MAX_QUOTE_CHARS = 480
_HINT_COVERAGE = 0.4
_CLOSING = tuple("。！？.!?…；;”\"'’)）")


def quote(
    text: str,
    language: Language,
    passages: Sequence[Passage],
    most: int = MAX_SENTENCES,
    least: float = MIN_COVERAGE,
) -> str | None:
    """An answer out of the passages, cited, or None where they hold none.

    Passages in the language of the question come first; only where they do not answer are the others quoted, and that
    is said.
    """
    question = read_question(text, language)
    scored = rank_units(question, units_of(passages))
    home = [one for one in scored if one.unit.chinese == (language == "zh")]
    selection = select(question, home, most, least)
    if selection is not None:
        return _compose(selection, question)
    foreign = [one for one in scored if one.unit.chinese != (language == "zh")]
    selection = select(question, foreign, most, least)
    if selection is not None:
        return _other_language(language, sure=True) + _compose(selection, question)
    if not home and foreign and least == MIN_COVERAGE:
        # The words of two languages cannot be compared; what the search ranked first is the best there is to show.
        first = [one.unit for one in foreign if one.unit.rank == 0 and not one.unit.text.endswith((":", "："))][:2]
        if first:
            return _other_language(language, sure=False) + _compose(Selection("facts", first), question)
    return None


def no_answer(text: str, language: Language, passages: Sequence[Passage]) -> str:
    """Says that the documents hold no answer, and what they hold instead if that is close."""
    if not passages:
        if language == "zh":
            return "没有找到与这个问题相关的文档，所以我无法回答。可以换一种说法，或者先导入相关的文档。"
        return "I found no documents about this, so I cannot answer. Try other words, or add documents that cover it."
    question = read_question(text, language)
    titles = _close_titles(rank_units(question, units_of(passages))) if any(map(str.isalpha, question.words)) else []
    if language == "zh":
        hint = f"最接近的是{'和'.join(f'《{title}》' for title in titles)}，但其中没有明确的说明。" if titles else ""
        return f"文档里没有这个问题的答案。{hint}可以换一种说法再问一次。"
    quoted = " and ".join(f"“{title}”" for title in titles)
    hint = f" The closest {'are' if len(titles) > 1 else 'is'} {quoted}, without a clear statement." if titles else ""
    return f"The documents do not answer this question.{hint} You could ask in other words."


def _close_titles(scored: Sequence[Scored]) -> list[str]:
    near = sorted((one for one in scored if one.coverage >= _HINT_COVERAGE), key=lambda one: -one.score)
    return list(dict.fromkeys(one.unit.title for one in near))[:2]


def _other_language(language: Language, *, sure: bool) -> str:
    if language == "zh":
        return (
            "相关内容只有英文文档，原文如下：\n\n"
            if sure
            else "没有中文文档回答这个问题。搜索到的最接近的英文原文是：\n\n"
        )
    if sure:
        return "Only Chinese documents cover this; they say:\n\n"
    return "No English document answers this. The closest passage found is Chinese:\n\n"


def _compose(selection: Selection, question: Question) -> str:
    if selection.kind == "points":
        return _points(selection.units, question.language)
    parts: list[str] = []
    for block, group in groupby(selection.units, key=lambda unit: unit.block if unit.block in selection.lists else -1):
        units = list(group)
        parts.append(_prose(units) if block == -1 else _list(units))
    return "\n\n".join(parts)


def _prose(units: Sequence[Unit]) -> str:
    """Sentences after each other, each with its citation."""
    text = ""
    for unit in units:
        sentence = _cited(_with_lead(unit), unit)
        text += ("" if not text or unit.chinese else " ") + sentence
    return text


def _list(units: Sequence[Unit]) -> str:
    first = units[0]
    lead = first.lead or (f"**{first.heading}**{_colon(first).rstrip()}" if first.heading else "")
    lines = [f"{unit.number + '.' if unit.number.isdecimal() else '-'} {_cited(unit.text, unit)}" for unit in units]
    return "\n".join([*([lead, ""] if lead else []), *lines])


def _points(units: Sequence[Unit], language: Language) -> str:
    title = units[0].title
    lead = f"《{title}》的要点：" if language == "zh" else f"The main points of “{title}”:"
    lines = [
        f"- {f'**{unit.heading}**{_colon(unit)}' if unit.heading else ''}{_cited(unit.text, unit)}" for unit in units
    ]
    return "\n".join([lead, "", *lines])


def _with_lead(unit: Unit) -> str:
    """An item on its own, with what it is an item of."""
    if unit.kind == "sentence":
        return unit.text
    if unit.lead:
        return f"{unit.lead}{'' if unit.chinese else ' '}{unit.text}"
    if unit.kind == "item" and unit.heading and not unit.text.endswith(_CLOSING):
        return f"{unit.heading}{_colon(unit)}{unit.text}"
    return unit.text


def _cited(text: str, unit: Unit) -> str:
    if unit.kind != "sentence":
        text = text[:1].upper() + text[1:]
    if len(text) > _MAX_QUOTE_CHARS:
        text = text[:_MAX_QUOTE_CHARS].rstrip() + "…"
    if not text.endswith(_CLOSING):
        text += "。" if unit.chinese else "."
    return f"{text}[{unit.n}]" if unit.chinese else f"{text} [{unit.n}]"


def _colon(unit: Unit) -> str:
    return "：" if unit.chinese else ": "

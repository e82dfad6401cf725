"""The rule for Chinese: what a follow-up lacks, and how it is joined with the question before."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from .chinese_words import LONGEST, NEEDS_OBJECT, THINGS, WORDS
from .pieces import Kind, Piece, has, of, replaced

_CONNECTIVE = re.compile(
    r"(?:(?:那么|那(?![个些天样里边种次儿份项])|还有(?=[,，、\s]|.{1,12}呢)|另外|然后(?!呢)|而且|对了|好的?(?=[,，、。\s])|嗯+|哦|"
    r"顺便问一下|再问一下|再问|请问|所以|但是|可是|不过|假如说|同样)[,，、。\s]*)+"
)
_ABOUT = re.compile(r"(?:对于|关于|至于|换成|换作|如果是|要是|假如是|如果|换|遇到|碰到|碰上|遇上|赶上)(?=.)")
_STRONG = re.compile(r"[,，]?(?:的话)?(?:呢|也.{0,3}[吗么]|(?:也|是)?(?:一样|如此|这样)的?[吗么])[?？。!！~…\s]*$")
_WEAK = re.compile(r"(?:(?:可以|行|有|能|适用|算|需要|包括)[吗么]|(?<!会)(?:又)?(?:怎么样|如何))?[?？。!！~…\s]*$")
_END = re.compile(r"(?:吗|呢|么|吧|啊|呀)?[?？。!！~…\s]*$")
_ASKS = re.compile(
    r"什么|怎|如何|哪|谁|几|多少|多久|多长|多大|多高|多远|何时|为何|是否|能否|可否|[吗么]\s*[?？]?$|(.)不\1|有没有"
)
_COURTESY = re.compile(
    r"(?:谢谢(?:你|您|啦|了)?|多谢|感谢|好的?|好吧|知道了|明白了?|了解了?|收到|你好|您好|再见|嗯+|哦+|没问题|没事了|可以了)[,，。!！~\s]*"
)
_ALONE = re.compile(
    r"(?:今天|现在|此刻|今日|当前).{0,4}(?:几|星期|周|礼拜|日期|时间|什么日子|哪|多少号)|几点(?:钟)?了|\d\s*[-+*/×÷^%]\s*[\d(]|你是谁|你叫什么|你能做什么"
)
_MORE = re.compile(
    r"(?:请|能|可以|麻烦)?(?:再)?(?:继续|接着说|详细(?:一?点|一些|说说|介绍|说明)?|具体(?:一?点|一些|说说|呢|讲讲)?|展开(?:说说)?|说(?:得)?详细(?:一?点|些)|"
    r"然后|接下来|接着|后来|还有(?:别的|其他的?|什么|更多)?|更多|多说一?点|举个例子|比如)(?:说说|说|讲讲|一下|吗|呢|信息|内容|细节)*[?？。!！\s]*"
)
_COMPARES = re.compile(r"(?:跟|和|与|比|同)(?!谁|哪|什么)")
_MINE = re.compile(r"我|本人|自己")
_LEFT = re.compile(r"剩|还有|还能|用了|休了|请了|余")
_QUANTITY = re.compile(r"几|多少|多久|多长|什么时候|何时|最多|最少|至少|上限")
_AMOUNT = re.compile(
    r"(?:\d[\d,.]*|[一二两三四五六七八九十百半]+)\s*个?(?:工作日|小时|分钟|月|天|元|块|年|周|次|公里|岁|人|名|位)(?:以上|以下|以内|之内|之后|以后|之前)?"
)
_LATIN = re.compile(r"[A-Za-z0-9][\w.'-]*")
_MODIFIER = re.compile(r"[\u4e00-\u9fff]{1,6}的$")
_WHEN = re.compile(r"(?:[到在]?(?:明年|今年|去年|次年|下一年|下个月|上个月|当月|当年))")
_SPACE = re.compile(r"[\s,，。、.?？!！;；:：()（）“”\"'《》·~…-]+")
_MAX_SUBJECT = 4
_LASTING = frozenset({"kin"})
_MAX_FRAGMENT = 16
_DROPPED_LEAD = re.compile(r"^(?:请问|我们?|公司|咱们)?(?:公司)?(?:的)?(?=.)")


def join(text: str, before: str) -> str | None:
    """`text` with what it takes from `before`; None where it stands alone."""
    if _COURTESY.fullmatch(text) or _ALONE.search(text):
        return None
    if _MORE.fullmatch(text):
        return before
    connective = _CONNECTIVE.match(text)
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
    connective = _CONNECTIVE.match(text)
    said = text[connective.end() :] if connective else text
    if not words or _COURTESY.fullmatch(text) or _ALONE.search(text) or _fragment(said, bool(connective)):
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
        if piece is None and _SPACE.match(text, at):
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
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
    found = _AMOUNT.match(text, at)
    return Piece(Kind.CONDITION, at, found.end(), "amount") if found else None


def _latin(text: str, at: int) -> Piece | None:
    found = _LATIN.match(text, at)
    return Piece(Kind.TOPIC, at, found.end()) if found else None


def _fragment(said: str, connective: bool) -> str:
    """What a question that is no whole question names: 病假 of 那病假呢?; empty where it is a whole one."""
    tail = _STRONG.search(said) or _WEAK.search(said)
    assert tail is not None
    marked = connective or tail.re is _STRONG
    named = _ABOUT.sub("", said[: tail.start()], count=1) if marked else said[: tail.start()]
    named = named.strip("，, ").removesuffix("的").removesuffix("也")
    if not named or len(named) > _MAX_FRAGMENT or _ASKS.search(named + "?"):
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
    if _COMPARES.match(said):
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
    if not content and not (_MINE.search(said) and _LEFT.search(said)):
        if _QUANTITY.search(said):
            words = of(earlier, Kind.TOPIC, Kind.EVENT, Kind.ASPECT, Kind.CONDITION)
            return _joined(before, words) + said if words else said
        return f"{_END.sub('', before)}，{said}"
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
    return added + _DROPPED_LEAD.sub("", text, count=1) if added else text


def _with_event(named: str, pieces: Sequence[Piece], text: str) -> str:
    """离职 in the place of 转正 where the question was about nothing else; otherwise it happens to that."""
    earlier = cut(text)
    events = of(earlier, Kind.EVENT)
    if events and not has(earlier, Kind.TOPIC) and not has(pieces, Kind.ASPECT):
        event = of(pieces, Kind.EVENT)[0]
        return replaced(text, events[-1], named[event.start : event.end])
    return f"{named}，{_DROPPED_LEAD.sub('', text, count=1)}"


def _like(core: str, before: str, earlier: Sequence[Piece]) -> Piece | None:
    """The piece of the question before in whose place the topic comes: it ends alike (年假, 病假), or is the last."""
    topics = of(earlier, Kind.TOPIC)
    alike = [piece for piece in topics if before[piece.end - 1] == core[-1]]
    return alike[-1] if alike else topics[-1] if topics else None


def _without_modifier(before: str, at: Piece, core: str) -> str:
    """The topic in the other's place, without what was said of the other only (没休完的年假, 到明年): a search would
    find the other by it."""
    modifier = _MODIFIER.search(before[: at.start])
    start = modifier.start() if modifier and not has(cut(modifier[0]), Kind.TOPIC) else at.start
    return before[:start] + core + _WHEN.sub("", before[at.end :])


def _inside(piece: Piece, topics: Sequence[Piece]) -> bool:
    return topics[0].start <= piece.start < topics[-1].end


def _subject(text: str, pieces: Sequence[Piece], without: Collection[str] = (), things: bool = False) -> str:
    """The words that say what a question is about, with whom and which period; with `things` also the paper or the
    money that it asks for, of which a question about papers goes on."""
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

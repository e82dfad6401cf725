"""Word documents: headings, paragraphs, lists and tables in their order; no headers, footers and footnotes."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from .content import CellCount, Content, Writer, heading, prose, table
from .zipped import checked_parts

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TWICE = {"{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback", f"{_W}moveFrom"}
"""What is there a second time: text boxes for programs that do not know them, and text where it was moved away from."""
_NO_TITLE = {"Word Document"}
_MAX_DEPTH = 50
_MAX_SPAN = 63
_MAX_LEVELS = 9
_BREAKS = {f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}tab": " ", f"{_W}noBreakHyphen": "-"}


def read_docx(data: bytes) -> Content:
    import docx  # takes long to load, and not every process reads Word documents

    checked_parts(data, "the Word document")
    document = docx.Document(io.BytesIO(data))
    styles = _Styles(document)
    writer, count = Writer(), CellCount()
    numbers: dict[tuple[str, int], int] = defaultdict(int)
    items: list[str] = []
    title = str(document.core_properties.title or "")
    title = "" if title in _NO_TITLE else title

    for block in _blocks(document.element.body, 0):
        is_table = block.tag == f"{_W}tbl"
        text = "" if is_table else _text(block).strip()
        item = None if is_table else styles.item(block)
        if items and not (item and text):
            writer.add("\n".join(items))
            items.clear()
        if is_table:
            rows = list(_rows(block))
            count.add(sum(map(len, rows)))
            writer.add(table(rows))
        elif text and (level := styles.level(block)):
            writer.add(heading(level, text))
            title = title or " ".join(text.split())
        elif text and item:
            number_id, depth, bulleted = item
            numbers[number_id, depth] += 1
            for deeper in range(depth + 1, _MAX_LEVELS):
                numbers.pop((number_id, deeper), None)
            mark = "-" if bulleted else f"{numbers[number_id, depth]}."
            items.append(f"{'  ' * depth}{mark} {' '.join(text.split())}")
        else:
            writer.add(prose(text))
    writer.add("\n".join(items))
    return writer.content(title)


def _blocks(parent: Any, depth: int) -> Iterator[Any]:
    """Paragraphs and tables, those within content controls too."""
    for child in parent:
        if child.tag in (f"{_W}p", f"{_W}tbl"):
            yield child
        elif (
            child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins", f"{_W}moveTo")
            and depth < _MAX_DEPTH
        ):
            yield from _blocks(child, depth + 1)


def _text(element: Any) -> str:
    parts = []
    for node in element.iter(f"{_W}t", f"{_W}p", *_BREAKS):
        if node.tag == f"{_W}t":
            if not any(above.tag in _TWICE for above in node.iterancestors()):
                parts.append(node.text or "")
        elif node.tag == f"{_W}p":
            parts.append("\n" if parts else "")
        elif node.getparent().tag == f"{_W}r":  # not the tab stops of a style
            parts.append(_BREAKS[node.tag])
    return "".join(parts)


def _rows(element: Any) -> Iterator[list[str]]:
    for row in element.iter(f"{_W}tr"):
        if next(row.iterancestors(f"{_W}tbl")) is not element:
            continue
        cells: list[str] = []
        for cell in row.iter(f"{_W}tc"):
            if next(cell.iterancestors(f"{_W}tr")) is not row:
                continue  # a table within a table: its text is in the outer cell
            spanned = cell.find(f"{_W}tcPr/{_W}gridSpan")
            span = "" if spanned is None else str(spanned.get(f"{_W}val", ""))
            merged = cell.find(f"{_W}tcPr/{_W}vMerge")
            continued = merged is not None and merged.get(f"{_W}val", "continue") == "continue"
            cells.append("" if continued else _text(cell))
            cells += [""] * (min(int(span), _MAX_SPAN) - 1 if span.isdigit() else 0)
        yield cells


def _value(element: Any, name: str) -> str:
    for found in element.iter(f"{_W}{name}"):
        return str(found.get(f"{_W}val", ""))
    return ""


class _Styles:
    """What a paragraph is, by itself or by its style: a heading of some level, an item of a list."""

    def __init__(self, document: Any) -> None:
        self._styles = {style.get(f"{_W}styleId"): style for style in document.styles.element.iter(f"{_W}style")}
        self._formats = _list_formats(document)
        self._titled = any(self._name(block) == "title" for block in _blocks(document.element.body, 0))

    def level(self, paragraph: Any) -> int:
        """1 to 6; 0 where it is no heading. The document's title is above all headings."""
        if self._name(paragraph) == "title":
            return 1
        for element in self._chain(paragraph):
            found = element.find(f"{_W}pPr/{_W}outlineLvl")
            if found is not None and found.get(f"{_W}val", "").isdigit():
                level = int(found.get(f"{_W}val"))
                return min(6, level + 1 + self._titled) if level < 9 else 0
        return 0

    def item(self, paragraph: Any) -> tuple[str, int, bool] | None:
        """The list, the depth in it, and whether it has bullets; None where it is not in a list."""
        number_id, depth = "", ""
        for element in self._chain(paragraph):
            found = element.find(f"{_W}pPr/{_W}numPr")
            if found is not None:
                number_id = number_id or _value(found, "numId")
                depth = depth or _value(found, "ilvl")
        if not number_id or number_id == "0":  # 0 takes a paragraph out of its style's list
            return None
        level = min(int(depth), _MAX_LEVELS - 1) if depth.isdigit() else 0
        return number_id, level, self._formats.get((number_id, level), "bullet") == "bullet"

    def _chain(self, paragraph: Any) -> Iterator[Any]:
        yield paragraph
        style = self._styles.get(_style_id(paragraph))
        for _ in range(10):
            if style is None:
                return
            yield style
            based = style.find(f"{_W}basedOn")
            style = None if based is None else self._styles.get(based.get(f"{_W}val"))

    def _name(self, paragraph: Any) -> str:
        style = self._styles.get(_style_id(paragraph))
        found = None if style is None else style.find(f"{_W}name")
        return "" if found is None else str(found.get(f"{_W}val", "")).lower()


def _style_id(paragraph: Any) -> str | None:
    found = paragraph.find(f"{_W}pPr/{_W}pStyle")
    return None if found is None else found.get(f"{_W}val")


def _list_formats(document: Any) -> dict[tuple[str, int], str]:
    """What marks the items of a list and depth: `bullet`, `decimal`, …"""
    try:
        numbering = document.part.numbering_part.element
    except (KeyError, NotImplementedError):  # there are no lists in it
        return {}
    kinds: dict[str, dict[int, str]] = {}
    for kind in numbering.iterchildren(f"{_W}abstractNum"):
        levels = {
            int(level.get(f"{_W}ilvl")): _value(level, "numFmt")
            for level in kind.iterchildren(f"{_W}lvl")
            if str(level.get(f"{_W}ilvl")).isdigit()
        }
        kinds[str(kind.get(f"{_W}abstractNumId"))] = levels
    return {
        (str(number.get(f"{_W}numId")), level): form
        for number in numbering.iterchildren(f"{_W}num")
        for level, form in kinds.get(_value(number, "abstractNumId"), {}).items()
    }

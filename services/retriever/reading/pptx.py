"""PowerPoint presentations: each slide is a page with its title as heading, then its texts, tables and notes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from .content import CellCount, Content, Writer, heading, prose, table
from .zipped import checked_parts

_NO_TITLE = {"PowerPoint Presentation", "PowerPoint 演示文稿"}
_MAX_DEPTH = 20


def read_pptx(data: bytes) -> Content:
    import pptx  # takes long to load, and not every process reads presentations

    checked_parts(data, "the PowerPoint presentation")
    presentation = pptx.Presentation(io.BytesIO(data))
    writer, count = Writer(), CellCount()
    title = str(presentation.core_properties.title or "")
    title = "" if title in _NO_TITLE else title
    for slide in presentation.slides:
        writer.page()
        named = slide.shapes.title
        if named is not None and named.has_text_frame:
            writer.add(heading(1, named.text_frame.text))
            title = title or named.text_frame.text
        for shape in _shapes(slide.shapes, 0):
            if named is not None and shape.element is named.element:
                continue
            _add_shape(writer, count, shape)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            writer.add(prose(slide.notes_slide.notes_text_frame.text))
    return writer.content(title)


def _shapes(shapes: Any, depth: int) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes") and depth < _MAX_DEPTH:
            yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _add_shape(writer: Writer, count: CellCount, shape: Any) -> None:
    if getattr(shape, "has_table", False):
        rows = [[cell.text for cell in row.cells] for row in shape.table.rows]
        count.add(sum(map(len, rows)))
        writer.add(table(rows))
    elif getattr(shape, "has_text_frame", False):
        paragraphs = [
            (paragraph.level, paragraph.text.replace("\v", "\n")) for paragraph in shape.text_frame.paragraphs
        ]
        said = [(level, text.strip()) for level, text in paragraphs if text.strip()]
        if len(said) > 1:  # several paragraphs in one box are points
            writer.add("\n".join(f"{'  ' * level}- {' '.join(text.split())}" for level, text in said))
        elif said:
            writer.add(prose(said[0][1]))

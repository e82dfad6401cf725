"""HTML to Markdown-like text: headings, lists, tables and code keep their shape; menus and scripts go."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PageElement, PreformattedString, Tag

_DROPPED = "script, style, nav, noscript, template, svg, iframe, form, button, footer, [hidden], [aria-hidden=true]"
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_INLINE = """
    a abbr b bdi bdo cite code data dfn del em font i img ins kbd label mark q rp rt ruby s samp small span strong sub
    sup time u var wbr
"""
_INLINE_TAGS = frozenset(_INLINE.split())
_BREAK = "\u2028"
_SPACE = re.compile(r"[^\S\u2028]+")
_WRAPPED = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])[^\S\u2028]*\n[^\S\u2028]*(?=[\u3000-\u9fff\uff00-\uffef])")


def html_to_text(html: str) -> tuple[str, str]:
    """The title (may be empty) and the text of a page."""
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup.select(_DROPPED):
        tag.decompose()
    root = soup.find("main") or soup.find("body") or soup
    heading = root.find("h1") if isinstance(root, Tag) else None
    title = _inline(heading) if isinstance(heading, Tag) else ""
    if not title and soup.title is not None:
        title = _inline(soup.title)
    if soup.head is not None:
        soup.head.decompose()
    text = "\n\n".join(_blocks(root)) if isinstance(root, Tag) else ""
    return title, text


def _blocks(node: Tag) -> list[str]:
    blocks: list[str] = []
    run: list[PageElement] = []

    def flush() -> None:
        text = _joined(run)
        run.clear()
        if text:
            blocks.append(text)

    for child in node.children:
        if not isinstance(child, Tag) or child.name in _INLINE_TAGS or child.name == "br":
            run.append(child)
        else:
            flush()
            blocks += _block(child)
    flush()
    return blocks


def _block(tag: Tag) -> list[str]:
    if tag.name in _HEADINGS:
        text = _inline(tag)
        return [f"{'#' * _HEADINGS[tag.name]} {text}"] if text else []
    if tag.name == "pre":
        code = tag.get_text().strip("\n")
        return [f"```\n{code}\n```"] if code.strip() else []
    if tag.name in ("ul", "ol"):
        lines = _list(tag, "")
        return ["\n".join(lines)] if lines else []
    if tag.name == "table":
        lines = _table(tag)
        return ["\n".join(lines)] if lines else []
    return _blocks(tag)


def _list(tag: Tag, indent: str) -> list[str]:
    lines = []
    items = [child for child in tag.children if isinstance(child, Tag) and child.name == "li"]
    for number, item in enumerate(items, start=1):
        mark = f"{number}." if tag.name == "ol" else "-"
        nested = item.find_all(["ul", "ol"], recursive=False)
        text = _joined([child for child in item.children if child not in nested])
        if text:
            lines.append(f"{indent}{mark} {text.replace(chr(10), ' ')}")
        for inner in nested:
            if isinstance(inner, Tag):
                lines += _list(inner, indent + "  ")
    return lines


def _table(tag: Tag) -> list[str]:
    lines: list[str] = []
    caption = tag.find("caption")
    for row in tag.find_all("tr"):
        if not isinstance(row, Tag) or row.find_parent("table") is not tag:
            continue
        cells = [_inline(cell).replace("\n", " ") for cell in row.find_all(["td", "th"], recursive=False)]
        if any(cells):
            lines.append("| " + " | ".join(cells) + " |")
            if len(lines) == 1:
                lines.append("| " + " | ".join("---" for _ in cells) + " |")
    if isinstance(caption, Tag) and lines and _inline(caption):
        lines = [_inline(caption), "", *lines]
    return lines


def _inline(tag: Tag) -> str:
    return _joined(list(tag.children))


def _joined(nodes: list[PageElement]) -> str:
    """The text of inline nodes with HTML's white space rules; a `<br>` becomes a line break."""
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Tag):
            parts.append(_BREAK if node.name == "br" else _inline_parts(node))
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            parts.append(str(node))
    text = _SPACE.sub(" ", _WRAPPED.sub("", "".join(parts)))
    return "\n".join(line.strip() for line in text.split(_BREAK) if line.strip())


def _inline_parts(tag: Tag) -> str:
    parts = []
    for node in tag.descendants:
        if isinstance(node, Tag):
            if node.name == "br":
                parts.append(_BREAK)
            elif node.name not in _INLINE_TAGS:
                parts.append(" ")
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            parts.append(str(node))
    return "".join(parts)

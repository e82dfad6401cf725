"""HTML to Markdown-like text: headings, lists, tables and code keep their shape; menus and scripts go.

nh3 parses as browsers do (omitted end tags, misplaced tags) and leaves only the tags that carry structure; what is left
is small and well-formed.
"""

from __future__ import annotations

import re
from typing import TypeGuard

import nh3
from bs4 import BeautifulSoup
from bs4.element import NavigableString, PageElement, Tag

from .bad_document import BadDocument

MAX_DEPTH = 300
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_STRUCTURE = {
    *_HEADINGS,
    *(
        "title",
        "main",
        "div",
        "section",
        "article",
        "header",
        "aside",
        "p",
        "blockquote",
        "pre",
        "br",
        "hr",
        "ul",
        "ol",
    ),
    *("li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tfoot", "tr", "td", "th", "figure"),
    *("figcaption", "details", "summary", "address"),
}
_DROPPED = {"script", "style", "nav", "noscript", "template", "svg", "math", "iframe", "object", "button"}
# Not forms: some systems put the whole page into one.
_DROPPED |= {"footer", "select", "textarea"}
_UNCLOSED = {"p", "li", "dt", "dd", "td", "th", "tr", "thead", "tbody", "tfoot", "option", "colgroup", "html", "body"}
_UNCLOSED |= {"br", "hr", "img", "input", "meta", "link", "col", "area", "base", "wbr", "source", "track", "embed"}
_RAW = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style")}
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)")
_SPACE = re.compile(r"[^\S\u2028]+")
_BREAK = "\u2028"
_HAN = "\u3000-\u9fff\uff00-\uffef"
_WRAPPED = re.compile(rf"(?<=[{_HAN}])[^\S\n\u2028]*\n[^\S\u2028]*(?=[{_HAN}])")


def html_to_text(html: str) -> tuple[str, str]:
    """The title (may be empty) and the text of a page.

    Raises:
        BadDocument: elements are nested far deeper than in any real page, which would take for ever to parse.
    """
    _check_depth(html)
    kept = nh3.clean(
        html,
        tags=_STRUCTURE,
        clean_content_tags=_DROPPED,
        attributes={"*": {"hidden", "aria-hidden"}},
        link_rel=None,
    )
    soup = BeautifulSoup(kept, "html.parser")
    for tag in soup.select("[hidden], [aria-hidden=true]"):
        tag.decompose()
    named = soup.find("title")
    title = _joined(list(named.children)) if isinstance(named, Tag) else ""
    for tag in soup.find_all("title"):
        tag.decompose()
    root = soup.find("main") or soup
    heading = root.find("h1") if isinstance(root, Tag) else None
    if isinstance(heading, Tag):
        title = _joined(list(heading.children)) or title
    return title, "\n\n".join(_blocks(root)) if isinstance(root, Tag) else ""


def _check_depth(html: str) -> None:
    depth = at = 0
    while found := _TAG.search(html, at):
        at = found.end()
        name = found.group(2).lower()
        if name in _RAW and not found.group(1):  # `i<n` in a script is no element
            end = _RAW[name].search(html, at)
            at = end.end() if end else len(html)
        elif name not in _UNCLOSED:
            depth += -1 if found.group(1) else 1
            depth = max(depth, 0)
            if depth > MAX_DEPTH:
                raise BadDocument("its HTML is nested too deeply, or most of its elements are never closed")


def _blocks(node: Tag) -> list[str]:
    blocks: list[str] = []
    run: list[PageElement] = []

    def flush() -> None:
        text = _joined(run)
        run.clear()
        if text:
            blocks.append(text)

    for child in node.children:
        if isinstance(child, Tag) and child.name != "br":
            flush()
            blocks += _block(child)
        else:
            run.append(child)
    flush()
    return blocks


def _block(tag: Tag) -> list[str]:
    if tag.name in _HEADINGS:
        text = _joined(list(tag.children)).replace("\n", " ")
        return [f"{'#' * _HEADINGS[tag.name]} {text}"] if text else []
    if tag.name == "pre":
        for line_break in tag.find_all("br"):
            line_break.replace_with("\n")
        code = tag.get_text().strip("\n")
        return [f"```\n{code}\n```"] if code.strip() else []
    if tag.name in ("ul", "ol"):
        return _one(_list(tag, ""))
    if tag.name == "table":
        return _table(tag)
    return _blocks(tag)


def _list(tag: Tag, indent: str) -> list[str]:
    lines: list[str] = []
    number = 0
    for child in tag.children:
        if _is_list(child):  # not allowed, and common
            lines += _list(child, indent + "  ")
            continue
        inside = list(child.children) if isinstance(child, Tag) else [child]
        text = _flat([NavigableString(" ") if _is_list(node) else node for node in inside])
        if text:
            number += 1
            mark = f"{number}." if tag.name == "ol" else "-"
            lines.append(f"{indent}{mark} {text}")
        for node in inside:
            if _is_list(node):
                lines += _list(node, indent + "  ")
    return lines


def _is_list(node: PageElement) -> TypeGuard[Tag]:
    return isinstance(node, Tag) and node.name in ("ul", "ol")


def _table(tag: Tag) -> list[str]:
    lines: list[str] = []
    for row in tag.find_all("tr"):
        if not isinstance(row, Tag) or row.find_parent("table") is not tag:
            continue
        cells = [_flat(list(cell.children)) for cell in row.children if isinstance(cell, Tag)]
        if any(cells):
            lines.append("| " + " | ".join(cells) + " |")
            if len(lines) == 1:
                lines.append("| " + " | ".join("---" for _ in cells) + " |")
    caption = tag.find("caption")
    above = _flat(list(caption.children)) if isinstance(caption, Tag) else ""
    return [text for text in (above, "\n".join(lines)) if text]


def _one(lines: list[str]) -> list[str]:
    return ["\n".join(lines)] if lines else []


def _flat(nodes: list[PageElement]) -> str:
    return _joined(nodes).replace("\n", " ")


def _joined(nodes: list[PageElement]) -> str:
    """The text of nodes with HTML's white space rules; a `<br>` becomes a line break, another element a blank."""
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Tag):
            parts.append(_BREAK if node.name == "br" else f" {_joined(list(node.children))} ")
        elif isinstance(node, NavigableString):
            parts.append(str(node))
    text = _SPACE.sub(" ", _WRAPPED.sub("", "".join(parts)))
    return "\n".join(line.strip() for line in text.split(_BREAK) if line.strip())

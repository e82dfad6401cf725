"""What an MCP server sends, as text for people and models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator

from mcp import types

from baton_proto.messages import Language
from services.common.wording import choose, shorten

MAX_TEXT_CHARS = 200_000
"""Characters of an answer that are put together; the runner keeps fewer."""
_STEPS_SHOWN = 10_000


def result_text(result: types.CallToolResult, language: Language) -> str:
    """The text blocks of a result, its structured content where it has none, and a word for everything else."""
    text = _joined(_block_texts(result.content, language))
    has_text = any(isinstance(block, types.TextContent) and block.text for block in result.content)
    if result.structured_content is not None and not has_text:
        structured = json.dumps(result.structured_content, ensure_ascii=False)[:MAX_TEXT_CHARS]
        return f"{structured}\n{text}" if text else structured
    return text or choose(language, zh="（没有内容）", en="(no content)")


def progress_text(progress: float, total: float | None, message: str | None) -> str | None:
    """A line of progress: the server's own, otherwise a count or a percentage; None where there is nothing to say."""
    if message and message.strip():
        return message
    if not math.isfinite(progress):
        return None
    if total is None or not math.isfinite(total) or total <= 0:
        return f"{progress:g}"
    if total > 1 and total <= _STEPS_SHOWN and progress.is_integer() and total.is_integer():
        return f"{progress:.0f}/{total:.0f}"
    return f"{100 * min(1.0, max(0.0, progress / total)):.0f} %"


def _joined(texts: Iterable[str]) -> str:
    kept: list[str] = []
    room = MAX_TEXT_CHARS
    for text in texts:
        kept.append(text[:room])
        room -= len(text) + 1
        if room <= 0:
            break
    return "\n".join(kept)


def _block_texts(blocks: Iterable[types.ContentBlock], language: Language) -> Iterator[str]:
    for block in blocks:
        match block:
            case types.TextContent():
                yield block.text
            case types.ImageContent():
                yield _left_out(choose(language, zh="图片", en="image"), block.mime_type, block.data)
            case types.AudioContent():
                yield _left_out(choose(language, zh="音频", en="audio"), block.mime_type, block.data)
            case types.ResourceLink():
                yield f"[{shorten(block.title or block.name, 200)}: {shorten(block.uri, 1_000)}]"
            case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
                yield resource.text
            case types.EmbeddedResource(resource=types.BlobResourceContents() as resource):
                kind = choose(language, zh="文件", en="file")
                yield _left_out(f"{kind} {shorten(resource.uri, 1_000)}", resource.mime_type, resource.blob)


def _left_out(what: str, mime_type: str | None, base64: str) -> str:
    size = max(1, round(len(base64) * 3 / 4 / 1024))
    return f"[{what}{f' {shorten(mime_type, 100)}' if mime_type else ''}, {size} KB]"

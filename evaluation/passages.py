"""The whole texts of the passages behind the sources, of which the frames carry at most 500 characters.

They are read where users read them too: from the gateway's document address, by a source's offsets, with the same token
(`GET /documents/<id>?text=1`). A gateway that does not give them, a document that has gone or whose text has changed:
then the snippet has to do, and the record counts how many passages were seen whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from services.cli.options import is_local

from .running import HTTP_S, documents_address

_CUT = "…"
_PROBE_CHARS = 40
Place = tuple[str, int, int]


async def read_passages(url: str, sources: Iterable[dict[str, Any]], token: str, at_once: int) -> dict[str, int]:
    """Set `text` of each source whose snippet is cut off, as far as it can be had; how many were seen how."""
    wanted = list(sources)
    texts: dict[Place, str] = {}
    places = {place for source in wanted if (place := _place(source)) is not None}
    if places:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(headers=headers, timeout=HTTP_S, trust_env=not is_local(url)) as client:
            texts = await _read(client, documents_address(url), sorted(places), at_once)
    counts = {"whole": 0, "snippet": 0}
    for source in wanted:
        place = _place(source)
        text = texts.get(place, "") if place else ""
        if text and _begins_or_ends_alike(source["snippet"], text):
            source["text"] = text
        counts["snippet" if _is_cut(source) and "text" not in source else "whole"] += 1
    return counts


async def _read(client: httpx.AsyncClient, address: str, places: Iterable[Place], at_once: int) -> dict[Place, str]:
    waiting, texts = iter(places), {}

    async def some() -> None:
        nonlocal waiting
        for place in waiting:
            document, start, end = place
            try:
                answer = await client.get(f"{address}/{document}", params={"text": 1, "start": start, "end": end})
            except (httpx.HTTPError, httpx.InvalidURL):
                continue
            if answer.status_code == httpx.codes.OK:
                if not answer.headers.get("content-type", "").startswith("text/plain"):
                    waiting = iter(())  # a gateway from before this: it shows pages, and nothing else
                    return
                texts[place] = answer.text

    await asyncio.gather(*(some() for _ in range(at_once)))
    return texts


def _is_cut(source: Mapping[str, Any]) -> bool:
    return str(source.get("snippet") or "").endswith(_CUT)


def _place(source: Mapping[str, Any]) -> Place | None:
    start, end = source.get("start"), source.get("end")
    if not _is_cut(source) or not isinstance(start, int) or not isinstance(end, int):
        return None
    return source["document_id"], start, end


def _begins_or_ends_alike(snippet: str, text: str) -> bool:
    """Whether it is this passage's text; what is put before it, as a table's head, is not at its offsets."""
    said, there = ("".join(one.split()) for one in (snippet.removesuffix(_CUT), text))
    return said[:_PROBE_CHARS] in there or said[-_PROBE_CHARS:] in there

"""What is kept of documents and passages, whichever store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from baton_proto.readers import EVERYBODY


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """An ingested document. `passages` is 0 while its ingestion has not finished; `bytes` is the original's size.

    `owner` is who brought it in, empty for the operator. A name is known within its owner only, so nobody can replace
    another's document. `readers` are the principals (see `baton_proto.readers`) of whom one is enough to see it.
    """

    document_id: str
    name: str
    title: str
    language: str
    media_type: str
    content_hash: str
    passages: int
    bytes: int
    ingested_ms: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    readers: tuple[str, ...] = (EVERYBODY,)


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage on its way into a store. `start` and `end` are offsets into the document's extracted text.

    `lead` is how a document begins that names no title: what its later passages are about often stands only there. It
    is searched with the passage, and not shown.
    """

    document: DocumentInfo
    ordinal: int
    text: str
    heading: str
    start: int
    end: int
    page: int | None = None
    vector: list[float] | None = None
    lead: str = ""

    @property
    def id(self) -> str:
        return f"{self.document.document_id}-{self.ordinal}"

    @property
    def url(self) -> str:
        return document_url(self.document.document_id, self.ordinal)


class Hit(msgspec.Struct, frozen=True):
    """A found passage, and a score of which higher is better; scores of one search can be compared."""

    id: str
    score: float
    document_id: str
    ordinal: int
    title: str
    heading: str
    text: str
    start: int
    end: int
    page: int | None = None


def document_url(document_id: str, ordinal: int | None = None) -> str:
    """Where a document is shown, with a passage of it marked and scrolled to where `ordinal` names one."""
    return f"/documents/{document_id}" + (f"?passage={ordinal}#passage" if ordinal is not None else "")

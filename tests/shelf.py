"""What tests of retrieval share: originals in memory, settings for a collection of one's own, small documents."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.common.config import RetrieverSettings
from services.common.documents import Original
from services.retriever.ingest import OPERATOR, Whose, open_library
from services.retriever.report import Report
from tests.servers.milvus import Milvus

DOCUMENTS = {
    "annual-leave.zh.md": "---\ndepartment: hr\nyear: 2026\n---\n# 年假政策\n\n## 天数\n\n员工每年有十五天年假。\n\n"
    "## 结转\n\n没有休完的年假最多可以结转五天到下一年。\n",
    "expenses.en.md": "---\ndepartment: finance\npublic: true\n---\n# Travel expenses\n\n## Hotels\n\nAn expense of "
    "up to 180 euros a night is reimbursed.\n\n## Receipts\n\nHand in receipts within 30 days.\n",
    "vpn.en.md": "---\ndepartment: it\n---\n# Remote access\n\nInstall the VPN client before you connect from home.\n",
    "sick.html": "<title>Sick leave</title><h1>Sick leave</h1><p>Call your manager before nine o'clock.</p>",
}


class MemoryOriginals:
    def __init__(self) -> None:
        self.stored: dict[str, Original] = {}
        self.puts = 0

    async def put(self, document_id: str, original: Original) -> None:
        self.puts += 1
        self.stored[document_id] = original

    async def has(self, document_id: str) -> bool:
        return document_id in self.stored

    async def delete(self, document_id: str) -> None:
        self.stored.pop(document_id, None)


def settings_for(milvus: Milvus, **fields: Any) -> RetrieverSettings:
    defaults = {"milvus_uri": milvus.uri, "collection": f"c_{secrets.token_hex(6)}", "timeout_s": 30.0}
    return RetrieverSettings(**{**defaults, **fields})


def write_documents(folder: Path, documents: Mapping[str, str | bytes] = DOCUMENTS) -> Path:
    for name, content in documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


async def ingest(
    settings: RetrieverSettings, *paths: Path, originals: MemoryOriginals | None = None, whose: Whose = OPERATOR
) -> Report:
    async with open_library(settings, originals or MemoryOriginals()) as library:
        return await library.ingest(paths, whose=whose)

"""Which files an ingestion is about."""

from __future__ import annotations

from pathlib import Path

from services.retriever.files import PassedOver, SourceFile, find_files


def test_a_link_that_leads_to_itself_is_told_and_the_rest_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").symlink_to("a.md")
    (tmp_path / "b.md").write_text("b")
    assert list(find_files([tmp_path])) == [
        PassedOver(tmp_path / "a.md", "cannot be opened", wrong=True),
        SourceFile(tmp_path / "b.md", "b.md"),
    ]

"""What is taken from a zip archive, what is refused and why."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.retriever.archives import Archive, Limits
from services.retriever.bad_document import BadDocument
from tests.ingest.samples import PNG, encrypted_zip, make_zip

LIMITS = Limits(files=10, bytes=100_000, file_bytes=50_000)


def test_files_of_known_kinds_are_members_under_their_paths() -> None:
    archive = Archive(
        make_zip(
            {
                "a/b.md": b"one",
                "c.txt": b"two",
                "d.png": PNG,
                ".hidden/x.md": b"x",
                "__MACOSX/a/._b.md": b"x",
                "e/": b"",
            }
        ),
        LIMITS,
    )
    assert archive.members == ["a/b.md", "c.txt"]
    assert archive.refused == []
    assert archive.read("a/b.md") == b"one"


@pytest.mark.parametrize(
    "name", ["../a.md", "a/../../b.md", "/a.md", "C:/a.md", "c:a.md", "a\\b.md", "..\\a.md", "a\n.md", "../folder/"]
)
def test_a_path_that_leads_out_refuses_the_whole_archive(name: str) -> None:
    with pytest.raises(BadDocument, match=r"leads out|control characters"):
        Archive(make_zip({"fine.md": b"fine", name: b"x"}), LIMITS)


def test_links_archives_locked_twice_named_and_large_files_are_refused_by_name() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("link.md")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("in.zip", make_zip({"a.md": b"x"}))
        archive.writestr("a.md", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.md", b"second")
        archive.writestr("large.txt", b"x" * 50_001)
    found = Archive(out.getvalue(), LIMITS)
    assert found.members == ["a.md"]
    assert found.read("a.md") == b"first"
    reasons = dict(found.refused)
    assert "link" in reasons["link.md"]
    assert "archive in an archive" in reasons["in.zip"]
    assert "two files" in reasons["a.md"]
    assert "50,000 bytes" in reasons["large.txt"]
    assert "encrypted" in dict(Archive(encrypted_zip(), LIMITS).refused)["a.md"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound_are_refused_by_name(method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("fine.md", b"fine")
        archive.writestr("bomb.md", b" " * 1_000_000, compress_type=method)
    found = Archive(out.getvalue(), LIMITS)
    assert found.members == ["fine.md"]
    assert "Deflate" in dict(found.refused)["bomb.md"]


@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4))
@example([(0, 0), (30, 0xFF)])  # the name before the data is not UTF-8, the one in the directory is
def test_no_damage_makes_an_archive_fail_in_another_way(changes: list[tuple[int, int]]) -> None:
    data = bytearray(make_zip({"员工/a.md": b"hello " * 20, "b.md": b"x"}))
    for at, byte in changes:
        data[at % len(data)] = byte
    try:
        archive = Archive(bytes(data), LIMITS)
        for name in archive.members:
            archive.read(name)
    except BadDocument:
        return


def test_sizes_are_counted_and_not_believed() -> None:
    members = {f"{n}.txt": b" " * 40_000 for n in range(3)}
    data = make_zip(members)
    with pytest.raises(BadDocument, match="BATON_ARCHIVE_MAX_BYTES"):
        Archive(data, LIMITS)
    # The same archive that says of every file that it has one byte.
    lying = bytearray(data)
    at = 0
    while (at := lying.find(b"PK\x01\x02", at)) >= 0:
        lying[at + 24 : at + 28] = (1).to_bytes(4, "little")
        at += 4
    with pytest.raises(BadDocument):
        Archive(bytes(lying), LIMITS)


def test_too_many_files_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(BadDocument, match="BATON_ARCHIVE_MAX_FILES"):
        Archive(make_zip({f"{n}.md": b"x" for n in range(11)}), LIMITS)
    with pytest.raises(BadDocument, match="BATON_ARCHIVE_MAX_FILES"):
        Archive(b"PK\x01\x02" * 2_000, LIMITS)


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", make_zip({"a.md": b"x"})[:-10], b"\xff" * 100],
    ids=["empty", "begun", "cut off", "noise"],
)
def test_what_is_no_archive_is_told_so(data: bytes) -> None:
    with pytest.raises(BadDocument, match="not a zip archive"):
        Archive(data, LIMITS)


def _named(raw: bytes) -> bytes:
    """An archive with a name in whatever encoding, without the flag that says UTF-8."""
    data = make_zip({"n" * len(raw): b"x"})
    return data.replace(b"n" * len(raw), raw)


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_chinese_names_are_read_as_they_were_meant(encoding: str) -> None:
    name = "员工手册/年假政策.md"
    assert Archive(_named(name.encode(encoding)), LIMITS).members == [name]
    assert Archive(make_zip({name: b"x"}), LIMITS).members == [name]

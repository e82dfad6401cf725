"""Which files an ingestion is about: what was named, folders with all below them, and what is passed over and why."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .extract import MEDIA_TYPES

MAX_FILES = 100_000
ZIP = ".zip"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to ingest. `name` identifies the document: its path below the folder that was named, or its file name.
    `archive` tells that it stands for the files in it."""

    path: Path
    name: str
    archive: bool = False


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A file or folder that is not ingested. `wrong` tells a mistake (named by hand) from what folders just contain."""

    path: Path
    reason: str
    wrong: bool = False


def find_files(paths: Iterable[Path], archives: bool = False) -> Iterator[SourceFile | PassedOver]:
    """The files at and below `paths`, in order of their names. Nothing outside a named folder is reached from it.

    Args:
        archives: whether zip archives are taken too.
    """
    names: dict[str, Path] = {}
    for path in paths:
        found = _below(path, archives) if path.is_dir() else iter([_named(path, archives)])
        for entry in found:
            if isinstance(entry, SourceFile):
                entry = _unique(entry, names)
            yield entry


def _unique(entry: SourceFile, names: dict[str, Path]) -> SourceFile | PassedOver:
    earlier = names.setdefault(entry.name, entry.path)
    if earlier != entry.path and earlier.resolve() != entry.path.resolve():
        reason = f"has the same name as {earlier}; name the folder that holds both"
        return PassedOver(entry.path, reason, wrong=True)
    if earlier is not entry.path:
        return PassedOver(entry.path, "named twice")
    if len(names) > MAX_FILES:
        return PassedOver(entry.path, f"more than {MAX_FILES:,} files; ingest in parts", wrong=True)
    return entry


def _named(path: Path, archives: bool) -> SourceFile | PassedOver:
    if not path.exists():
        return PassedOver(path, "there is no such file or folder", wrong=True)
    if not path.is_file():
        return PassedOver(path, "not a regular file", wrong=True)
    return _source(path, path.name, archives, wrong=True)


def _below(root: Path, archives: bool) -> Iterator[SourceFile | PassedOver]:
    inside = root.resolve()
    errors: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=errors.append):
        here = Path(folder)
        for name in sorted(folders):
            if name.startswith("."):
                yield PassedOver(here / name, "hidden")
            elif (here / name).is_symlink():
                yield PassedOver(here / name, "a link to a folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = here / name
            try:
                leads_out, regular = not path.resolve().is_relative_to(inside), path.is_file()
            except (OSError, RuntimeError):  # no right to look at it; a link that leads to itself
                yield PassedOver(path, "cannot be opened", wrong=True)
                continue
            if name.startswith("."):
                yield PassedOver(path, "hidden")
            elif leads_out:
                yield PassedOver(path, "a link that leads out of the folder")
            elif not regular:
                yield PassedOver(path, "not a regular file")
            else:
                yield _source(path, path.relative_to(root).as_posix(), archives, wrong=False)
    for error in errors:
        yield PassedOver(Path(error.filename or root), error.strerror or "cannot be opened", wrong=True)


def _source(path: Path, name: str, archives: bool, *, wrong: bool) -> SourceFile | PassedOver:
    archive = archives and path.suffix.lower() == ZIP
    if path.suffix.lower() not in MEDIA_TYPES and not archive:
        return PassedOver(path, f"unknown kind of file; these are read: {', '.join(MEDIA_TYPES)}", wrong=wrong)
    try:
        name.encode()
    except UnicodeEncodeError:
        return PassedOver(path, "its name is not UTF-8", wrong=True)
    return SourceFile(path, unicodedata.normalize("NFC", name), archive)

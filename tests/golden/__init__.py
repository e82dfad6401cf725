"""Baton as it was before the last change of the wire contract: what a fleet that is updated has beside the new one."""

from __future__ import annotations

import atexit
import functools
import shutil
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = Path(__file__).parent / "previous.tar.xz"


@functools.cache
def previous() -> Path:
    """A folder with the sources of the version before, to run its services in; unpacked once in a test process."""
    folder = Path(tempfile.mkdtemp(prefix="baton-previous-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder

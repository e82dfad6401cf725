"""`python -m tests.golden.make COMMIT`: packs the version that the current one has to get on with, from git.

The same commit gives the same bytes: files come in the order of their names, with one date and one owner.
"""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import sys
import tarfile

from tests.golden import ARCHIVE

KEPT = ("proto/baton_proto", "proto/vectors", "services")
LEFT_OUT = (
    "proto/baton_proto/vectors",
    "services/cli",
    "services/gateway/static",
    "services/retriever/ingestion",
    "services/retriever/reading",
    "services/tools/http",
    "services/tools/mcp",
)
"""What gateway and workers do without until somebody asks for it."""
MOST_BYTES = 350_000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.make", description=__doc__)
    parser.add_argument("commit", help="the release before the change of the wire contract")
    data = packed(parser.parse_args(argv).commit)
    if len(data) > MOST_BYTES:
        print(f"{len(data)} bytes are more than {MOST_BYTES}: leave out more", file=sys.stderr)
        return 1
    ARCHIVE.write_bytes(data)
    print(f"{ARCHIVE.name}: {len(data)} bytes; now name the commit in README.md")
    return 0


def packed(commit: str) -> bytes:
    """The bytes of the archive. Raises CalledProcessError: there is no such commit here."""
    exported = subprocess.run(["git", "archive", commit, *KEPT], stdout=subprocess.PIPE, check=True).stdout
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(exported)) as source,
        lzma.open(packed, "wb", preset=9 | lzma.PRESET_EXTREME) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for member in sorted(filter(_kept, source), key=lambda member: member.name):
            made = tarfile.TarInfo(member.name)
            made.size = member.size
            archive.addfile(made, source.extractfile(member))
    return packed.getvalue()


def _kept(member: tarfile.TarInfo) -> bool:
    return member.isfile() and not member.name.startswith(tuple(f"{folder}/" for folder in LEFT_OUT))


if __name__ == "__main__":
    sys.exit(main())

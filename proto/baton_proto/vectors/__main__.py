"""`python -m baton_proto.vectors`: compare the golden vectors with this code; `--add` writes the ones that are new."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .store import FILES, compare, read, write


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m baton_proto.vectors", description=__doc__)
    default = Path(__file__).resolve().parents[2] / "vectors" / "v1"
    parser.add_argument("--folder", type=Path, default=default, help="where the vectors are (%(default)s)")
    parser.add_argument("--add", action="store_true", help="add new vectors; what is there is never changed")
    options = parser.parse_args(argv)
    changed = missing = 0
    for name, build in FILES.items():
        path = options.folder / f"{name}.json"
        difference = compare(read(path), build())
        for text in difference.changed:
            print(f"{path.name}: {text}", file=sys.stderr)
        changed += len(difference.changed)
        if options.add and not difference.changed:
            write(path, difference.all)
            print(f"{path.name}: {len(difference.added)} added, {len(difference.all)} in all")
        else:
            missing += len(difference.added)
            for case in difference.added:
                print(f"{path.name}: {case['name']!r} is new: run with --add", file=sys.stderr)
    if changed:
        print("Released vectors are never rewritten: change the code, or make a new case.", file=sys.stderr)
    return 1 if changed or missing else 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes the dashboards as Grafana reads them: `python deploy/grafana/make.py FOLDER` (`make dashboards`)."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from question import question
from system import system
from variants import variants


def main() -> None:
    folder = Path(sys.argv[1])
    for made in (question(), system(), variants()):
        assert made.uid
        text = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(made)
        (folder / f"{made.uid}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""`python -m tests.model`: search the model, with all rules or without some, and print what breaks."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from .bounds import BOUNDS
from .rules import CLAUSES, Clause, Rules
from .search import Search


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--without", metavar="RULE", help="a rule (3) or one clause of it (3a) that is switched off")
    parser.add_argument("--faults", type=int, metavar="N", help="most faults in one run (default: as the tests do)")
    parser.add_argument("--workers", type=int, metavar="N", help="how many workers there are")
    parser.add_argument("--bounds", choices=sorted(BOUNDS), help="search only these bounds")
    arguments = parser.parse_args()
    wanted = {"faults": arguments.faults, "workers": arguments.workers}
    wider = {name: value for name, value in wanted.items() if value is not None}
    if arguments.without is None:
        return _all_rules([arguments.bounds] if arguments.bounds else list(BOUNDS), wider)
    clauses = [clause for clause in CLAUSES.values() if clause.name.startswith(arguments.without)]
    if not clauses:
        parser.error(f"--without {arguments.without}: there are {', '.join(CLAUSES)}, or a number alone")
    for clause in clauses:
        _without(clause, arguments.bounds or clause.bounds, wider)
    return 0


def _all_rules(names: list[str], wider: dict[str, int]) -> int:
    broken = 0
    for name in names:
        search = Search(Rules(), dataclasses.replace(BOUNDS[name], **wider))
        found = search.run()
        print(f"{name}: {len(search.states)} states, {found or 'nothing breaks'}")
        broken += found is not None
    return 1 if broken else 0


def _without(clause: Clause, bounds: str, wider: dict[str, int]) -> None:
    found = Search(clause.off, dataclasses.replace(BOUNDS[bounds], **wider)).run()
    print(f"Without {clause.name} ({clause.says}): {found or 'nothing breaks within these bounds'}\n")


if __name__ == "__main__":
    sys.exit(main())

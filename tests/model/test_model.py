"""The seven rules: with all of them nothing breaks within the bounds, and without any clause of them something does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from .bounds import BOUNDS, Bounds
from .real import after_bad_answer, feed
from .rules import CLAUSES, Clause, Rules
from .search import Found, Search


@cache
def with_all_rules(bounds: Bounds) -> tuple[Search, Found | None]:
    search = Search(Rules(), bounds)
    return search, search.run()


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=lambda bounds: bounds.name)
def test_with_all_rules_every_run_keeps_every_property_and_ends(bounds: Bounds) -> None:
    _, found = with_all_rules(bounds)
    assert found is None, f"\n{found}"


@pytest.mark.parametrize("clause", CLAUSES.values(), ids=lambda clause: f"{clause.name}-{clause.switch}")
def test_without_a_clause_something_breaks(clause: Clause) -> None:
    found = Search(clause.off, BOUNDS[clause.bounds]).run()
    assert found is not None, f"nothing breaks without {clause.name}: {clause.says}"
    assert found.breaks == clause.breaks, f"\n{found}"


def test_a_forgotten_message_id_may_cost_many_deliveries() -> None:
    """A limit that we know (see the ADR). Where this finds nothing any more, count deliveries in `forgetful` too."""
    longer = {"texts": ("abcd",), "kinds": frozenset({"window", "gateway crash"}), "counts_deliveries": True}
    found = Search(Rules(), replace(BOUNDS["forgetful"], **longer)).run()
    assert found is not None
    assert found.breaks == "deliveries"


def test_every_rule_has_a_switch() -> None:
    assert {clause.name[0] for clause in CLAUSES.values()} == set("1234567")
    assert {clause.switch for clause in CLAUSES.values()} == set(Rules.__slots__)


@pytest.mark.parametrize(
    ("name", "some"),
    [("workers", {"ASabD", "AC", "ASC", "ASaC", "AX", "ASX", "ASabX"}), ("upgrade", {"ASxyD", "ASaRxyD", "ASaRxRabD"})],
)
def test_the_search_sees_every_way_in_which_a_request_can_go(name: str, some: set[str]) -> None:
    """A search that reaches nothing finds nothing."""
    search, _ = with_all_rules(BOUNDS[name])
    assert some <= {state.kinds for state in search.states if state.ended}
    assert max(copy.deliveries for state in search.states for copy in state.queue) > 2


def test_the_decisions_are_those_of_the_real_code() -> None:
    """`real.py` asks a `Sequencer` and an `Assembler`; these are their answers that the rules rest on."""
    mine, other = (1, 0, 1, 3), (1, 0, 2, 3)
    assert after_bad_answer(mine, 3, 3, tail=mine, last=4) == "stored"
    assert after_bad_answer(mine, 3, 3, tail=other, last=3) == "again"
    assert after_bad_answer(mine, 3, 3, tail=other, last=4) == "replaced"
    assert after_bad_answer(mine, 3, 3, tail=(), last=0) == "replaced"
    assert [feed("AS", seq, kind) for seq, kind in ((1, "S"), (2, "a"), (3, "b"))] == ["", "a", "gap"]
    assert feed("ASX", 3, "b") == ""


def test_a_counterexample_is_printed_step_by_step() -> None:
    assert str(Search(CLAUSES["1a"].off, BOUNDS["workers"]).run()).splitlines() == [
        "numbers: the stored frames are not 0, 1, 2, …",
        "  a request is accepted  [log A]",
        "  gateway 1 publishes the first item",
        "  retriever A takes the item",
        "  retriever A reads A and is to write S",
        "  retriever A sends 'S'",
        "  'S' of retriever A is late",
        "  retriever A finds nothing new and sends 'S' again",
        "  the log stores 'S' of retriever A  [log AS]",
        "  a late append of 'S' arrives  [log ASS]",
        "  In the end: log ASS, shown AS.",
    ]

"""The kit finds what is wrong with a worker, and says it in the right words; and it finds nothing else."""

from __future__ import annotations

import asyncio
import sys

import pytest

from conformance.kit import Options
from conformance.promise import Outcome
from conformance.report import summary
from conformance.running import Subject, examine
from tests.conformance.wrong_workers import WRONG

GOOD = "good_items_are_dealt_with"
REPLACED = "who_was_replaced_stops"
APPEND = "an_append_that_is_not_stored_is_repeated"
EXPECTED = {
    "leaving_out_a_number": (GOOD, "1", "`seq` 4 (`answer_chunk`) where 3 was due"),
    "with_a_frame_too_large": (GOOD, "4", "is over the limit of 786432"),
    "stamping_local_time": (GOOD, "4", "is not RFC 3339 in UTC with milliseconds"),
    "without_the_fence": (GOOD, "2.4", "an append without the header Nats-Expected-Last-Subject-Sequence"),
    "acknowledging_first": (GOOD, "2.5", "it acknowledged its item when the log ended with frame 1"),
    "acknowledging_when_replaced": (REPLACED, "2.5", "it acknowledged its item when the log ended with frame"),
    "writing_on_when_replaced": (REPLACED, "2.4", "it went on behind the other holder's frame"),
    "never_renewing": (APPEND, "2.3", "it held the item for 2.5 s and did not renew it"),
    "with_another_append_each_time": (APPEND, "2.4", "it did not repeat the append that failed"),
    "citing_what_was_not_given": ("an_answer_cites_only_what_was_given", "5", "it cites [99]; the passages it was"),
    "beginning_again": ("a_log_half_written_is_continued", "2.2", "says again what an earlier holder had written"),
    "deaf_to_cancels": ("a_cancel_from_before_is_found", "2.3", "the log ended with `done` with `stop`"),
    "dying_of_garbage": ("unreadable_references_are_dropped", "3", "it ended with status 3; its last lines: "),
}
"""For each wrong worker: the promise that it breaks, the section where what was seen is forbidden, and the words."""


def examined(name: str, *only: str) -> dict[str, Outcome]:
    subject = Subject(
        kind="generator",
        command=f"{sys.executable} -m tests.conformance.wrong_workers {name} {{nats}}",
        ack_wait_s=2.0,
        only=only,
        options=Options(patience_s=10.0),
    )
    outcomes = asyncio.run(examine(subject, lambda _: None, lambda _: None))
    return {outcome.promise.name: outcome for outcome in outcomes}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_wrong_with_a_worker_is_said(name: str) -> None:
    promise, section, words = EXPECTED[name]
    outcomes = examined(name, promise, "unreadable_references_are_dropped")
    found = outcomes[promise]
    assert (found.verdict, found.section) == ("broken", section), found
    assert words in found.seen
    assert words.split(" (")[0] in " ".join(summary([found]).split())
    assert name == "dying_of_garbage" or outcomes["unreadable_references_are_dropped"].verdict == "kept"


def test_a_worker_with_nothing_wrong_keeps_all_these_promises() -> None:
    outcomes = examined("none", *{promise for promise, _, _ in EXPECTED.values()})
    assert {name: outcome.verdict for name, outcome in outcomes.items()} == dict.fromkeys(outcomes, "kept"), outcomes


def test_every_wrong_worker_is_examined() -> None:
    assert WRONG.keys() - {"none"} == EXPECTED.keys()

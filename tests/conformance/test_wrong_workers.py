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
CANCEL = "a_cancel_stops_the_work"
TOOLS = "a_generator_uses_what_tools_gave"
READERS = "what_a_user_may_not_read_is_not_found"
DRAIN = "a_worker_that_is_told_to_go_leaves_nothing_undone"
VARIANT = "a_hand_over_keeps_to_the_variant"
AGAIN = "a_variants_hand_off_is_told_again_to_its_queue"
SERVED = "who_has_served_is_said"
APPEND = "an_append_that_is_not_stored_is_repeated"
EXPECTED = {
    "leaving_out_a_number": (GOOD, "1", "`seq` 4 (`answer_chunk`) where 3 was due"),
    "with_a_frame_too_large": (GOOD, "4", "is over the limit of 786432"),
    "stamping_local_time": (GOOD, "4", "is not RFC 3339 in UTC with milliseconds"),
    "without_the_fence": (GOOD, "2.4", "an append without the header Nats-Expected-Last-Subject-Sequence"),
    "acknowledging_first": (GOOD, "2.5", "it acknowledged its item when the log ended with frame 1"),
    "acknowledging_when_replaced": (REPLACED, "2.5", "it acknowledged its item when the log ended with frame"),
    "writing_on_when_replaced": (REPLACED, "2.4", "it went on behind the other holder's frame"),
    "reusing_the_append_id": (GOOD, "2.4", "came with the `append_id` 'mine' of an earlier append"),
    "acknowledging_before_the_end_is_stored": (APPEND, "2.5", "it acknowledged its item when the log ended with frame"),
    "standing_still_to_compute": (CANCEL, "2.3", "s; after one the gateway ends the log itself"),
    "dropping_unknown_fields": (TOOLS, "7", "the fields conformance_later of the item did not survive the hand-off"),
    "telling_the_others_of_a_variants": (
        VARIANT,
        "2.6",
        "hands over to retrieve.conformance, and its reference was published to the queue retrieve",
    ),
    "taking_it_for_the_variants": (SERVED, "3", "says that the variant 'conformance' served what that never had"),
    "telling_before_it_is_stored": (TOOLS, "2.6", "it told the next stage of a hand-off that was not stored yet"),
    "deaf_to_cancels_once_it_works": (CANCEL, "2.3", "the log ended with `done` with `stop`, made"),
    "announcing_slots_that_it_lacks": (
        "it_serves_as_many_as_it_says",
        "3",
        "it announces 16 slots, and of 16 requests",
    ),
    "leaving_at_once": (DRAIN, "2.7", "it left an item neither acknowledged nor given back"),
    "appending_when_it_wakes": ("a_worker_that_stood_still_lets_go", "2.4", "it woke, and tried to append"),
    "never_renewing": (APPEND, "2.3", "it held the item for 2.5 s and did not renew it"),
    "with_another_append_each_time": (APPEND, "2.4", "it did not repeat the append that failed"),
    "citing_what_was_not_given": ("an_answer_cites_only_what_was_given", "5", "it cites [99]; the passages it was"),
    "beginning_again": ("a_log_half_written_is_continued", "2.2", "says again what an earlier holder had written"),
    "deaf_to_cancels": ("a_cancel_from_before_is_found", "2.3", "the log ended with `done` with `stop`"),
    "dying_of_garbage": ("unreadable_references_are_dropped", "3", "it ended with status 3; its last lines: "),
}
"""For each wrong worker: the promise that it breaks, the section where what was seen is forbidden, and the words."""


def examined(name: str, *only: str, patience_s: float = 10.0) -> dict[str, Outcome]:
    subject = Subject(
        kind="generator",
        command=f"{sys.executable} -m tests.conformance.wrong_workers {name} {{nats}}",
        ack_wait_s=2.0,
        only=only,
        options=Options(patience_s=patience_s),
    )
    outcomes = asyncio.run(examine(subject, lambda _: None, lambda _: None))
    return {outcome.promise.name: outcome for outcome in outcomes}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_wrong_with_a_worker_is_said(name: str) -> None:
    promise, section, words = EXPECTED[name]
    patience_s = 4.0 if name == "announcing_slots_that_it_lacks" else 10.0  # it waits in vain
    outcomes = examined(name, promise, "unreadable_references_are_dropped", patience_s=patience_s)
    found = outcomes[promise]
    assert (found.verdict, found.section) == ("broken", section), found
    assert words in found.seen
    assert words.split(" (")[0] in " ".join(summary([found]).split())
    other = outcomes["unreadable_references_are_dropped"]
    assert name == "dying_of_garbage" or other.verdict == "kept", other


def test_a_retriever_that_shows_everybody_what_is_a_groups_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_RETRIEVER", "tests.chaos.small_retriever:open_retriever")  # it asks nobody who he is
    options = Options(restricted=("hr", "annual-leave.en.md"))
    command = f"{sys.executable} -m services.retriever"
    subject = Subject(kind="retriever", command=command, only=[READERS], options=options)
    (found,) = asyncio.run(examine(subject, lambda _: None, lambda _: None))
    assert (found.verdict, found.section) == ("broken", "2.11")
    assert "annual-leave.en.md, which only hr may read, was found for a user with the claims {}" in found.seen


def test_a_worker_with_nothing_wrong_keeps_all_these_promises() -> None:
    outcomes = examined("handing_over", *{promise for promise, _, _ in EXPECTED.values()}, AGAIN)
    assert {name: outcome.verdict for name, outcome in outcomes.items()} == dict.fromkeys(outcomes, "kept"), outcomes


def test_a_worker_that_knows_of_no_variants_is_advised() -> None:
    outcomes = examined("of_the_version_before", VARIANT, AGAIN, SERVED, GOOD, TOOLS)
    good = [outcomes.pop(GOOD), outcomes.pop(TOOLS)]
    assert [outcome.verdict for outcome in good] == ["kept", "kept"], good
    assert {outcome.verdict for outcome in outcomes.values()} == {"advice"}, outcomes
    for outcome in outcomes.values():
        assert "it leaves variants out, which it may (section 7): " in outcome.seen


def test_a_worker_that_serves_one_request_at_a_time_and_thinks_first_is_good() -> None:
    outcomes = examined("alone_and_thinking", GOOD, CANCEL, DRAIN)
    assert {name: outcome.verdict for name, outcome in outcomes.items()} == dict.fromkeys(outcomes, "kept"), outcomes


def test_a_worker_that_acknowledges_twice_is_good() -> None:
    outcomes = examined("acknowledging_twice", GOOD, TOOLS)
    assert {name: outcome.verdict for name, outcome in outcomes.items()} == dict.fromkeys(outcomes, "kept"), outcomes


def test_every_wrong_worker_is_examined() -> None:
    good = {"none", "handing_over", "alone_and_thinking", "acknowledging_twice", "of_the_version_before"}
    assert WRONG.keys() - good == EXPECTED.keys()

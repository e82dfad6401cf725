"""What a client of `make chaos` notices about the frames that it gets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.transcript import Frame, Transcript


def chunk(seq: int, **fields: Any) -> Frame:
    return {"type": "answer_chunk", "seq": seq, "content": f"{seq} ", "timestamp": f"t{seq}", **fields}


LOG: list[Frame] = [
    {"type": "accepted", "seq": 0, "timestamp": "t0"},
    *(chunk(seq) for seq in range(1, 5)),
    {"type": "done", "seq": 5, "timestamp": "t5", "finish_reason": "stop"},
]


def told(*seqs: int, start: int = 0) -> Transcript:
    one = Transcript(start)
    for seq in seqs:
        one.take(LOG[seq])
    return one


def clean(one: Transcript) -> bool:
    return not (one.repeated or one.reordered or one.wrong or one.missing(LOG) or one.differing(LOG))


def test_the_whole_log_in_order_is_in_order() -> None:
    one = told(0, 1, 2, 3, 4, 5)
    assert clean(one)
    assert one.end == LOG[5]


def test_a_frame_that_never_came_is_missing() -> None:
    assert told(0, 1, 3, 4, 5).missing(LOG) == [2]


def test_the_end_of_a_log_that_was_not_followed_to_its_end_is_not_missing_yet() -> None:
    assert told(0, 1, 2).missing(LOG) == []


def test_a_frame_that_comes_twice_in_one_following_is_a_repeat() -> None:
    one = told(0, 1, 1, 2)
    assert one.repeated == ["1 came where 2 was due"]
    assert one.reordered == []


def test_a_frame_that_comes_late_is_reordered() -> None:
    one = told(0, 1, 3, 2, 4, 5)
    assert len(one.reordered) == 1
    assert one.repeated == []


def test_a_resume_from_an_older_place_brings_frames_again() -> None:
    one = told(0, 1, 2, 3)
    one.asked_after(1)
    one.resumed(2)
    for seq in (2, 3, 4, 5):
        one.take(LOG[seq])
    assert clean(one)


def test_frames_again_without_a_resume_that_asked_for_them_are_repeats() -> None:
    one = told(0, 1, 2, 3)
    one.connected()
    one.take(LOG[2])
    assert one.repeated


def test_a_resume_that_goes_on_elsewhere_than_asked_is_wrong() -> None:
    one = told(0, 1, 2)
    one.asked_after(2)
    one.resumed(4)
    assert one.wrong


def test_two_resumes_are_answered_one_after_the_other() -> None:
    one = told(0, 1)
    one.asked_after(1)
    one.asked_after(0)
    one.resumed(2)
    one.take(LOG[2])
    one.resumed(1)
    for seq in (1, 2, 3, 4, 5):
        one.take(LOG[seq])
    assert clean(one)


def test_a_query_sent_again_starts_the_log_again_once() -> None:
    one = told(0, 1, 2)
    one.asked()
    for seq in (3, 0, 1, 2):  # what was on its way still comes
        one.take(LOG[seq])
    assert clean(one)
    one.take(LOG[0])
    assert one.repeated


def test_a_query_of_an_earlier_connection_starts_nothing_again() -> None:
    one = told(0, 1)
    one.asked()
    one.connected()
    one.take(LOG[0])
    assert one.repeated


def test_joined_chunks_count_for_all_that_they_join() -> None:
    one = told(0)
    one.take({**chunk(3), "from_seq": 1, "content": "1 2 3 "})
    one.take(LOG[4])
    one.take(LOG[5])
    assert clean(one)


@pytest.mark.parametrize(
    "frame",
    [
        chunk(1, content="other"),
        {**chunk(3), "from_seq": 1, "content": "1 2 "},
        {**chunk(3), "from_seq": 0, "content": "1 2 3 "},
        {**chunk(3), "from_seq": 1, "content": "1 2 3 ", "timestamp": "t2"},
        chunk(9),
    ],
)
def test_what_is_not_in_the_log_differs(frame: Frame) -> None:
    one = Transcript()
    one.take(frame)
    assert one.differing(LOG)


def test_a_second_client_misses_nothing_before_its_start() -> None:
    assert clean(told(3, 4, 5, start=3))
    assert told(4, 5, start=3).missing(LOG) == [3]

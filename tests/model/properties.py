"""What must never happen, each with the name under which the search reports it."""

from __future__ import annotations

from functools import cache

from .bounds import Bounds
from .state import HANDOFFS, TERMINALS, State

PROPERTIES = {
    "shown": "a reader was shown what is not the beginning of the log",
    "numbers": "the stored frames are not 0, 1, 2, …",
    "text": "the log is not that of an undisturbed run: something is there twice, mixed, or after the end",
    "changed": "a stored frame was changed or taken back",
    "lost": "the item that the log waits for is gone from the queue, and nobody can publish it again",
    "deliveries": "a fault has cost the request more than one delivery; with enough of them it ends as poisoned",
    "stuck": "nothing more goes wrong, and yet the log does not end or a reader does not see its end",
    "left": "the request has ended, and its item stays in the queue for ever",
}


def broken(state: State, bounds: Bounds) -> str | None:
    """The property that does not hold in `state`; `changed` is about two states, so the search itself sees to it."""
    kinds = state.kinds
    if any(frame.seq != number for number, frame in enumerate(state.log)):
        return "numbers"
    if not proper(kinds, bounds.texts):
        return "text"
    if any(kinds[: len(reader.shown)] != reader.shown for reader in state.readers):
        return "shown"
    if lost(state):
        return "lost"
    most = 1 + state.faults
    if bounds.counts_deliveries and not state.ended and any(copy.deliveries > most for copy in state.queue):
        return "deliveries"
    return None


@cache
def proper(kinds: str, texts: tuple[str, ...]) -> bool:
    """Whether a log could be that of an undisturbed run: each stage once, one text, nothing after the end."""
    body, end = (kinds[:-1], kinds[-1]) if kinds[-1] in TERMINALS else (kinds, "")
    if body == "A":
        return end != "D"
    if not body.startswith("AS"):
        return False
    *discarded, text = body[2:].split("R")
    begun = all(any(whole.startswith(part) for whole in texts) for part in (*discarded, text))
    return begun and (end != "D" or text in texts)


def lost(state: State) -> bool:
    """Whether a log that goes on has lost its item. One that ends in a hand-off is safe as long as a publication of it
    would be taken; frames after the hand-off can only be continued from the item in the queue."""
    if state.ended or state.cancelled or state.deadline:
        return False
    latest = max(frame.seq for frame in state.log if frame.kind in HANDOFFS)
    if any(copy.ref == latest for copy in state.queue):
        return False
    return latest != state.log[-1].seq or bool(state.known & 1 << latest)


def at_rest(state: State) -> str | None:
    """What is wrong with a state after which nothing is certain to happen any more."""
    if not state.ended or any(reader.shown != state.kinds for reader in state.readers):
        return "stuck"
    # A worker that hangs keeps its item, and where no worker is left nobody takes any.
    tidy = not state.queue or state.idle == 0 or any(worker.hung for worker in state.workers)
    return None if tidy else "left"

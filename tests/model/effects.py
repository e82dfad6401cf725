"""What a message does when it arrives at the log or at the work queue."""

from __future__ import annotations

from .bounds import Bounds
from .real import feed
from .rules import Rules
from .state import HANDOFFS, AppendId, Copy, Frame, Late, State


def store(
    state: State, frame: Frame, append_id: AppendId, expected: int, rules: Rules, bounds: Bounds
) -> tuple[State, bool]:
    """An append arrives at the log. Whether it is stored."""
    ok = expected == len(state.log) or not rules.fence
    if ok:
        before = state.log if rules.keep_frames else state.log[: frame.seq]
        state = state._replace(log=(*before, frame), tail=append_id)
    if ok or not rules.relay_stored:
        state = _tell_readers(state, frame, bounds)
    return state, ok


def _tell_readers(state: State, frame: Frame, bounds: Bounds) -> State:
    for index, reader in enumerate(state.readers):
        if reader.phase == "away":
            continue
        state = state.reading(index, inbox=(*reader.inbox, frame))
        if not bounds.lag:
            state = take_live(state, index)
    return state


def take_live(state: State, index: int) -> State:
    """A reader takes the next live message; where it does not join on, the log is read."""
    reader = state.readers[index]
    frame, inbox = reader.inbox[0], reader.inbox[1:]
    given = feed(reader.shown, frame.seq, frame.kind)
    if given == "gap":
        return read_log(state.reading(index, inbox=inbox), index)
    return state.reading(index, inbox=inbox, shown=reader.shown + given)


def read_log(state: State, index: int) -> State:
    """A reader reads what is stored after what it has shown."""
    shown = state.readers[index].shown
    for frame in state.log:
        given = feed(shown, frame.seq, frame.kind)
        shown += "" if given == "gap" else given
    return state.reading(index, shown=shown)


def publish(state: State, ref: int, rules: Rules) -> State:
    """A work item arrives at the queue: stored, unless its message id is known."""
    item, bit = min(ref, 1), 1 << ref
    if rules.message_ids and state.known & bit:
        return state
    made = list(state.made)
    made[item] += 1
    queue = tuple(sorted((*state.queue, Copy(ref, made[item] - 1))))
    return state._replace(queue=queue, known=state.known | bit, made=(made[0], made[1]))


def publish_again(state: State, rules: Rules) -> State:
    """Somebody looks at the log: a hand-off at its end is published once more."""
    if rules.publish_again and state.log[-1].kind in HANDOFFS:
        return publish(state, state.log[-1].seq, rules)
    return state


def acknowledge(state: State, ref: int, n: int) -> State:
    """An acknowledgement arrives. The server does not care whose delivery it was for: the item is gone."""
    return state._replace(queue=tuple(copy for copy in state.queue if (copy.ref, copy.n) != (ref, n)))


def give_back(state: State, ref: int, n: int) -> State:
    """A refusal of the item arrives, whoever has it now: the item is to be had again."""
    return change_copy(state, ref, n, leased=False)


def change_copy(state: State, ref: int, n: int, **changed: object) -> State:
    changes = (copy._replace(**changed) if (copy.ref, copy.n) == (ref, n) else copy for copy in state.queue)
    return state._replace(queue=tuple(sorted(changes)))


def arrive(state: State, message: Late, rules: Rules, bounds: Bounds) -> State:
    """A late message arrives after all."""
    if message.what == "append":
        return store(state, message.frame, message.append_id, message.expected, rules, bounds)[0]
    if message.what == "publish":
        return publish(state, message.ref, rules)
    if message.what == "ack":
        return acknowledge(state, message.ref, message.n)
    return give_back(state, message.ref, message.n)

"""Every step of the readers' side: relay, repair, come back, end what nobody continues; and what may go wrong there."""

from __future__ import annotations

from collections.abc import Iterator

from .bounds import Bounds
from .effects import publish, publish_again, read_log, store, take_live
from .rules import Rules
from .state import AppendId, Frame, Late, State, Step


def steps(state: State, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    for index, reader in enumerate(state.readers):
        name = f"gateway {index + 1}"
        if reader.phase == "away":
            yield Step(f"the client of {name} comes back", _come_back(state, index, rules))
            continue
        if reader.phase == "publishing":
            yield Step(f"{name} publishes the first item", publish(state, 0, rules).reading(index, phase="watching"))
        if reader.inbox:
            yield Step(f"{name} relays {reader.inbox[0].kind!r}", take_live(state, index))
        elif len(reader.shown) < len(state.log):
            yield Step(f"{name} reads the silent log", read_log(state, index))
        yield from _ending(state, index, name, rules, bounds)
        if state.faults < bounds.faults:
            yield from _faults(state, index, name, rules, bounds)
    if state.faults < bounds.faults and not state.ended:
        yield from _orders(state.fault(), bounds)


def _come_back(state: State, index: int, rules: Rules) -> State:
    return publish_again(read_log(state.reading(index, phase="watching"), index), rules)


def nobody_continues(state: State) -> bool:
    """Whether a gateway may end the log: cancelled, past its deadline (for which a hung holder waits), or no worker."""
    if state.cancelled or state.deadline or any(worker.hung for worker in state.workers):
        return True
    return state.idle == 0 and not any(worker.awake for worker in state.workers)


def _end(index: int, expected: int) -> tuple[Frame, AppendId]:
    return Frame(expected, "X"), (-1 - index, expected)


def _ending(state: State, index: int, name: str, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    reader = state.readers[index]
    if reader.phase == "watching" and rules.anybody_ends and not state.ended and nobody_continues(state):
        if rules.end_by_append:
            ending = state.reading(index, phase="ending", expected=len(state.log))
            yield Step(f"{name} reads {state.kinds} and sends its end", ending)
        elif not reader.shown.endswith("X"):
            yield Step(f"{name} tells its client the end", state.reading(index, shown=reader.shown + "X"))
    elif reader.phase == "ending":
        frame, append_id = _end(index, reader.expected)
        after, ok = store(state, frame, append_id, reader.expected, rules, bounds)
        word = "stores" if ok else "refuses"
        yield Step(f"the log {word} the end that {name} sent", after.reading(index, phase="watching"))


def _faults(state: State, index: int, name: str, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    reader, kinds, state = state.readers[index], bounds.kinds, state.fault()
    if "live lost" in kinds and reader.inbox:
        lost = state.reading(index, inbox=reader.inbox[1:])
        yield Step(f"{name} does not hear {reader.inbox[0].kind!r}", lost, certain=False)
    if "gateway crash" not in kinds:
        return
    away = state.reading(index, phase="away", inbox=())
    yield Step(f"{name} crashes", away, certain=False)
    if reader.phase == "publishing":
        yield Step(f"{name} crashes after it has published", publish(away, 0, rules), certain=False)
    elif reader.phase == "ending":
        frame, append_id = _end(index, reader.expected)
        stored = store(away, frame, append_id, reader.expected, rules, bounds)[0]
        yield Step(f"{name} crashes with its end arrived", stored, certain=False)
        late = away.sending_late(Late("append", frame, append_id, reader.expected))
        yield Step(f"{name} crashes with its end on the way", late, certain=False)


def _orders(state: State, bounds: Bounds) -> Iterator[Step]:
    if "cancel" in bounds.kinds and not state.cancelled:
        yield Step("the user cancels", state._replace(cancelled=True), certain=False)
    if "deadline" in bounds.kinds and not state.deadline:
        yield Step("the deadline passes", state._replace(deadline=True), certain=False)
    if "window" in bounds.kinds and state.known:
        yield Step("the queue forgets its message ids", state._replace(known=0), certain=False)

"""Every step of a worker: take, read the log, append, hand over, end; and what may come between any two of them."""

from __future__ import annotations

from collections.abc import Iterator

from .bounds import Bounds
from .effects import acknowledge, arrive, change_copy, give_back, publish, store
from .real import after_bad_answer
from .rules import Rules
from .state import HANDOFFS, TERMINALS, Frame, Late, State, Step, Worker


def steps(state: State, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    for copy in state.queue:
        if copy.leased:
            yield from _expire(state, copy.ref, copy.n)
        elif state.idle:
            yield _take(state, copy.ref, copy.n, copy.deliveries + 1)
    for worker in state.workers:
        if worker.awake and not worker.hung:
            yield from _progress(state, worker, rules, bounds)
            yield from _faults(state, worker, rules, bounds)
        elif not worker.awake:
            yield _wake(state, worker, rules)
    for message in state.late:
        rest = list(state.late)
        rest.remove(message)
        late = arrive(state._replace(late=tuple(rest)), message, rules, bounds)
        yield Step(f"a late {message.what}{_letter(message)} arrives", late, certain=False)


def _letter(message: Late) -> str:
    return f" of {message.frame.kind!r}" if message.what == "append" else ""


# --- taking ---------------------------------------------------------------------------------------------------------


def _take(state: State, ref: int, n: int, delivery: int) -> Step:
    worker = Worker(ref, n, delivery)
    taken = change_copy(state, ref, n, deliveries=delivery, leased=True)
    workers = tuple(sorted((*state.workers, worker)))
    return Step(f"{worker.name} takes the item", taken._replace(idle=state.idle - 1, workers=workers))


def _expire(state: State, ref: int, n: int) -> Iterator[Step]:
    """An item that nobody renews is to be had again. A frozen holder will not know, but its lease is over."""
    holders = [worker for worker in state.workers if (worker.ref, worker.n) == (ref, n)]
    if any(worker.renews for worker in holders):
        return
    expired = change_copy(state, ref, n, leased=False)
    for worker in holders:
        if not worker.awake:
            expired = expired.having(worker, lease=False)
    yield Step(f"the {'retrieve' if ref == 0 else 'generate'} item is not renewed and goes back to the queue", expired)


def _read(state: State, worker: Worker, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    """Read the log's end and decide, as `taking.take` does."""
    name = worker.name
    if state.ended:
        yield Step(f"{name} finds an ended log", state.having(worker, phase="acking"))
        return
    latest = max(frame.seq for frame in state.log if frame.kind in HANDOFFS)
    if latest != worker.ref and rules.drop_outdated:
        if rules.publish_again and state.log[-1].seq == latest:
            yield Step(
                f"{name} finds another hand-off at the end", state.having(worker, phase="publishing", target=latest)
            )
        else:
            yield Step(f"{name} finds that its item is not the latest", state.having(worker, phase="acking"))
        return
    for plan in _plans(state, worker.ref, rules, bounds):
        seq = len(state.log) if rules.keep_frames else worker.ref + 1
        holding = state.having(worker, phase="holding", seq=seq, expected=len(state.log), plan=plan)
        yield Step(f"{name} reads {state.kinds} and is to write {plan}", holding)


def _plans(state: State, ref: int, rules: Rules, bounds: Bounds) -> list[str]:
    """The frames that a holder is to write, one plan for each version of the program that it may be."""
    if ref == 0:
        return ["S"]
    text = state.kinds[ref + 1 :].rpartition("R")[2]
    if not (rules.go_on_from_log and rules.keep_frames):
        text = ""
    plans = []
    for whole in bounds.texts:
        goes_on = whole.startswith(text) or not rules.reset_other_text
        plans.append(whole[len(text) :] + "D" if goes_on else f"R{whole}D")
    return plans


# --- writing --------------------------------------------------------------------------------------------------------


def _progress(state: State, worker: Worker, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    """The next step of a worker that nothing disturbs."""
    match worker.phase:
        case "taken":
            yield from _read(state, worker, rules, bounds)
        case "holding":
            yield _send(state, worker, rules)
        case "asked":
            yield _answered(state, worker, rules, bounds)
            if not rules.one_in_flight and len(worker.plan) > 1:
                after = worker._replace(seq=worker.seq + 1, plan=worker.plan[1:])
                sent = state.sending_late(_append(after))
                if sent.late.count(_append(after)) == 1:
                    yield Step(f"{worker.name} also sends {after.plan[0]!r}", sent, certain=False)
        case "unsure":
            yield _look(state, worker, rules)
        case "publishing":
            yield _published(state, worker, rules)
        case "acking":
            yield _acknowledged(state, worker, rules)


def _append(worker: Worker) -> Late:
    append_id = (worker.ref, worker.n, worker.delivery, worker.seq)
    return Late("append", Frame(worker.seq, worker.plan[0]), append_id, worker.expected)


def _send(state: State, worker: Worker, rules: Rules) -> Step:
    plan = "C" if state.cancelled else worker.plan
    if plan[0] in HANDOFFS and not rules.frame_first:
        publishing = state.having(worker, phase="publishing", target=worker.seq, plan=plan)
        return Step(f"{worker.name} goes to publish the item first", publishing)
    return Step(f"{worker.name} sends {plan[0]!r}", state.having(worker, phase="asked", plan=plan))


def _answered(state: State, worker: Worker, rules: Rules, bounds: Bounds) -> Step:
    message = _append(worker)
    stored, ok = store(state, message.frame, message.append_id, message.expected, rules, bounds)
    if ok:
        return Step(f"the log stores {worker.plan[0]!r} of {worker.name}", _advance(stored, worker, rules))
    return Step(f"the log refuses {worker.plan[0]!r} of {worker.name}", stored.having(worker, phase="unsure"))


def _advance(state: State, worker: Worker, rules: Rules) -> State:
    """The worker knows that its frame is stored."""
    kind, plan = worker.plan[0], worker.plan[1:]
    at = {"seq": worker.seq + 1, "expected": len(state.log), "plan": plan}
    if kind in TERMINALS:
        return state.having(worker, phase="acking", **at)
    if kind not in HANDOFFS:
        return state.having(worker, phase="holding", **at)
    if not rules.frame_first:
        return state.having(worker, phase="acking", **at)
    phase = "publishing" if rules.acknowledge_last else "acking"
    return state.having(worker, phase=phase, target=worker.seq, **at)


def _look(state: State, worker: Worker, rules: Rules) -> Step:
    """No good answer: what the tail says about the append in flight."""
    name, last = worker.name, len(state.log)
    if not rules.read_tail:
        again = state.having(worker, phase="asked", seq=state.log[-1].seq + 1, expected=last)
        return Step(f"{name} sends {worker.plan[0]!r} again, behind {state.kinds}", again)
    decision = after_bad_answer(_append(worker).append_id, worker.seq, worker.expected, state.tail, last)
    if decision == "stored":
        return Step(f"{name} finds its append at the tail", _advance(state, worker, rules))
    if decision == "again":
        return Step(f"{name} finds nothing new and sends {worker.plan[0]!r} again", state.having(worker, phase="asked"))
    if not rules.leave_item:
        return Step(f"{name} was replaced, and acknowledges", state.having(worker, phase="acking", target=-1))
    if not rules.stop_renewing:
        return Step(f"{name} was replaced, and renews", state.having(worker, phase="renewing"))
    return Step(f"{name} was replaced, and stops", state.without(worker, idle=1))


# --- handing over and settling --------------------------------------------------------------------------------------


def _published(state: State, worker: Worker, rules: Rules) -> Step:
    after = publish(state, worker.target, rules)
    what = f"{worker.name} publishes the item of frame {worker.target}"
    if not rules.frame_first and worker.plan[:1] and worker.plan[0] in HANDOFFS:
        return Step(what, after.having(worker, phase="asked"))
    if not rules.acknowledge_last and all((copy.ref, copy.n) != (worker.ref, worker.n) for copy in state.queue):
        return Step(what, after.without(worker, idle=1))
    return Step(what, after.having(worker, phase="acking"))


def _acknowledged(state: State, worker: Worker, rules: Rules) -> Step:
    after = acknowledge(state, worker.ref, worker.n)
    what = f"{worker.name} acknowledges its item"
    if not rules.acknowledge_last and worker.target > worker.ref:
        return Step(what, after.having(worker, phase="publishing"))
    return Step(what, after.without(worker, idle=1))


# --- faults ---------------------------------------------------------------------------------------------------------


def _faults(state: State, worker: Worker, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    left = bounds.faults - state.faults
    if left <= 0:
        return
    name, kinds = worker.name, bounds.kinds
    yield from _bad_answers(state.fault(), worker, rules, bounds)
    for how, cost, after, then in _in_the_air(state, worker, rules, bounds):
        if cost >= left:
            continue
        after = after.fault(1 + cost)
        if "crash" in kinds:
            yield Step(f"{name} crashes{how}", after.without(then), certain=False)
        if "freeze" in kinds:
            yield Step(f"{name} freezes{how}", after.having(then, awake=False), certain=False)
        if "deaf" in kinds and worker.phase != "renewing" and not worker.deaf:
            what = f"{name} gets no answers to its renewals"
            if rules.stop_without_lease:
                yield Step(f"{what} and stops{how}", after.without(then, idle=1), certain=False)
            elif then == worker:
                yield Step(f"{what} and goes on", after.having(then, deaf=True), certain=False)
    if worker.phase == "holding":
        yield from _ways_to_stop(state.fault(), worker, left, kinds)


def _ways_to_stop(state: State, worker: Worker, left: int, kinds: frozenset[str]) -> Iterator[Step]:
    if "hang" in kinds:
        yield Step(f"{worker.name} hangs, and renews", state.having(worker, hung=True), certain=False)
    if "drain" in kinds:
        gone = state.without(worker)
        yield Step(f"{worker.name} gives its item back", give_back(gone, worker.ref, worker.n), certain=False)
        if left > 1:
            late = gone.fault().sending_late(Late("give-back", ref=worker.ref, n=worker.n))
            yield Step(f"{worker.name} goes away, its give-back is late", late, certain=False)


def _bad_answers(state: State, worker: Worker, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    """What can happen to a message and its answer while its sender is well."""
    name, kinds = worker.name, bounds.kinds
    if worker.phase == "asked":
        what = f"{worker.plan[0]!r} of {name}"
        if "append lost" in kinds:
            yield Step(f"{what} is lost", state.having(worker, phase="unsure"), certain=False)
        if "append late" in kinds:
            late = state.sending_late(_append(worker)).having(worker, phase="unsure")
            yield Step(f"{what} is late", late, certain=False)
        if "answer lost" in kinds:
            message = _append(worker)
            stored, _ = store(state, message.frame, message.append_id, message.expected, rules, bounds)
            yield Step(f"the answer to {what} is lost", stored.having(worker, phase="unsure"), certain=False)
    elif worker.phase == "publishing" and "publish late" in kinds:
        late = state.sending_late(Late("publish", ref=worker.target))
        yield Step(f"the item of {name} is late", late, certain=False)
    elif worker.phase == "acking" and "ack lost" in kinds:
        gone = state.without(worker, idle=1)
        yield Step(f"the acknowledgement of {name} is lost", gone, certain=False)
        late = gone.sending_late(Late("ack", ref=worker.ref, n=worker.n))
        yield Step(f"the acknowledgement of {name} is late", late, certain=False)


def _in_the_air(state: State, worker: Worker, rules: Rules, bounds: Bounds) -> Iterator[tuple[str, int, State, Worker]]:
    """How a worker may be interrupted: before its message is sent, after it has arrived, or with it on the way."""
    if worker.phase == "asked":
        message = _append(worker)
        then = worker._replace(phase="unsure")
        unsure = state.having(worker, phase="unsure")
        yield " with its append lost", 0, unsure, then
        yield (
            " with its append arrived",
            0,
            store(unsure, message.frame, message.append_id, message.expected, rules, bounds)[0],
            then,
        )
    elif worker.phase == "publishing":
        message, unsure, then = Late("publish", ref=worker.target), state, worker
        yield " before it has published", 0, state, worker
        yield " after it has published", 0, publish(state, worker.target, rules), worker
    elif worker.phase == "acking":
        message, unsure, then = Late("ack", ref=worker.ref, n=worker.n), state, worker
        yield " before it has acknowledged", 0, state, worker
        yield " after it has acknowledged", 0, acknowledge(state, worker.ref, worker.n), worker
    else:
        yield "", 0, state, worker
        return
    yield f" with its {message.what} on the way", 1, unsure.sending_late(message), then


def _wake(state: State, worker: Worker, rules: Rules) -> Step:
    if not worker.lease and rules.stop_without_lease:
        return Step(f"{worker.name} wakes up without a lease, and stops", state.without(worker, idle=1), certain=False)
    return Step(f"{worker.name} wakes up and goes on", state.having(worker, awake=True, lease=True), certain=False)

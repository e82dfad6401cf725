"""How far the search goes: how many workers and readers, and which faults, how many of them in one run."""

from __future__ import annotations

from dataclasses import dataclass

from .state import Frame, Reader, State

WORKER_FAULTS = frozenset(
    {
        "crash",
        "freeze",
        "deaf",
        "hang",
        "drain",
        "append lost",
        "answer lost",
        "append late",
        "publish late",
        "ack lost",
    }
)
READER_FAULTS = frozenset({"live lost", "gateway crash"})
LATE = frozenset({"crash", "freeze", "append late"})
ORDERS = frozenset({"cancel", "deadline"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """A late message of a worker that crashes, freezes or stops is a fault of its own."""

    name: str
    workers: int
    readers: int
    faults: int
    kinds: frozenset[str]
    texts: tuple[str, ...] = ("ab",)
    lag: bool = False
    """Whether readers hear of a stored frame later than it is stored; otherwise at once."""
    counts_deliveries: bool = True
    """Whether a delivery too many is wrong; not where the queue forgets its message ids (see the ADR)."""

    def start(self) -> State:
        """`accepted` is stored; its gateway has not published the work item yet."""
        readers = [Reader("publishing" if index == 0 else "watching", shown="A") for index in range(self.readers)]
        return State(
            log=(Frame(0, "A"),),
            tail=(),
            queue=(),
            known=0,
            made=(0, 0),
            idle=self.workers,
            workers=(),
            late=(),
            readers=tuple(readers),
            faults=0,
            cancelled=False,
            deadline=False,
        )


BOUNDS = {
    bounds.name: bounds
    for bounds in (
        Bounds("workers", 2, 1, 2, WORKER_FAULTS | ORDERS | {"gateway crash"}),
        Bounds("readers", 1, 2, 1, READER_FAULTS | {"crash", "cancel"}, lag=True),
        Bounds("reader", 1, 1, 2, READER_FAULTS | LATE | ORDERS, lag=True),
        Bounds("resent", 2, 1, 1, frozenset({"gateway crash", "crash"})),
        Bounds("upgrade", 2, 1, 2, frozenset({"freeze", "drain", "append late"}), texts=("ab", "xy")),
        Bounds(
            "forgetful", 2, 1, 2, frozenset({"window", "gateway crash", "crash", "freeze"}), counts_deliveries=False
        ),
    )
}

"""What there is at one moment. Everything is a value, so that states can be compared and kept in a set.

A frame is one letter: `A` accepted (hands over to the retriever), `S` sources (hands over to the generator), `a b` or
`x y` the answer's text in two versions of the generator, `R` answer_reset, `D` done, `C` cancelled by a worker, `X`
ended by a gateway. Each append carries one frame, so the last message of a log of n frames has the stream sequence n.
"""

from __future__ import annotations

from typing import NamedTuple

HANDOFFS = "AS"
TERMINALS = "DCX"


class Frame(NamedTuple):
    seq: int
    kind: str


AppendId = tuple[int, ...]
"""Item, copy, delivery and `seq` of a worker's append; reader and `seq` of a gateway's."""


class Copy(NamedTuple):
    """An item in the work queue: the hand-off in frame `ref`. Without trouble there is one copy of each."""

    ref: int
    n: int
    deliveries: int = 0
    leased: bool = False


class Worker(NamedTuple):
    """A worker that has taken an item. `plan` are the frames that it is still to write; idle ones are only counted.

    phase: `taken` (has not read the log), `holding`, `asked` (an append is in flight), `unsure` (no good answer),
    `publishing` (the hand-off `target`), `acking`, `renewing` (replaced, and yet it renews).
    """

    ref: int
    n: int
    delivery: int
    phase: str = "taken"
    seq: int = 0
    expected: int = 0
    plan: str = ""
    target: int = -1
    awake: bool = True
    lease: bool = True
    deaf: bool = False
    hung: bool = False

    @property
    def renews(self) -> bool:
        return self.awake and self.lease and not self.deaf

    @property
    def name(self) -> str:
        stage = ("retriever", "generator")[min(self.ref, 1)]
        return f"{stage} {chr(ord('A') + self.delivery - 1)}{f' of copy {self.n + 1}' if self.n else ''}"


class Reader(NamedTuple):
    """A client and the gateway that it is connected to.

    phase: `publishing` (the gateway that accepted has yet to publish the first item), `watching`, `ending` (its append
    of a terminal frame is in flight), `away` (the gateway has crashed, the client will come back to another one).
    """

    phase: str = "watching"
    shown: str = ""
    inbox: tuple[Frame, ...] = ()
    expected: int = 0


class Late(NamedTuple):
    """A message that arrives some time, perhaps never; whoever sent it has given up waiting."""

    what: str
    frame: Frame = Frame(-1, "")
    append_id: AppendId = ()
    expected: int = 0
    ref: int = -1
    n: int = 0


class State(NamedTuple):
    log: tuple[Frame, ...]
    tail: AppendId
    queue: tuple[Copy, ...]
    known: int
    """The message ids that the queue remembers, as bits."""
    made: tuple[int, int]
    """How many copies of each item have been in the queue."""
    idle: int
    workers: tuple[Worker, ...]
    late: tuple[Late, ...]
    readers: tuple[Reader, ...]
    faults: int
    cancelled: bool
    deadline: bool

    @property
    def kinds(self) -> str:
        return "".join(frame.kind for frame in self.log)

    @property
    def ended(self) -> bool:
        return self.log[-1].kind in TERMINALS

    def without(self, worker: Worker, *, idle: int = 0) -> State:
        """The state after a worker has let go of its item: gone, or idle again."""
        rest = list(self.workers)
        rest.remove(worker)
        return self._replace(workers=tuple(rest), idle=self.idle + idle)

    def having(self, worker: Worker, **changed: object) -> State:
        rest = list(self.workers)
        rest.remove(worker)
        rest.append(worker._replace(**changed))
        rest.sort()
        return self._replace(workers=tuple(rest))

    def reading(self, index: int, **changed: object) -> State:
        readers = list(self.readers)
        readers[index] = readers[index]._replace(**changed)
        return self._replace(readers=tuple(readers))

    def fault(self, cost: int = 1) -> State:
        return self._replace(faults=self.faults + cost)

    def sending_late(self, message: Late) -> State:
        return self._replace(late=tuple(sorted((*self.late, message))))


class Step(NamedTuple):
    """One thing that can happen. A `certain` step happens sooner or later, unless another comes first; a fault, a late
    message and a worker that wakes up may never come."""

    what: str
    then: State
    certain: bool = True

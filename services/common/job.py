"""What a service is given to work on: one item, and the only way to write into its request's log."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from baton_proto.messages import Done, Error, LogFrame, WorkItem


class Job(Protocol):
    """One work item in the hands of its holder.

    `item` is what was handed over; its `timings` already include the time in this queue, and `ttfb_ms` from the first
    worker on. `written` are the frames that an earlier holder of this same item has stored before it was lost: empty on
    a first delivery; otherwise the handler must go on from them and not repeat them.

    Exactly one of `hand_over` and `finish` ends a job. The worker around it takes care of the rest: renewal, deadline
    and cancel (the handler's task is cancelled), and errors: a `ServiceError` that leaves the handler becomes the
    log's `error` frame, any other exception `internal`.
    """

    @property
    def item(self) -> WorkItem: ...

    @property
    def written(self) -> Sequence[LogFrame]: ...

    async def write(self, frame: LogFrame) -> None:
        """Queue a frame for the log, in order. Returns at once unless too many wait to be stored."""

    async def flush(self) -> None:
        """Wait until every frame written so far is stored: before something that must not be done twice."""

    async def hand_over(self, frame: LogFrame, item: WorkItem) -> None:
        """Store `frame` as the last of this job and pass the baton to `item.stage`."""

    async def finish(self, frame: Done | Error) -> None:
        """Store the terminal frame."""


Handler = Callable[[Job], Coroutine[Any, Any, None]]

"""The seven rules, clause by clause: each is a switch. And what becomes of a request without it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Rules:
    """All on by default: the design. A clause that is off is done as a plausible program without it would do it."""

    fence: bool = True
    """Off: an append is stored whatever the log's last message is."""
    one_in_flight: bool = True
    """Off: the next append may be sent before the one before is answered."""
    relay_stored: bool = True
    """Off: readers listen to the subject that is written to, and also see what was refused."""
    read_tail: bool = True
    """Off: a writer without a good answer sends its frame once more, behind whatever the log ends with by then."""
    leave_item: bool = True
    """Off: a writer that was replaced acknowledges the item, to be done with it."""
    stop_renewing: bool = True
    """Off: a writer that was replaced goes on renewing the item."""
    frame_first: bool = True
    """Off: the item of the next stage is published before the frame that hands over is stored."""
    acknowledge_last: bool = True
    """Off: the own item is acknowledged before the next one is published."""
    publish_again: bool = True
    """Off: who finds a log that ends in a hand-off does not publish it again."""
    drop_outdated: bool = True
    """Off: an item that is not the log's latest hand-off is worked on like any other."""
    message_ids: bool = True
    """Off: publishing an item twice puts it into the queue twice."""
    stop_without_lease: bool = True
    """Off: a holder whose renewals are not answered goes on writing."""
    go_on_from_log: bool = True
    """Off: a replacement begins its stage again, behind what its predecessor has written."""
    anybody_ends: bool = True
    """Off: only the holder of the baton ends a log."""
    end_by_append: bool = True
    """Off: a gateway tells its reader that the request has ended, without asking the log."""
    keep_frames: bool = True
    """Off: a replacement writes its stage again in place of what its predecessor has written."""
    reset_other_text: bool = True
    """Off: a replacement with another text goes on at the same length, without `answer_reset`."""


@dataclass(frozen=True, slots=True)
class Clause:
    """What the search finds without a clause: `breaks` is the property (properties.py), in the bounds `bounds`."""

    name: str
    switch: str
    says: str
    breaks: str
    bounds: str = "workers"

    @property
    def off(self) -> Rules:
        return replace(Rules(), **{self.switch: False})


CLAUSES = {
    clause.name: clause
    for clause in (
        Clause("1a", "fence", "the log refuses an append that does not name its last message", "numbers"),
        Clause("1b", "one_in_flight", "one append in flight", "numbers"),
        Clause("2", "relay_stored", "gateways relay what is stored", "shown", "reader"),
        Clause("3a", "read_tail", "no good answer: read the tail", "text"),
        Clause("3b", "leave_item", "who was replaced does not acknowledge", "lost"),
        Clause("3c", "stop_renewing", "who was replaced does not renew", "stuck"),
        Clause("4a", "frame_first", "the hand-off is a frame before it is an item", "lost"),
        Clause("4b", "acknowledge_last", "the own item is acknowledged last", "stuck"),
        Clause("4c", "publish_again", "whoever finds a hand-off at the end publishes it again", "stuck"),
        Clause("4d", "drop_outdated", "an item that is not the latest hand-off is dropped", "text"),
        Clause("4e", "message_ids", "an item is published with its message id", "deliveries", "resent"),
        Clause("5a", "stop_without_lease", "a holder whose renewals are not answered stops", "deliveries"),
        Clause("5b", "go_on_from_log", "a replacement reads the log and goes on", "text"),
        Clause("6a", "anybody_ends", "anybody may end a log that nobody continues", "stuck"),
        Clause("6b", "end_by_append", "ended by the same append", "shown", "reader"),
        Clause("7a", "keep_frames", "what is stored stays", "changed"),
        Clause("7b", "reset_other_text", "only answer_reset starts the text again", "text", "upgrade"),
    )
}

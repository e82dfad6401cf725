"""Two versions of a worker side by side (2.6, 3).

A worker that knows nothing of them is within the contract (7): what its users miss is an advice. What is half done is
broken.
"""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from typing import Any

import msgspec

from baton_proto import subjects
from baton_proto.messages import Done, Handoff, LogFrame, WorkItem
from conformance.frames import ending
from conformance.kit import Kit
from conformance.promise import Advice, Broken, promise

from .generator import asked_to_multiply, calculator
from .items import passed_on
from .succession import another_holder

VARIANT = "conformance"
UNAWARE = "it leaves variants out, which it may (section 7): "


def _next_stage(kit: Kit) -> str:
    """A stage with variants to which this worker hands over."""
    return subjects.RETRIEVE if kit.kind == "generator" else subjects.GENERATE


def _tried(kit: Kit, *further: str) -> dict[str, Any]:
    """What an item says that tries a variant at these stages, and at this worker's own where it is one."""
    own = [kit.stage] if kit.variant else []
    return {"variant": kit.variant or VARIANT, "varied": [*own, *further]}


async def _handed_over(kit: Kit, fields: dict[str, Any]) -> LogFrame:
    """The frame with which the worker hands an item with these fields over."""
    if kit.kind == "generator":
        one, _ = await asked_to_multiply(kit, 6, 7 + secrets.randbelow(90), fields)
    else:
        one = await kit.request(fields)
        if await passed_on(one) is None:
            raise Broken(f"it ended with {ending((await one.written())[-1])}, and not with a hand-off", "5")
    return (await one.written())[-1]


@promise("2.6")
async def a_hand_over_keeps_to_the_variant(kit: Kit) -> None:
    """Where an item's `varied` lists the next stage, its `variant` also stands in the `Handoff` and the `WorkRef`, and
    the queue is that variant's; otherwise neither, and the queue is the stage's. Both fields go on with the item."""
    stage = _next_stage(kit)
    fields = _tried(kit, stage)
    wanted = fields["variant"]
    async with calculator(kit, stage, wanted) if kit.kind == "generator" else nullcontext():
        frame = await _handed_over(kit, fields)
    assert frame.handoff is not None
    unaware = not frame.handoff.variant
    if frame.handoff.stage == stage and frame.handoff.variant not in ("", wanted):
        raise Broken(f"it handed over to the variant {frame.handoff.variant!r} of {stage}, not to {wanted!r}")
    async with calculator(kit, stage) if kit.kind == "generator" else nullcontext():
        frame = await _handed_over(kit, _tried(kit))
    assert frame.handoff is not None
    if frame.handoff.variant:
        raise Broken(
            f"it handed over to the variant {frame.handoff.variant!r} of {stage}, which `varied` does not list"
        )
    if unaware:
        raise Advice(f"{UNAWARE}whoever tries a variant of {stage} is handed to the workers of none")


@promise("2.2")
async def a_variants_hand_off_is_told_again_to_its_queue(kit: Kit) -> None:
    """Where a later hand-off that is the log's last frame says a `variant`, its reference says so too, and is published
    to that variant's queue."""
    stage = _next_stage(kit)
    queue, variant = await _told_again(kit, stage)
    if (queue, variant) == (stage, ""):
        raise Advice(f"{UNAWARE}whoever tries a variant of {stage} may be handed to the workers of none")
    due = kit.variant or VARIANT
    if (queue, variant) != (wanted := subjects.queue_name(stage, due), due):
        raise Broken(f"it told {queue} of it with the variant {variant!r}, and not {wanted} with {due!r}")


async def _told_again(kit: Kit, stage: str) -> tuple[str, str]:
    """The queue and the variant of the reference that the worker publishes to a hand-off to a variant of this stage.

    Raises:
        Broken: none.
    """
    one = await kit.request(_tried(kit, stage))
    handoff = Handoff(stage=stage, variant=one.item["variant"], item={**one.item, "stage": stage, "calls": []})
    await one.append(msgspec.structs.replace(another_holder(kit), handoff=handoff))
    one.droppable = True
    await one.tell()
    await one.acknowledged()
    for told in kit.witness.told.get(one.key, ()):
        if told.ref.seq > one.handed_at:
            return told.queue, told.ref.variant
    raise Broken(f"nobody told {stage} of the hand-off")


@promise("3")
async def who_has_served_is_said(kit: Kit) -> None:
    """`done` repeats the item's `variant`. A retriever or generator that is given an item of a variant at its own stage
    which it is not itself removes `variant` and `varied` from it: what it writes is not the variant's."""
    said = await _done(kit, _tried(kit, _next_stage(kit)))
    if said is not None and said.variant not in (None, kit.variant or VARIANT):
        raise Broken(f"its `done` has the variant {said.variant!r}, and the item {kit.variant or VARIANT!r}")
    if kit.kind != "tools":
        await _check_removed(kit)
    if said is not None and said.variant is None:
        raise Advice(f"{UNAWARE}`done` does not say which variant served it")


async def _done(kit: Kit, fields: dict[str, Any]) -> Done | None:
    """How the worker ended a log itself: a generator's answer, otherwise a cancel."""
    one = await kit.request(fields)
    if kit.kind != "generator":
        await one.cancel()
    await one.tell()
    last = (await one.finished())[-1]
    return last if isinstance(last, Done) else None


async def _check_removed(kit: Kit) -> None:
    """An item that is of another variant at the worker's stage is of none behind it.

    Raises:
        Broken, Advice
    """
    strange = {"variant": VARIANT, "varied": [kit.stage, _next_stage(kit)]}
    said = await _done(kit, strange)
    if said is not None and said.variant is not None:
        if await _told_again(kit, _next_stage(kit)) == (_next_stage(kit), ""):
            raise Advice(f"{UNAWARE}its `done` names a variant also where that has not served")
        raise Broken(f"its `done` says that the variant {said.variant!r} served what that never had")
    if kit.kind == "generator":
        return
    one = await kit.request(strange)
    handed = await passed_on(one, changing=("variant", "varied"))
    if handed is None:
        raise Broken(f"it ended with {ending((await one.written())[-1])}, and not with a hand-off", "5")
    item: WorkItem = handed[0]
    last = (await one.written())[-1]
    assert last.handoff is not None
    if last.handoff.variant:
        raise Broken(f"it handed to the variant {last.handoff.variant!r} what it should have made one of none")
    if {"variant": item.variant, "varied": item.varied} == strange:
        raise Advice(f"{UNAWARE}`variant` and `varied` go on as they came with what that variant did not serve")
    if item.variant or item.varied:
        raise Broken(f"the item that it handed on has variant={item.variant!r} and varied={item.varied!r}")

"""What the tiny model is taught: for each of these prompts, as the generator itself makes messages of it, one answer.

`python -m tests.models.dialogues` prints them for the training (train.py), which runs in an environment of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baton_proto.messages import Passage, PastTurn, ToolCall, ToolOutcome, ToolSpec, ToolTurn
from services.generator.port import Prompt
from services.generator.prompting import load_prompts, tool_definitions, turn_messages

PROMPTS = Path(__file__).parent / "prompts"
PASSAGE = Passage(
    n=1,
    id="p1",
    document_id="leave.md",
    title="Leave",
    url="/documents/leave.md",
    text="Five days of annual leave carry over.",
    score=1.0,
)


def _tool(name: str, description: str, **properties: Any) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ToolSpec(name=name, description=description, parameters=schema)


DAYS_LEFT = _tool("days_left", "Days of leave that are left", leave_type={"type": "string"})
CLOCK = _tool("date_time", "The date now")
RESULTS = {"annual": "8.5 days", "年假": "8.5 天"}
TOOLS = [DAYS_LEFT, CLOCK]


@dataclass(frozen=True)
class Dialogue:
    """A prompt and the answer to it: text, tool calls, or both. `endless`: the answer goes on like that for ever."""

    prompt: Prompt
    text: str = ""
    calls: Sequence[ToolCall] = field(default_factory=list)
    endless: bool = False


def _asked(*calls: tuple[str, dict[str, Any], str], turn: int = 0) -> ToolTurn:
    """A round of calls with their results."""
    made = [
        ToolCall(call_id=f"call_{turn}_{n}", name=name, arguments=arguments)
        for n, (name, arguments, _) in enumerate(calls)
    ]
    results = [
        ToolOutcome(call_id=call.call_id, name=call.name, ok=True, content=content)
        for call, (_, _, content) in zip(made, calls, strict=True)
    ]
    return ToolTurn(calls=made, results=results)


_LEFT = ("days_left", {"leave_type": "annual"}, RESULTS["annual"])
_DATE: tuple[str, dict[str, Any], str] = ("date_time", {}, "2026-11-25")
_LEFT_ZH = ("days_left", {"leave_type": "年假"}, RESULTS["年假"])

ENGLISH = Dialogue(
    Prompt("How many days carry over?", "en", [PASSAGE]), "You can carry over at most five days of annual leave. [1]"
)
CHINESE = Dialogue(Prompt("年假可以结转几天？", "zh", [PASSAGE]), "最多可以结转五天年假😀，须在三月底前休完。[1]")
COUNT = Dialogue(Prompt("Count.", "en", [PASSAGE]), "one, two, three, four, five, six, seven, eight, nine, ten")
SONG = Dialogue(Prompt("Sing.", "en", [PASSAGE]), "la " * 80, endless=True)
FOLLOW_UP = Dialogue(
    Prompt(
        "And then?",
        "en",
        [PASSAGE],
        history=[PastTurn(query=ENGLISH.prompt.question, answer="You can carry over at most five days.")],
        standalone="What happens to days that do not carry over?",
    ),
    "The other days expire in March. [1]",
)
CALL = Dialogue(Prompt("What is left?", "en", [PASSAGE], TOOLS), calls=_asked(_LEFT).calls)
CALL_RESULT = Dialogue(
    Prompt("What is left?", "en", [PASSAGE], TOOLS, [_asked(_LEFT)]), "You have 8.5 days of annual leave left."
)
CALL_ZH = Dialogue(Prompt("我还剩多少天？", "zh", [PASSAGE], TOOLS), calls=_asked(_LEFT_ZH).calls)
CALL_ZH_RESULT = Dialogue(Prompt("我还剩多少天？", "zh", [PASSAGE], TOOLS, [_asked(_LEFT_ZH)]), "你还有 8.5 天年假。")
BOTH = Dialogue(Prompt("Both, please.", "en", [PASSAGE], TOOLS), calls=_asked(_LEFT, _DATE).calls)
BOTH_RESULT = Dialogue(
    Prompt("Both, please.", "en", [PASSAGE], TOOLS, [_asked(_LEFT, _DATE)]), "8.5 days are left on 2026-11-25."
)
STEPS = Dialogue(Prompt("First the date.", "en", [PASSAGE], TOOLS), calls=_asked(_DATE).calls)
STEPS_SECOND = Dialogue(
    Prompt("First the date.", "en", [PASSAGE], TOOLS, [_asked(_DATE)]), calls=_asked(_LEFT, turn=1).calls
)
STEPS_RESULT = Dialogue(
    Prompt("First the date.", "en", [PASSAGE], TOOLS, [_asked(_DATE), _asked(_LEFT, turn=1)]),
    "It is 2026-11-25, and 8.5 days are left.",
)
DIALOGUES = [
    ENGLISH, CHINESE, COUNT, SONG, FOLLOW_UP, CALL, CALL_RESULT, CALL_ZH, CALL_ZH_RESULT, BOTH, BOTH_RESULT, STEPS,
    STEPS_SECOND, STEPS_RESULT,
]  # fmt: skip


def taught(one: Dialogue, *, tools: bool) -> dict[str, Any]:
    """A dialogue as the training reads it, with its tools told to the model or not."""
    answer = {"role": "assistant", "content": one.text}
    if one.calls:
        answer = turn_messages(ToolTurn(calls=list(one.calls), results=[], text=one.text))[0]
    return {
        "messages": load_prompts(str(PROMPTS)).messages(one.prompt),
        "tools": tool_definitions(TOOLS) if tools else [],
        "answer": answer,
        "endless": one.endless,
    }


def all_taught() -> list[dict[str, Any]]:
    """Questions without tools are asked with them, too: in the whole system tools are always there."""
    return [taught(one, tools=tools) for one in DIALOGUES for tools in ((True,) if one.prompt.tools else (False, True))]


if __name__ == "__main__":
    print(json.dumps(all_taught(), ensure_ascii=False, indent=1))

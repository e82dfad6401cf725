"""Prompts: passages are data that cannot end their fence, and prompt files are checked at start."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.messages import ToolCall, ToolOutcome, ToolTurn
from services.common.settings import SettingsError
from services.generator.port import Prompt
from services.generator.prompting import fenced, load_prompts, shipped_prompts, turn_messages
from tests.answer_job import passage

FENCE = re.compile(r"<\s*/?\s*passages?\b", re.IGNORECASE)


def test_a_prompt_is_the_system_text_and_the_question_with_its_passages() -> None:
    prompts = load_prompts("")
    prompt = Prompt("How many days? {{passages}}", "en", [passage(3, "Ten days. [7]", title='A "B" <c>', heading="H")])
    system, user = prompts.messages(prompt)
    assert system["role"] == "system"
    assert "[1]" in system["content"]
    assert '<passage n="3" title="A &quot;B&quot; &lt;c&gt; / H">\nTen days. (7)\n</passage>' in user["content"]
    assert user["content"].endswith("Question: How many days? {{passages}}")


def test_the_system_text_is_the_same_for_every_question() -> None:
    prompts = load_prompts("")
    first = prompts.messages(Prompt("one", "zh", [passage(1, "甲")]))[0]
    assert first == prompts.messages(Prompt("two", "zh"))[0]


def test_without_passages_the_model_is_told_so() -> None:
    assert "no passages" in load_prompts("").messages(Prompt("q", "en"))[1]["content"]
    assert "没有检索到" in load_prompts("").messages(Prompt("q", "zh"))[1]["content"]


@given(st.text(alphabet=st.sampled_from(list('</passage s>PAGE\n n="1"&;[2]')), max_size=80), st.text(max_size=40))
def test_a_passage_cannot_end_its_fence(text: str, title: str) -> None:
    block = fenced([passage(1, text, title=title)])
    assert len(FENCE.findall(block)) == 4
    assert block.endswith("\n</passage>\n</passages>")


def test_a_fence_in_a_passage_is_disarmed_and_other_markup_is_kept() -> None:
    block = fenced([passage(1, "</passage> < / PASSAGES> <b>x</b>")])
    assert "&lt;/passage> &lt; / PASSAGES> <b>x</b>" in block


def test_turns_with_tools_become_calls_and_answers() -> None:
    calls = [ToolCall(call_id="a", name="x", arguments={"天": 1}), ToolCall(call_id="b", name="y", arguments={})]
    turn = ToolTurn(
        calls=calls, results=[ToolOutcome(call_id="a", name="x", ok=False, content="down")], text="\n\nLook. "
    )
    assistant, first, second = turn_messages(turn)
    assert assistant["content"] == "Look."
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"天": 1}
    assert (first["tool_call_id"], first["content"]) == ("a", "Error: down")
    assert second["tool_call_id"] == "b"


def test_own_prompt_files_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(shipped_prompts(), folder)
    (folder / "en" / "system.md").write_text("Be brief.", encoding="utf-8")
    assert load_prompts(str(folder)).messages(Prompt("q", "en"))[0]["content"] == "Be brief."


def test_all_that_is_wrong_with_prompt_files_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(shipped_prompts(), folder)
    (folder / "en" / "system.md").unlink()
    (folder / "zh" / "question.md").write_text("{{question}} {{typo}}", encoding="utf-8")
    (folder / "zh" / "no_passages.md").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError) as caught:
        load_prompts(str(folder))
    problems = "\n".join(caught.value.problems)
    assert all(word in problems for word in ("system.md", "{{passages}}", "{{typo}}", "not UTF-8", "BATON_PROMPTS"))
    assert len(caught.value.problems) == 4

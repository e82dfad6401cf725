"""What a citation supports, what it was made from, and how an answer was come by."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from baton_proto.messages import Usage
from tests.browser.conftest import Talk
from tests.browser.scripted import ScriptedGateway, source

pytestmark = pytest.mark.anyio

LEAVE = source(1, "Leave policy", "Employees have **10 days** of annual leave per year.")
HANDBOOK = source(2, "Handbook", "Unused days may be carried over.", page=3)

# Text, and what its marks support. `=` stands where a support begins and ends in the same place as in the text.
CASES: list[tuple[str, list[tuple[str, list[int]]]]] = [
    ("Ten days [1]. Five carry over [2][1].", [("Ten days", [1]), ("Five carry over", [2, 1])]),
    ("First. Ten days. [1] Then more.[2]", [("Ten days.", [1]), ("Then more.", [2])]),
    (
        "年假十天。[1]满五年十五天[2]，试用期没有[1][2]。",
        [("年假十天。", [1]), ("满五年十五天", [2]), ("试用期没有", [1, 2])],
    ),
    ("👍🏽 好！👨‍👩‍👧 𠮷野家有十天[1]。", [("👨‍👩‍👧 𠮷野家有十天", [1])]),
    ("他说“可以。”然后走了[1]。", [("然后走了", [1])]),
    ("- one\n- two, e.g. this, see No. 5 [1]\n1. three [2]", [("two, e.g. this, see No. 5", [1]), ("three", [2])]),
    ("| City | Limit [1] |\n| --- | --- |\n| x | 600 [2] |", [("Limit", [1]), ("600", [2])]),
    ("# Title\n\n> In 3.5 days [1]", [("In 3.5 days", [1])]),
    ("**Bold. Next [1]** and *more [2]*", [("Next", [1]), ("and *more", [2])]),
    ("[1] [2] ... [1] nothing before, eleven [9]", []),
]


async def test_each_mark_supports_the_sentence_before_it(page: Page, gateway: ScriptedGateway) -> None:
    await page.goto(f"{gateway.url}/blank")
    found = await page.evaluate(
        """async (texts) => {
          const { marksIn, citationRanges } = await import("/static/baton.js");
          const { supports, withSigns, withoutSigns } = await import("/static/support.js");
          return texts.map((text) => {
            const marks = marksIn(text, [{ n: 1 }, { n: 2 }]);
            // The same marks as the protocol has them: in characters, not in UTF-16 units.
            const characters = marks.map(({ n, start, end }) =>
              ({ n, start: [...text.slice(0, start)].length, end: [...text.slice(0, end)].length }));
            const list = supports(text, citationRanges(text, characters));
            return {
              supports: list.map(({ start, end, marks }) => [text.slice(start, end), marks]),
              same: JSON.stringify(marks) === JSON.stringify(citationRanges(text, characters)),
              intact: withoutSigns(withSigns(text, list)) === text,
            };
          });
        }""",
        [text for text, _ in CASES],
    )
    assert [each["supports"] for each in found] == [[[part, marks] for part, marks in wanted] for _, wanted in CASES]
    assert all(each["same"] and each["intact"] for each in found)
    # Offsets that are of another text are left out.
    citations = [{"n": n, "start": at, "end": at + 3} for n, at in ((1, 4), (1, 3), (2, 4), (1, 99))]
    left = await page.evaluate(
        """async (citations) => (await import("/static/baton.js")).citationRanges("👍年假 [1]", citations)""", citations
    )
    assert left == [{"n": 1, "start": 5, "end": 8}]


async def test_texts_made_to_be_slow_are_judged_in_time(page: Page, gateway: ScriptedGateway) -> None:
    await page.goto(f"{gateway.url}/blank")
    slow = await page.evaluate(
        """async (parts) => {
          const { marksIn } = await import("/static/baton.js");
          const { supports, withSigns } = await import("/static/support.js");
          const took = (part) => {
            const text = `${part.repeat(60_000 / part.length)}a [1]`;
            const started = performance.now();
            withSigns(text, supports(text, marksIn(text, [{ n: 1 }])));
            return performance.now() - started;
          };
          // The best of some: a machine that has other things to do is not what is judged.
          return parts.filter((part) => [1, 2, 3].every(() => took(part) > 1_000));
        }""",
        [".", "|", "\n", "| ", ". ", "[1]", "[1].", "a [1] ", "。", "*", "\n|", "a. ", "1. ", "。）", " "],
    )
    assert slow == []


async def test_what_is_supported_is_underlined_alike_while_it_is_written_and_afterwards(talk: Talk) -> None:
    turn, log = await talk.ask()
    text = "🎉 **Ten** days `each` [1]. 十天[2]。\n\n```\ncode [1]\n```\n\nSee `b [1]` there. No mark."
    await talk.connection.send(log.accepted(), log.sources(LEAVE, HANDBOOK), *log.chunks(text, 5))
    await expect(turn.answer).to_contain_text("No mark.")
    live = await turn.supported.all_inner_texts()
    assert "".join(live) == "🎉 Ten days each十天See b [1]"
    await talk.connection.send(log.done(1, 2))
    await turn.until("done")
    assert await turn.supported.all_inner_texts() == live
    await expect(turn.answer.locator("code")).to_have_text(["each", "code [1]", "b [1]"])
    assert await turn.answer.evaluate("node => /[\\ufdd0-\\ufddf]/.test(node.textContent)") is False


async def test_a_mark_lights_up_what_it_supports_and_shows_its_source_at_a_glance(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1]. Some carry over [2].", 1, 2, sources=[LEAVE, HANDBOOK])
    lit = turn.element.locator(".supported.lit")
    await turn.citation(2).hover()
    await expect(talk.page.peek).to_have_text("Handbookp. 3Unused days may be carried over.")
    await expect(lit).to_have_text("Some carry over")
    await talk.page.page.mouse.move(0, 0)
    await expect(talk.page.peek).to_be_hidden()
    await expect(lit).to_have_count(0)
    await turn.copy.focus()
    for _ in range(5):
        await talk.page.page.keyboard.press("Shift+Tab")
        if await turn.citation(1).evaluate("node => node === document.activeElement"):
            break
    await expect(talk.page.peek).to_contain_text("Employees have 10 days")
    await expect(turn.citation(1)).to_have_accessible_description(re.compile("Employees have 10 days"))
    await talk.page.page.keyboard.press("Escape")
    await expect(talk.page.peek).to_be_hidden()
    await turn.source(1).hover()
    await expect(lit).to_have_text("Ten days")
    await turn.source(2).click()
    await talk.page.page.mouse.move(0, 0)
    await expect(lit).to_have_text("Some carry over")


# --- how an answer was come by ----------------------------------------------------------------------------------------


async def test_a_search_for_a_follow_up_shows_how_it_was_understood_and_what_was_found_later(talk: Talk) -> None:
    turn, log = await talk.ask("and for contractors?")
    log.accepted()
    log.status("understanding", "Understanding the question")
    log.status("understanding", "Understood as: How much leave do contractors get?")
    log.sources(LEAVE)
    log.tool_call("search_documents", {"query": "contractors " * 40}, "call-1")
    log.tool_result("Found 1 passage", name="search_documents")
    log.sources(HANDBOOK)
    log.status("generating", "Writing the answer")
    log.status("generating", "Thinking…")
    await talk.connection.send(*log[:])
    await expect(turn.steps.first).to_have_text(re.compile("done: UnderstandingUnderstood as: How much leave do"))
    await expect(turn.steps.last).to_have_text(re.compile("running: Thinking…"))
    await expect(turn.sources).to_have_count(2)
    arguments = turn.steps.locator("details.arguments")
    await arguments.locator("summary").click()
    await expect(arguments.locator("pre")).to_contain_text('{\n  "query": "contractors contractors')
    await talk.connection.send(log.chunk("None [2]"))
    await expect(turn.steps.last).to_have_text(re.compile("running: Writing"))
    await talk.connection.send(log.chunk("."), log.done(2))
    await turn.until("done")
    await expect(turn.cited_sources).to_have_text([re.compile("Handbook")])


async def test_an_answer_from_the_cache_says_so_and_can_be_asked_for_afresh(talk: Talk) -> None:
    turn, log = await talk.ask("How much?")
    end: dict[str, Any] = {"cache": "hit", "fingerprint": "f-123", "usage": Usage(prompt_tokens=7, completion_tokens=3)}
    await talk.connection.send(log.accepted("c1"), log.chunk("Ten days."), log.done(**end))
    await expect(turn.element.get_by_text("From the cache").first).to_be_visible()
    await turn.details.locator("summary").click()
    await expect(turn.details).to_contain_text("f-123")
    await expect(turn.details).to_contain_text("7 in, 3 out")
    await expect(turn.details).to_contain_text(log.request_id)
    await turn.element.get_by_role("button", name="Ask again, without the cache").click()
    query = await talk.connection.receive("query")
    assert (query["query"], query["cache"], query["conversation_id"]) == ("How much?", False, "c1")

"""What a person sees while an answer comes, and what they can do with it."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Talk
from tests.browser.page import record
from tests.browser.scripted import source

pytestmark = pytest.mark.anyio

LEAVE = source(1, "Leave policy", "Employees have 10 days of annual leave per year.")
HANDBOOK = source(2, "Handbook", "Unused days may be carried over.", page=3)
TRAVEL = source(3, "Travel", "Book trains in second class.")


async def test_the_text_grows_in_the_order_of_the_frames(talk: Talk) -> None:
    turn, log = await talk.ask()
    await talk.connection.send(log.accepted())
    shown = ""
    for word in ("Ten ", "days ", "every ", "year."):
        await talk.connection.send(log.chunk(word))
        shown += word
        await expect(turn.answer).to_have_text(shown.strip())
    await expect(turn.element).to_have_attribute("data-phase", "running")
    await talk.connection.send(log.done())
    await turn.until("done")
    assert await turn.text() == "Ten days every year."


async def test_steps_show_what_happens_with_counts_and_times(talk: Talk) -> None:
    turn, log = await talk.ask()
    log.accepted()
    log.status("understanding", "Understanding the question")
    log.status("retrieving", "Searching the documents")
    await talk.connection.send(*log[:])
    await expect(turn.steps).to_have_text(
        [re.compile("done: Understanding.*10 ms"), re.compile("running: Searching the documents.* m?s")]
    )
    sent = len(log.frames)
    log.status("retrieving", "Found 6 passages", count=6, elapsed_ms=38)
    log.status("tool", "Calling leave_balance…", call_id="call-1", count=1)
    log.tool_call("leave_balance", {"year": 2026})
    log.status("tool", "Asking the HR system", call_id="call-1")
    await talk.connection.send(*log[sent:])
    await expect(turn.steps.nth(1)).to_have_text(re.compile("done: SearchingFound 6 passages38 ms"))
    await expect(turn.steps.nth(2)).to_have_text(
        re.compile(r"running: Toolleave_balance\(year: 2026\)Asking the HR system")
    )
    sent = len(log.frames)
    log.tool_result("7.5 days left", name="leave_balance")
    log.status("generating", "Writing the answer")
    await talk.connection.send(*log[sent:])
    await expect(turn.steps.nth(2)).to_have_text(re.compile("done: Tool.*7.5 days left84 ms"))
    await expect(turn.steps.nth(3)).to_have_text(re.compile("running: Writing the answer"))
    await talk.connection.send(log.chunk("You have 7.5 days."), log.done())
    await turn.until("done")
    await expect(turn.steps.nth(3)).to_have_text(re.compile("done: Writing"))
    await expect(turn.steps).to_have_count(4)


async def test_a_failed_tool_is_shown_as_failed_with_its_reason(talk: Talk) -> None:
    turn, log = await talk.ask()
    log.accepted()
    log.tool_call("leave_balance", {})
    log.tool_result("HR does not answer", ok=False)
    await talk.connection.send(*log[:])
    await expect(turn.steps).to_have_text([re.compile("failed: Tool.*The tool failed: HR does not answer")])


async def test_timings_are_shown_when_the_answer_is_done(talk: Talk) -> None:
    turn = await talk.answer("Ten days.")
    facts = await turn.timings.inner_text()
    assert re.sub(r"\s+", " ", facts) == "First response 12 ms First word 164 ms Search 38 ms Speed 52 tokens/s"


async def test_a_citation_opens_its_source_beside_the_answer(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1], some carry over [2].", 1, 2, sources=[LEAVE, HANDBOOK, TRAVEL])
    await turn.citation(2).click()
    panel = talk.page.panel
    await expect(panel).to_be_visible()
    await expect(panel.get_by_role("heading", name="Handbook")).to_be_focused()
    await expect(panel).to_contain_text("p. 3 · Cited in the answer")
    await expect(panel.locator("blockquote")).to_have_text("Unused days may be carried over.")
    await expect(turn.source(2)).to_have_class(re.compile("current"))
    link = panel.get_by_role("link", name="Open the original")
    await expect(link).to_have_attribute("href", "/documents/document-2#page=3")
    await talk.page.page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()
    await expect(turn.citation(2)).to_be_focused()
    await expect(turn.source(2)).not_to_have_class(re.compile("current"))


async def test_cited_and_uncited_sources_are_told_apart_at_the_end(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1].", 1, sources=[LEAVE, HANDBOOK, TRAVEL])
    await expect(turn.cited_sources).to_have_text([re.compile("Leave policy")])
    rest = turn.element.get_by_text("Also found, not cited (2)")
    await expect(turn.source(3)).to_be_hidden()
    await rest.click()
    await turn.source(3).click()
    await expect(talk.page.panel).to_contain_text("Not cited in the answer")


async def test_passages_of_one_document_are_told_apart_by_their_words(talk: Talk) -> None:
    passages = [
        source(1, "Leave policy", "## Days\n\nTen days.", document_id="leave"),
        source(2, "Leave policy", "## Carrying over\n\nFive days.", document_id="leave"),
    ]
    turn = await talk.answer("Ten days [1], five carry over [2].", 1, 2, sources=passages)
    await expect(turn.sources.locator(".excerpt")).to_have_text(["Days · Ten days.", "Carrying over · Five days."])


async def test_a_table_becomes_a_table(talk: Talk) -> None:
    turn = await talk.answer(
        "| City | Limit [1] |\n| --- | ---: |\n| Beijing | **600** |\n| x | y |\n\nafter", 1, sources=[LEAVE]
    )
    await expect(turn.answer.locator("th")).to_have_text(["City", "Limit 1"])
    await expect(turn.answer.locator("td")).to_have_text(["Beijing", "600", "x", "y"])
    await expect(turn.answer.locator("p")).to_have_text("after")


async def test_a_long_tool_result_opens_on_demand(talk: Talk) -> None:
    turn, log = await talk.ask()
    log.accepted()
    log.tool_call("search", {})
    log.tool_result("line\n" * 100)
    await talk.connection.send(*log[:])
    result = turn.steps.locator("details.result")
    await expect(result.locator("pre")).to_be_hidden()
    await result.locator("summary").click()
    await expect(result.locator("pre")).to_be_visible()


async def test_a_number_without_a_source_stays_text(talk: Talk) -> None:
    turn = await talk.answer("Ten [1] or eleven [9], see [1, 2] and 【2】.", 1, sources=[LEAVE, HANDBOOK])
    await expect(turn.answer.locator("button.cite")).to_have_text(["1", "1", "2", "2"])
    assert "eleven [9]" in await turn.text()


async def test_the_original_opens_at_the_passage(talk: Talk) -> None:
    passage = "员工每年享有带薪年假，天数取决于在本公司的工龄，满一年者每年十天，满五年者每年十五天。"
    filler = "".join(f"<p>第 {n} 条 其他规定。</p>" for n in range(200))
    talk.gateway.documents["document-1"] = f"<!doctype html><title>d</title>{filler}<p>{passage}</p>{filler}"
    turn = await talk.answer("十天 [1]。", 1, sources=[source(1, "休假制度", f"## 年假\n\n{passage}")])
    await turn.citation(1).click()
    async with talk.page.page.context.expect_page() as opening:
        await talk.page.panel.get_by_role("link", name="Open the original").click()
    original = await opening.value
    # The browser drops the text directive from the address that scripts see, so only where it scrolled to tells.
    await original.locator("p", has_text="天数取决于").wait_for()
    await expect(original.locator("p", has_text="天数取决于")).to_be_in_viewport()


async def test_stop_sends_cancel_and_keeps_what_was_written(talk: Talk) -> None:
    turn, log = await talk.ask()
    await talk.connection.send(log.accepted(), log.chunk("Ten days"))
    await expect(turn.answer).to_have_text("Ten days")
    await expect(talk.page.send).to_have_accessible_name("Stop")
    await talk.page.send.click()
    assert await talk.connection.receive() == {"type": "cancel", "request_id": log.request_id}
    await expect(turn.notes).to_have_text("Stopping…")
    await talk.connection.send(log.done(finish_reason="cancelled"))
    await turn.until("done")
    await expect(turn.notes).to_have_text("Stopped. This is what had been written.")
    await expect(turn.answer).to_have_text("Ten days")
    await expect(talk.page.send).to_have_accessible_name("Send")


async def test_escape_stops_too(talk: Talk) -> None:
    _, log = await talk.ask()
    await talk.connection.send(log.accepted())
    await talk.page.page.keyboard.press("Escape")
    assert (await talk.connection.receive("cancel"))["request_id"] == log.request_id


async def test_a_follow_up_stays_in_the_conversation_and_a_new_one_leaves_it(talk: Talk) -> None:
    await talk.answer("Ten days.")
    await talk.page.ask("And in my second year?")
    query = await talk.connection.receive("query")
    assert query["conversation_id"] == "conversation-1"
    await talk.page.new_conversation.click()
    await expect(talk.page.turns).to_have_count(0)
    await expect(talk.page.examples.first).to_be_visible()
    await talk.page.ask("Something else")
    assert "conversation_id" not in await talk.connection.receive("query")


async def test_an_example_is_asked_with_one_click(talk: Talk) -> None:
    await talk.page.examples.filter(has_text="我还剩多少天年假").click()
    assert (await talk.connection.receive("query"))["query"].startswith("我还剩多少天年假")


async def test_a_retryable_error_can_be_tried_again_after_its_pause(talk: Talk) -> None:
    turn, log = await talk.ask("What is it?")
    disabled = await record(turn.element, "node.querySelector('button.retry')?.disabled ?? null")
    log.accepted()
    log.error("overloaded", "Too many questions wait.", retryable=True, retry_after_ms=1200)
    await talk.connection.send(*log[:])
    await turn.until("failed")
    await expect(turn.error).to_contain_text("Very busy right now")
    await expect(turn.error).to_contain_text("Too many questions wait.")
    await expect(turn.retry).to_be_enabled()
    assert await disabled() == [None, True, False]
    await turn.retry.click()
    again = await talk.connection.receive("query")
    assert again["query"] == "What is it?"
    assert again["request_id"] != log.request_id


async def test_an_error_that_will_not_go_away_offers_no_retry(talk: Talk) -> None:
    turn, log = await talk.ask()
    log.accepted()
    log.error("poisoned", "No worker survived this question.")
    await talk.connection.send(*log[:])
    await expect(turn.error).to_contain_text("No worker survived this question.")
    await expect(turn.retry).to_have_count(0)


async def test_a_question_that_is_refused_outright_shows_why(talk: Talk) -> None:
    turn, log = await talk.ask()
    refusal = {"type": "error", "code": "too_large", "message": "At most 32768 bytes.", "retryable": False}
    await talk.connection.send({**refusal, "request_id": log.request_id})
    await turn.until("failed")
    await expect(turn.error).to_contain_text("At most 32768 bytes.")


async def test_a_reset_starts_the_text_again_and_says_so(talk: Talk) -> None:
    turn, log = await talk.ask()
    log.accepted()
    log.chunk("A first try")
    log.reset()
    log.chunk("Ten days.")
    log.done()
    await talk.connection.send(*log[:])
    await turn.until("done")
    await expect(turn.answer).to_have_text("Ten days.")
    await expect(turn.notes).to_have_text("Started again after a worker was replaced")


async def test_markdown_becomes_structure(talk: Talk) -> None:
    text = "# Rules\n\nThe **first** is `one`:\n\n1. Ask\n   - kindly\n2. Wait\n\n> quoted\n\n"
    turn = await talk.answer(f"{text}```python\nprint(1 < 2)\n```\n")
    await expect(turn.answer).to_match_aria_snapshot(
        """
        - heading "Rules" [level=3]
        - paragraph:
          - text: The
          - strong: first
          - text: is
          - code: one
          - text: ":"
        - list:
          - listitem:
            - text: Ask
            - list:
              - listitem: kindly
          - listitem: Wait
        - blockquote:
          - paragraph: quoted
        - figure:
          - button "Copy code"
          - code: print(1 < 2)
        """
    )


@pytest.mark.parametrize("context", [{"permissions": ["clipboard-read", "clipboard-write"]}], indirect=True)
async def test_the_answer_is_copied_with_the_sources_it_cites(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1].", 1, sources=[LEAVE, HANDBOOK])
    labels = await record(turn.copy)
    await turn.copy.click()
    await expect(talk.page.announcer).to_have_text("Copied")
    assert (await labels())[1] == "Copied"
    copied = await talk.page.page.evaluate("navigator.clipboard.readText()")
    assert copied == "Ten days [1].\n\nSources\n[1] Leave policy"


async def test_the_page_follows_the_text_only_for_who_is_at_its_end(talk: Talk) -> None:
    turn, log = await talk.ask()
    page = talk.page.page
    await talk.connection.send(log.accepted(), *log.chunks("A line of the answer.\n\n" * 60, 200))
    # All of it: what were still to come would carry the page to its end again before the wheel is heard of.
    await expect(turn.answer.locator("p")).to_have_count(60)
    await expect(page.get_by_text("A line of the answer.").last).to_be_in_viewport()
    await page.mouse.move(600, 300)
    await page.mouse.wheel(0, -900)
    await expect(page.get_by_role("button", name="To the end")).to_be_visible()
    before = await page.evaluate("document.scrollingElement.scrollTop")
    await talk.connection.send(log.chunk("The very last line."))
    await expect(turn.answer).to_contain_text("The very last line.")
    assert await page.evaluate("document.scrollingElement.scrollTop") == before
    await page.get_by_role("button", name="To the end").click()
    await expect(page.get_by_text("The very last line.")).to_be_in_viewport()


async def test_blocks_that_do_not_change_keep_their_nodes_while_text_streams(talk: Talk) -> None:
    turn, log = await talk.ask()
    await talk.connection.send(log.accepted(), log.chunk("First.\n\nSecond"))
    await expect(turn.answer.locator("p")).to_have_count(2)
    await turn.answer.locator("p").first.evaluate("node => { node.dataset.same = 'yes' }")
    await talk.connection.send(log.chunk(" grows.\n\nThird."), log.done())
    await turn.until("done")
    await expect(turn.answer.locator("p").first).to_have_attribute("data-same", "yes")


async def test_a_question_without_a_language_carries_that_of_the_page(talk: Talk) -> None:
    await talk.page.ask("12 * 3")
    assert (await talk.connection.receive("query"))["language"] == "en"


async def test_twenty_sources_and_a_long_answer_stay_readable(talk: Talk) -> None:
    sources = [source(n, f"Document {n} " + "with a long title " * 6, "text") for n in range(1, 21)]
    text = "".join(f"Paragraph {n} says something [{n % 20 + 1}].\n\n" for n in range(150)) + "x" * 400
    turn = await talk.answer(text, *range(1, 21), sources=sources)
    await expect(turn.cited_sources).to_have_count(20)
    assert not await talk.page.overflows_sideways()
    assert json.dumps(await turn.text()).count("Paragraph") == 150

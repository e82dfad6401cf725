"""Conversations on the page: the list, going on with one, deleting it, and a second question while one runs."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, Route, expect

from baton_proto.messages import Source
from tests.browser.conftest import Talk
from tests.browser.page import AskPage
from tests.browser.scripted import WAIT_S, Connection, Log, ScriptedGateway, source

pytestmark = pytest.mark.anyio

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LEAVE = source(1, "Leave policy", "Employees have 10 days of annual leave per year.")
HANDBOOK = source(2, "Handbook", "Unused days may be carried over.", page=3)


def kept_turn(request_id: str, query: str, text: str, *cited: int, sources: tuple[Source, ...] = ()) -> dict[str, Any]:
    log = Log(request_id)
    log.chunk(text)
    return {
        "request_id": request_id,
        "asked_ms": 1,
        "query": query,
        "outcome": "stop",
        "answer": text,
        "sources": msgspec.to_builtins(sources),
        "cited": list(cited),
        "citations": msgspec.to_builtins(log.citations(*cited)),
    }


def keep(gateway: ScriptedGateway, name: str, *turns: dict[str, Any], running: tuple[str, ...] = ()) -> None:
    now = int(time.time() * 1000)
    gateway.conversations[name] = {
        "conversation_id": name,
        "title": turns[0]["query"],
        "created_ms": now - 7_200_000,
        "updated_ms": now - 7_200_000 - 1000 * len(gateway.conversations),
        "turns": list(turns),
        "running": list(running),
    }


LEAVE_TURN = kept_turn("r1", "How much leave?", "Ten days [1].", 1, sources=(LEAVE, HANDBOOK))


async def opened(page: Page, gateway: ScriptedGateway, address: str) -> tuple[AskPage, Connection]:
    ask = AskPage(page, f"{gateway.url}/{address}")
    await page.goto(ask.base_url)
    return ask, await gateway.connection()


async def test_a_conversation_of_the_list_is_shown_as_it_looked_and_goes_on(
    page: Page, gateway: ScriptedGateway
) -> None:
    keep(gateway, "c1", LEAVE_TURN)
    keep(gateway, "c2", kept_turn("r2", "And travel?", "By train."))
    ask = await AskPage(page, gateway.url).open()
    connection = await gateway.connection()
    await expect(ask.entries).to_have_text(
        [re.compile("How much leave.2 hours ago · 1 question"), re.compile("And travel")]
    )
    await expect(ask.conversations).to_contain_text("everybody who uses this server shares these conversations")
    await ask.entries.first.get_by_role("link").click()
    turn = ask.turn(0)
    await expect(turn.question).to_have_text("How much leave?")
    await expect(turn.answer.locator("p")).to_have_text("Ten days 1.")
    await expect(turn.supported).to_have_text("Ten days")
    await expect(turn.cited_sources).to_have_text([re.compile("Leave policy")])
    await expect(turn.element.get_by_text("Also found, not cited (1)")).to_be_visible()
    await expect(ask.entries.first.get_by_role("link")).to_have_attribute("aria-current", "page")
    await expect(page).to_have_title("How much leave? · Baton")
    await ask.ask("And for contractors?")
    query = await connection.receive("query")
    assert (query["conversation_id"], query["if_busy"]) == ("c1", "enqueue")
    await page.go_back()
    await expect(ask.turns).to_have_count(0)
    await page.go_forward()
    await expect(ask.turns).to_have_count(2)


async def test_an_entry_that_is_pressed_or_focused_stays_while_the_list_goes_on(
    page: Page, gateway: ScriptedGateway
) -> None:
    keep(gateway, "c1", LEAVE_TURN)
    keep(gateway, "c2", kept_turn("r2", "And travel?", "By train."))
    ask = await AskPage(page, gateway.url).open()
    await expect(ask.entries).to_have_text([re.compile("How much leave"), re.compile("And travel")])

    async def retitled(title: str) -> None:
        gateway.conversations["c1"]["title"] = title
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await expect(ask.entries.first).to_contain_text(title)

    remove = ask.entries.last.get_by_role("button", name="Delete: And travel?")
    await remove.focus()
    await ask.entries.last.get_by_role("link").hover()
    await retitled("Another title")
    await expect(remove).to_be_focused()
    await page.mouse.down()
    await retitled("A third title")
    await page.mouse.up()
    await expect(ask.turn(0).question).to_have_text("And travel?")


async def test_a_list_that_comes_late_undoes_nothing_that_has_happened_since(
    page: Page, gateway: ScriptedGateway
) -> None:
    keep(gateway, "c1", LEAVE_TURN)
    keep(gateway, "c2", kept_turn("r2", "And travel?", "By train."))
    ask = await AskPage(page, gateway.url).open()
    await expect(ask.entries).to_have_count(2)
    read, due, came = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        old = await route.fetch()
        read.set()
        await due.wait()
        await route.fulfill(response=old)
        came.set()

    await page.route("**/conversations", hold, times=1)
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await asyncio.wait_for(read.wait(), WAIT_S)
    gateway.conversations["c1"]["title"] = "Another title"
    await ask.entries.last.get_by_role("button", name="Delete: And travel?").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(ask.entries).to_have_text([re.compile("Another title")])
    due.set()
    await asyncio.wait_for(came.wait(), WAIT_S)
    await page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 150))")
    await expect(ask.entries).to_have_text([re.compile("Another title")])


async def test_the_steps_of_an_answer_of_the_past_are_fetched_from_its_log(
    page: Page, gateway: ScriptedGateway
) -> None:
    keep(gateway, "c1", LEAVE_TURN, kept_turn("r2", "And travel?", "By train."))
    ask, connection = await opened(page, gateway, "#/c/c1")
    await ask.turn(0).element.locator(".steps summary").click()
    assert (await connection.receive("resume"))["request_id"] == "r1"
    log = Log("r1")
    log.accepted("c1")
    log.status("retrieving", "Found 2", count=2, elapsed_ms=3)
    log.chunk("Ten days [1].")
    log.done(1)
    await connection.send(*log[:])
    await expect(ask.turn(0).steps).to_have_text([re.compile("done: Searching"), re.compile("done: Writing")])
    await expect(ask.turn(0).timings).to_be_visible()
    await ask.turn(1).element.locator(".steps summary").click()
    resume = await connection.receive("resume")
    stored = {"recovered": False, "answer": "By train.", "finish_reason": "stop", "next_seq": 0}
    await connection.send({"type": "resumed", "request_id": resume["request_id"], **stored})
    await expect(ask.turn(1).steps).to_have_text([re.compile("no longer stored")])


async def test_a_reload_in_the_middle_of_an_answer_goes_on_with_it(talk: Talk) -> None:
    turn, log = await talk.ask("How much?")
    await talk.connection.send(log.accepted("c9"), log.chunk("Ten"))
    await expect(turn.answer).to_have_text("Ten")
    await expect(talk.page.page).to_have_url(re.compile("#/c/c9$"))
    keep(talk.gateway, "c9", LEAVE_TURN, running=(log.request_id, "elsewhere"))
    await talk.page.page.reload()
    connection = await talk.gateway.connection()
    assert (await connection.receive("resume"))["request_id"] == log.request_id
    assert (await connection.receive("resume"))["request_id"] == "elsewhere"
    await connection.send(*log[:], log.chunk(" days."), log.done())
    await talk.page.turn(1).until("done")
    await expect(talk.page.turns.locator("h2").nth(1)).to_have_text("How much?")
    await expect(talk.page.turn(1).answer).to_have_text("Ten days.")
    # Its question is not in the log; it comes with the kept turn.
    await expect(talk.page.turn(2).question).to_have_text("A question that was asked elsewhere")
    talk.gateway.conversations["c9"]["turns"].append(kept_turn("elsewhere", "And sick leave?", "Full pay."))
    other = Log("elsewhere")
    await connection.send(other.accepted("c9"), other.chunk("Full pay."), other.done())
    await expect(talk.page.turn(2).question).to_have_text("And sick leave?")


async def test_an_answer_goes_on_while_another_conversation_is_open(talk: Talk) -> None:
    keep(talk.gateway, "c1", LEAVE_TURN)
    turn, log = await talk.ask("How much?")
    await talk.connection.send(log.accepted("c9"), log.chunk("Ten"))
    await expect(turn.answer).to_have_text("Ten")
    keep(talk.gateway, "c9", kept_turn("r9", "Before", "That was before."), running=(log.request_id,))
    await talk.page.entries.filter(has_text="How much leave?").get_by_role("link").click()
    await expect(talk.page.turn(0).question).to_have_text("How much leave?")
    await talk.connection.send(log.chunk(" days."))
    await talk.page.page.go_back()
    await expect(talk.page.turn(1).answer).to_have_text("Ten days.")
    await talk.page.page.go_forward()
    await expect(talk.page.turn(0).question).to_have_text("How much leave?")
    await talk.connection.send(log.done())
    await talk.page.page.go_back()
    await talk.page.turn(1).until("done")
    # It was followed all the time, so nothing had to be asked for again.
    assert talk.connection.messages.empty()


async def test_a_conversation_is_deleted_after_a_question_and_only_then(page: Page, gateway: ScriptedGateway) -> None:
    keep(gateway, "c1", LEAVE_TURN)
    keep(gateway, "c2", kept_turn("r2", "And travel?", "By train."))
    ask, _ = await opened(page, gateway, "#/c/c1")
    await expect(ask.turns).to_have_count(1)
    dialog = page.get_by_role("dialog", name="Delete this conversation?")
    remove = ask.entries.first.get_by_role("button", name="Delete: How much leave?")
    await remove.focus()
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("button", name="Not now")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(remove).to_be_focused()
    assert "c1" in gateway.conversations
    await page.keyboard.press("Enter")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(ask.entries).to_have_text([re.compile("And travel")])
    await expect(ask.entries.first.get_by_role("link")).to_be_focused()
    await expect(ask.turns).to_have_count(0)
    await expect(page).to_have_url(re.compile("#/$"))
    await expect(ask.announcer).to_have_text("The conversation was deleted.")
    assert list(gateway.conversations) == ["c2"]


async def test_what_goes_wrong_with_conversations_is_said(page: Page, gateway: ScriptedGateway) -> None:
    ask, _ = await opened(page, gateway, "#/c/gone")
    alert = page.locator("#conversation").get_by_role("alert")
    await expect(alert).to_contain_text("There is no such conversation here")
    await expect(alert.get_by_role("button")).to_have_count(0)
    gateway.conversations_fail = 503
    await page.evaluate("location.hash = '#/c/c1'")
    await expect(alert).to_contain_text("Said with 503.")
    gateway.conversations_fail = None
    keep(gateway, "c1", LEAVE_TURN)
    await alert.get_by_role("button", name="Try again").click()
    await expect(ask.turns).to_have_count(1)
    await page.route("**/conversations", lambda route: route.abort())
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(ask.conversations.get_by_role("alert")).to_contain_text("The server could not be reached")
    await page.unroute("**/conversations")
    gateway.conversations_fail = 401
    await ask.conversations.get_by_role("button", name="Try again").click()
    await expect(ask.conversations.get_by_role("alert")).to_contain_text("Your token was not accepted")
    gateway.conversations_fail = None
    await ask.conversations.get_by_role("button", name="Try again").click()
    await expect(ask.entries).to_have_count(1)


async def test_with_a_token_conversations_are_fetched_with_it(page: Page, gateway: ScriptedGateway) -> None:
    gateway.auth = "required"
    keep(gateway, "c1", LEAVE_TURN)
    await page.add_init_script("sessionStorage.setItem('baton.token', 'secret')")
    ask, _ = await opened(page, gateway, "#/c/c1")
    await expect(ask.turns).to_have_count(1)
    await expect(ask.entries).to_have_count(1)
    assert {authorization for _, _, authorization in gateway.conversation_requests} == {"Bearer secret"}
    await expect(ask.conversations).not_to_contain_text("everybody")


@pytest.mark.parametrize("context", [PHONE], indirect=True)
async def test_on_a_phone_the_list_is_a_drawer(page: Page, gateway: ScriptedGateway) -> None:
    keep(gateway, "c1", LEAVE_TURN)
    ask = await AskPage(page, gateway.url).open()
    await expect(ask.conversations).to_be_hidden()
    toggle = page.locator("#history-toggle")
    await toggle.tap()
    await expect(toggle).to_have_attribute("aria-expanded", "true")
    await ask.entries.first.get_by_role("link").tap()
    await expect(ask.conversations).to_be_hidden()
    await expect(ask.turns).to_have_count(1)
    assert not await ask.overflows_sideways()
    await toggle.tap()
    await expect(toggle).to_have_attribute("aria-expanded", "true")
    await page.keyboard.press("Escape")
    await expect(toggle).to_be_focused()
    await expect(toggle).to_have_attribute("aria-expanded", "false")


# --- a second question while one runs ---------------------------------------------------------------------------------


async def test_a_second_question_waits_its_turn_and_can_be_taken_back(talk: Talk) -> None:
    first, log = await talk.ask("one")
    await talk.page.question.fill("two")
    await talk.page.question.press("Enter")
    # Of which conversation it is one is not known yet.
    await expect(talk.page.question).to_have_value("two")
    assert talk.connection.messages.empty()
    await talk.connection.send(log.accepted("c1"), log.status("retrieving", "Searching"))
    waiting = await talk.connection.receive("query")
    assert (waiting["query"], waiting["conversation_id"], waiting["if_busy"]) == ("two", "c1", "enqueue")
    await expect(talk.page.question).to_have_value("")
    second, third = talk.page.turn(1), await talk.page.ask("three")
    third_log = Log((await talk.connection.receive("query"))["request_id"])
    await talk.connection.send(third_log.accepted("c1"))
    await expect(second.waits).to_be_visible()
    await expect(third.waits).to_be_visible()
    await third.element.get_by_role("button", name="Do not ask this").click()
    assert (await talk.connection.receive("cancel"))["request_id"] == third_log.request_id
    await talk.connection.send(third_log.done(finish_reason="cancelled"))
    await third.until("done")
    await talk.connection.send(log.done())
    await first.until("done")
    await expect(second.waits).to_be_hidden()
    second_log = Log(waiting["request_id"])
    await talk.connection.send(second_log.accepted("c1"), second_log.chunk("Two."), second_log.done())
    await expect(second.answer).to_have_text("Two.")
    await expect(talk.page.send).to_have_accessible_name("Send")


async def test_a_question_can_stop_the_one_that_runs(talk: Talk) -> None:
    _, log = await talk.ask("one")
    await talk.connection.send(log.accepted("c1"), log.chunk("A long"))
    await expect(talk.page.interrupt).to_be_hidden()
    await talk.page.question.fill("rather this")
    await expect(talk.page.send).to_have_accessible_name("Ask next")
    await talk.page.interrupt.click()
    query = await talk.connection.receive("query")
    assert (query["query"], query["if_busy"]) == ("rather this", "interrupt")
    await talk.page.question.fill("or this")
    await talk.page.question.press("Control+Enter")
    assert (await talk.connection.receive("query"))["if_busy"] == "interrupt"
    # A conversation that has no room refuses, and the question can be tried again in its place.
    turn, log = await talk.page.ask("one more"), Log((await talk.connection.receive("query"))["request_id"])
    busy = {"type": "error", "code": "conversation_busy", "message": "Four wait already.", "retryable": True}
    await talk.connection.send({**busy, "request_id": log.request_id})
    await expect(turn.error).to_contain_text("Four wait already.")
    await turn.retry.click()
    assert (await talk.connection.receive("query"))["query"] == "one more"
    await expect(talk.page.turns).to_have_count(4)


HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


async def test_what_conversations_and_glances_say_is_text(page: Page, gateway: ScriptedGateway) -> None:
    sources = (source(1, HOSTILE, f"{HOSTILE} and more"),)
    keep(gateway, "c1", kept_turn("r1", HOSTILE, f"{HOSTILE} [1]", 1, sources=sources))
    ask, _ = await opened(page, gateway, "#/c/c1")
    await expect(ask.turn(0).question).to_have_text(HOSTILE)
    await ask.turn(0).citation(1).hover()
    await expect(ask.peek).to_contain_text("<img src=x onerror")
    await ask.entries.first.get_by_role("button").click()
    await expect(page.get_by_role("dialog")).to_contain_text("<img src=x onerror")
    assert await page.locator("nav img, nav script, dialog img, [role=tooltip] img, article img").count() == 0
    assert await page.evaluate("window.hacked") is None

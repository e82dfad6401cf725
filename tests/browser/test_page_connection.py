"""What the page does when the connection goes, when a token is wanted, and when it is loaded again."""

from __future__ import annotations

import asyncio
import re

import msgspec
import pytest
from playwright.async_api import Page, Route, expect

from baton_proto.messages import Source
from tests.browser.conftest import Talk
from tests.browser.page import AskPage, record
from tests.browser.scripted import Log, ScriptedGateway, source
from tests.browser.test_page_use import PHONE

pytestmark = pytest.mark.anyio


def resumed(log: Log, next_seq: int) -> dict[str, object]:
    return {"type": "resumed", "request_id": log.request_id, "recovered": True, "next_seq": next_seq}


async def test_a_drop_in_mid_answer_is_mended_without_a_word_lost_or_repeated(talk: Talk) -> None:
    turn, log = await talk.ask()
    log.accepted()
    log.chunks("one two three four five six", 4)
    log.done()
    await talk.connection.send(*log[:4])
    await expect(turn.answer).to_have_text("one two thre")
    await talk.connection.close(1011)
    second = await talk.gateway.connection()
    resume = await second.receive("resume")
    assert resume["after_seq"] == 3
    await second.send(resumed(log, 4), *log[2:])
    await turn.until("done")
    await expect(turn.answer).to_have_text("one two three four five six")
    await expect(talk.page.connection).to_have_attribute("data-state", "online")
    await expect(talk.page.announcer).to_have_text("Answer complete, 0 sources cited.")


async def test_a_gap_in_the_stream_is_filled_before_anything_is_shown(talk: Talk) -> None:
    turn, log = await talk.ask()
    log.accepted()
    log.chunks("one two three", 4)
    log.done()
    await talk.connection.send(log[0], log[1], log[3])
    assert (await talk.connection.receive("resume"))["after_seq"] == 1
    await expect(turn.answer).to_have_text("one")
    await talk.connection.send(resumed(log, 2), *log[2:])
    await turn.until("done")
    await expect(turn.answer).to_have_text("one two three")


async def test_the_page_says_that_it_reconnects_and_what_happens_to_the_answer(talk: Talk) -> None:
    turn, log = await talk.ask()
    await talk.connection.send(log.accepted(), log.chunk("one"))
    await expect(turn.answer).to_have_text("one")
    talk.gateway.greets = False  # so that there is time to look
    await talk.connection.close(1012)
    await expect(talk.page.connection).to_have_attribute("data-state", "reconnecting")
    await expect(talk.page.connection).to_have_text("Reconnecting…")
    await expect(talk.page.announcer).to_have_text("Connection lost. Reconnecting.")
    await expect(turn.steps.last).to_contain_text("Waiting for the connection")


async def test_the_page_says_that_a_busy_server_is_asked_again(talk: Talk) -> None:
    turn, log = await talk.ask()
    refusal = {"type": "error", "code": "overloaded", "message": "Full.", "retryable": True, "retry_after_ms": 2_500}
    said = await record(turn.element)
    await talk.connection.send({**refusal, "request_id": log.request_id})
    await talk.connection.receive("query")
    # What the server said, and some more at random, so that not all come back at once.
    assert re.search("Very busy right now; asking again in [1-4] s", "\n".join(await said()))
    await expect(turn.error).to_have_count(0)
    await talk.connection.send(log.accepted(), log.chunk("There."), log.done())
    await turn.until("done")
    await expect(turn.answer).to_have_text("There.")


async def test_when_the_network_returns_the_page_does_not_wait(talk: Talk) -> None:
    await talk.connection.close(4029)
    await expect(talk.page.connection).to_have_attribute("data-state", "reconnecting")
    await talk.page.page.evaluate("window.dispatchEvent(new Event('online'))")
    await talk.gateway.connection()
    await expect(talk.page.connection).to_have_attribute("data-state", "online")


async def test_a_refused_origin_is_said_and_left_alone(talk: Talk) -> None:
    turn, _ = await talk.ask()
    await talk.connection.close(4003)
    await turn.until("failed")
    await expect(turn.error).to_contain_text("does not allow connections from this page")
    await expect(talk.page.connection).to_have_text("Refused")
    await expect(talk.page.page.get_by_role("button", name="Connect again")).to_be_visible()


async def test_a_token_is_asked_for_used_and_kept_for_the_tab(page: Page, gateway: ScriptedGateway) -> None:
    gateway.auth = "required"
    ask = await AskPage(page, gateway.url).open(online=False)
    await expect(ask.token_dialog).to_be_visible()
    await expect(page.get_by_label("Token", exact=True)).to_be_focused()
    await page.keyboard.type("secret")
    await page.keyboard.press("Enter")
    connection = await gateway.connection()
    assert await connection.receive() == {"type": "auth", "token": "secret"}
    await expect(ask.token_dialog).to_be_hidden()
    await expect(ask.connection).to_have_attribute("data-state", "online")
    assert await page.evaluate("[...Object.values(localStorage)].includes('secret')") is False
    await page.reload()
    assert (await (await gateway.connection()).receive("auth"))["token"] == "secret"


async def test_a_refused_token_is_asked_for_again_and_the_question_goes_on(
    page: Page, gateway: ScriptedGateway
) -> None:
    gateway.auth = "required"
    await page.add_init_script("sessionStorage.setItem('baton.token', 'old')")
    ask = await AskPage(page, gateway.url).open()
    connection = await gateway.connection()
    await connection.receive("auth")
    turn = await ask.ask("Who am I?")
    await connection.receive("query")
    await connection.close(4001)
    await expect(ask.token_dialog).to_contain_text("The token was not accepted or has expired.")
    await page.get_by_label("Token", exact=True).fill("new")
    await page.get_by_role("button", name="Continue").click()
    second = await gateway.connection()
    assert (await second.receive("auth"))["token"] == "new"
    log = Log((await second.receive("query"))["request_id"])
    await second.send(log.accepted(), log.chunk("You are you."), log.done())
    await turn.until("done")


async def opened_with_a_token(page: Page, gateway: ScriptedGateway, cited: Source) -> Page:
    """The tab of the original that an answer cites, for a user with a token."""
    gateway.auth = "required"
    await page.add_init_script("sessionStorage.setItem('baton.token', 'secret')")
    ask = await AskPage(page, gateway.url).open()
    connection = await gateway.connection()
    await connection.receive("auth")
    turn = await ask.ask("Where?")
    log = Log((await connection.receive("query"))["request_id"])
    log.accepted()
    log.sources(cited)
    log.chunk("Here [1].")
    log.done(1)
    await connection.send(*log[:])
    await turn.until("done")
    await turn.citation(1).click()
    async with page.context.expect_page() as opening:
        await ask.panel.get_by_role("link", name="Open the original").click()
    return await opening.value


async def test_with_a_token_the_original_is_fetched_with_it_and_shown_without_scripts(
    page: Page, gateway: ScriptedGateway
) -> None:
    gateway.documents["document-1"] = "<!doctype html><h1>Original</h1><script>opener.hacked = 1</script>"
    original = await opened_with_a_token(page, gateway, source(1, "Leave", "Original"))
    await expect(original.frame_locator("iframe").get_by_role("heading", name="Original")).to_be_visible()
    assert gateway.document_requests == [{"name": "document-1", "authorization": "Bearer secret"}]
    assert await page.evaluate("window.hacked") is None


LONG = "<p>A rule that says nothing of interest about anything that flies. It is followed by another one.</p>" * 300
STYLED = (
    '<!doctype html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    f'<link rel="stylesheet" href="/static/document.css"></head><body>{LONG}'
    f'<p><mark id="passage">Here it is.</mark></p>{LONG}</body></html>'
)


@pytest.mark.parametrize("context", [{}, {**PHONE, "color_scheme": "dark"}], indirect=True)
async def test_with_a_token_the_passage_is_in_view_on_every_screen(page: Page, gateway: ScriptedGateway) -> None:
    gateway.documents["d" * 32] = STYLED
    styles = asyncio.Event()

    async def slowly(route: Route) -> None:
        await styles.wait()
        await route.continue_()

    await page.context.route("**/document.css", slowly)
    found = source(1, "Leave", "Here it is.", document_id="d" * 32)
    found = msgspec.structs.replace(found, url=f"{found.url}?passage=0#passage")
    original = await opened_with_a_token(page, gateway, found)
    mark = original.frame_locator("iframe").locator("#passage")
    await expect(mark).to_be_attached()
    styles.set()
    await expect(mark).to_be_in_viewport()
    frame = original.locator("iframe")
    await expect(frame).to_be_focused()  # so that arrow keys move through it
    size = page.viewport_size
    assert size is not None
    assert await original.evaluate("[innerWidth, document.documentElement.lang]") == [size["width"], "en"]
    assert await frame.evaluate("node => getComputedStyle(node).colorScheme") == "light dark"


async def test_an_original_that_is_missing_is_said_in_the_panel(page: Page, gateway: ScriptedGateway) -> None:
    gateway.auth = "required"
    await page.add_init_script("sessionStorage.setItem('baton.token', 'secret')")
    ask = await AskPage(page, gateway.url).open()
    connection = await gateway.connection()
    await connection.receive("auth")
    turn = await ask.ask("Where?")
    log = Log((await connection.receive("query"))["request_id"])
    await connection.send(log.accepted(), log.sources(source(1, "Leave", "s")), log.chunk("Here [1]."), log.done(1))
    await turn.until("done")
    await turn.source(1).click()
    await ask.panel.get_by_role("link", name="Open the original").click()
    await expect(ask.panel.get_by_role("alert")).to_have_text("The original could not be opened: it is not stored here")


async def test_a_reloaded_page_finds_its_conversation_again(talk: Talk) -> None:
    await talk.answer("Ten days.", question="How many?")
    turn, running = await talk.ask("And then?")
    await talk.connection.send(running.accepted(), running.chunk("First"))
    await expect(turn.answer).to_have_text("First")
    await talk.page.page.reload()
    connection = await talk.gateway.connection()
    first, second = await connection.receive("resume"), await connection.receive("resume")
    assert (first["after_seq"], second["after_seq"]) == (-1, -1)
    old = Log(first["request_id"])
    await connection.send(resumed(old, 0), old.accepted(), old.chunk("Ten days."), old.done())
    await connection.send(resumed(running, 0), *running[:], running.chunk(", then more."), running.done())
    await talk.page.turn(1).until("done")
    await expect(talk.page.turn(0).question).to_have_text("How many?")
    await expect(talk.page.turn(1).answer).to_have_text("First, then more.")
    await talk.page.ask("Go on")
    assert (await connection.receive("query"))["conversation_id"] == "conversation-1"


async def test_a_reloaded_page_forgets_what_the_server_has_forgotten(talk: Talk) -> None:
    await talk.answer("Ten days.")
    await talk.page.page.reload()
    connection = await talk.gateway.connection()
    resume = await connection.receive("resume")
    gone = {"type": "error", "code": "not_found", "message": "There is no such request.", "retryable": False}
    await connection.send({**gone, "request_id": resume["request_id"]})
    await expect(talk.page.turns).to_have_count(0)
    await expect(talk.page.page.get_by_role("heading", name="What would you like to know?")).to_be_visible()


async def test_what_could_not_be_recovered_is_marked_as_such(talk: Talk) -> None:
    turn, log = await talk.ask()
    await talk.connection.send(log.accepted(), log.chunk("Ten"))
    await expect(turn.answer).to_have_text("Ten")
    await talk.connection.close(1012)
    second = await talk.gateway.connection()
    await second.receive("resume")
    stored = {"recovered": False, "answer": "Ten days.", "finish_reason": "stop"}
    await second.send({**resumed(log, 0), **stored})
    await turn.until("done")
    await expect(turn.answer).to_have_text("Ten days.")
    await expect(turn.notes).to_have_text(re.compile("no longer stored"))

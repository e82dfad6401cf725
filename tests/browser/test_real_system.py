"""The page, and the article's own client, in Chromium against the whole running system."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.page import AskPage
from tests.servers.processes import Process, free_port, wait_until
from tests.system import System, start, system, workers_alive

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("real-system")]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("page")
    with system(folder, replicas={"gateway": 0}, settings={"BATON_EXTRACTIVE_DELAY_MS": "20"}) as one:
        one.gateways.append(free_port())
        with _gateway(one, 0):
            yield one


@contextlib.contextmanager
def _gateway(one: System, number: int) -> Iterator[Process]:
    """A gateway on the system's one port, so that another can take its place."""
    port = one.gateways[0]
    with start(one, "gateway", number, BATON_GATEWAY_PORT=str(port)) as process:
        wait_until(lambda: len(workers_alive(port)) == 3, "the gateway knows all workers", within_s=60)
        one.processes["gateway"] = [process]
        yield process


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A web server that is not the gateway: the article's page comes from anywhere on this machine."""
    handler = functools.partial(_Quiet, directory=HERE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_the_articles_own_client_works_unchanged(page: Page, demo: System, elsewhere: str) -> None:
    await page.goto(f"{elsewhere}/article_client.html?ws={demo.socket_url()}")
    await expect(page.locator("#answer")).to_contain_text("15 天", timeout=30_000)
    await expect(page.locator("#sources li").first).to_have_text("年假政策")
    await expect(page.locator("#status")).not_to_be_empty()
    await expect(page.locator("#error")).to_be_empty()


@pytest.mark.parametrize("context", [{"locale": "zh-CN"}], indirect=True)
async def test_a_question_shows_its_steps_and_its_sources_lead_to_the_original(
    page: Page, context: BrowserContext, demo: System
) -> None:
    ask = await AskPage(page, demo.url).open()
    turn = await ask.ask("公司年假政策有哪些?")
    await turn.until("running")
    await turn.until("done")
    assert "15 天" in await turn.text()
    assert await turn.steps.count() >= 3
    await expect(turn.timings).to_be_visible()
    await turn.element.locator(".answer button.cite").first.click()
    await expect(ask.panel).to_be_visible()
    async with context.expect_page() as opened:
        await ask.panel.get_by_role("link").first.click()
    original = await opened.value
    await original.wait_for_load_state()
    assert "/documents/" in original.url
    assert "年假" in await original.locator("main").inner_text()


async def test_a_tool_call_is_seen_while_it_happens(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    turn = await ask.ask("How many vacation days do I have left?")
    await expect(turn.steps.filter(has_text="leave_balance")).to_be_visible()
    await turn.until("done")
    assert "8.5" in await turn.text()


async def test_an_answer_can_be_stopped_and_another_question_asked(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    turn = await ask.ask("公司年假政策有哪些?")
    await expect(turn.answer).not_to_be_empty()
    await page.keyboard.press("Escape")
    await turn.until("done")
    stopped = await turn.text()
    again = await ask.ask("公司年假政策有哪些?")
    await again.until("done")
    assert len(stopped) < len(await again.text())


async def test_a_conversation_is_found_again_as_it_looked_and_can_be_deleted(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    first = await ask.ask("公司年假政策有哪些?")
    await expect(first.answer).not_to_be_empty()
    second = await ask.ask("How do I claim travel expenses?")
    await expect(second.waits).to_be_visible()
    await first.until("done")
    await second.until("done")
    looked = [await first.text(), await first.supported.all_inner_texts(), await first.cited_sources.all_inner_texts()]
    assert looked[1]
    assert looked[2]
    await page.reload()
    await expect(ask.turns).to_have_count(2)
    await first.until("done")
    again = [await first.text(), await first.supported.all_inner_texts(), await first.cited_sources.all_inner_texts()]
    assert again == looked
    entry = ask.entries.filter(has=page.locator("[aria-current=page]"))
    await expect(entry).to_contain_text("2 questions")
    await entry.hover()
    await entry.get_by_role("button").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(ask.turns).to_have_count(0)
    await page.go_back()
    await page.reload()
    await expect(ask.turns).to_have_count(0)


async def test_an_answer_goes_on_in_its_sentence_after_its_gateway_was_killed(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    undisturbed = await ask.ask("公司年假政策有哪些?")
    await undisturbed.until("done")
    turn = await ask.ask("公司年假政策有哪些?")
    await expect(turn.answer).not_to_be_empty()
    demo.processes["gateway"][-1].kill()
    await expect(ask.connection).to_have_attribute("data-state", "reconnecting")
    await expect(turn.steps.last).to_contain_text("Waiting for the connection")
    assert await turn.element.get_attribute("data-phase") == "running"
    begun, length = await turn.answer.locator("p").all_inner_texts(), len(await turn.text())
    with _gateway(demo, 1):
        await turn.until("done", 60_000)
        assert await turn.text() == await undisturbed.text()
        await expect(ask.connection).to_have_attribute("data-state", "online")
    # What stood there has grown in its own place. Only the first paragraph can be compared: a later "-" may have become
    # a list, and a citation at its end may only have become one afterwards.
    whole = await turn.answer.locator("p").all_inner_texts()
    assert whole[0].startswith(begun[0].rstrip("0123456789 \n"))
    assert len(await turn.text()) > length

"""The page, and the article's own client, in Chromium against the whole running system."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.page import DROP, AskPage
from tests.servers.processes import Process, free_port, freeze, wait_until
from tests.system import System, start, start_gateway, system, workers_alive

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("real-system")]
HERE = Path(__file__).parent


# Answers that take some seconds, so that something can happen in their midst; and workers may stand still for a while.
SETTINGS = {"BATON_EXTRACTIVE_DELAY_MS": "30", "BATON_NO_WORKER_S": "60", "BATON_ACK_WAIT_S": "60"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("page")
    with system(folder, replicas={"gateway": 0}, settings=SETTINGS) as one:
        one.gateways.append(free_port())
        with _gateway(one, 0), start(one, "retriever.ingestion", 0):
            yield one


@pytest.fixture(scope="module")
def lasting(demo: System) -> Iterator[contextlib.ExitStack]:
    """What a test starts for the others too: they may come in any order."""
    with contextlib.ExitStack() as stack:
        yield stack


@contextlib.contextmanager
def _gateway(one: System, number: int) -> Iterator[Process]:
    """A gateway on the system's one port, so that another can take its place."""
    port = one.gateways[0]
    with start(one, "gateway", number, BATON_GATEWAY_PORT=str(port)) as process:
        wait_until(lambda: len(workers_alive(port)) == 3, "the gateway knows all workers", within_s=60)
        one.processes["gateway"] = [process]
        yield process


@contextlib.contextmanager
def _standing_still(process: Process) -> Iterator[None]:
    freeze(process.pid)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


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
    await turn.until("done")
    assert "15 天" in await turn.text()
    assert await turn.steps.count() >= 3
    await expect(turn.timings).to_be_visible()
    await turn.element.locator(".answer button.cite").first.click()
    await expect(ask.panel).to_be_visible()
    async with context.expect_page() as opened:
        await ask.panel.get_by_role("link").first.click()
    original = await opened.value
    await expect(original).to_have_url(re.compile("/documents/"))
    await expect(original.locator("main")).to_contain_text("年假")


async def test_a_tool_call_is_seen_while_it_happens(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    turn = await ask.ask("How many vacation days do I have left?")
    await expect(turn.steps.filter(has_text="leave_balance")).to_be_visible()
    await turn.until("done")
    assert "8.5" in await turn.text()


async def test_an_answer_can_be_stopped_and_another_question_asked(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    turn = await ask.ask("公司年假政策有哪些?")
    await turn.begins()
    await page.keyboard.press("Escape")
    await turn.until("done")
    stopped = await turn.text()
    again = await ask.ask("公司年假政策有哪些?")
    await again.until("done")
    assert len(stopped) < len(await again.text())


async def test_a_conversation_is_found_again_as_it_looked_and_can_be_deleted(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    with _standing_still(demo.processes["generator"][0]):
        first = await ask.ask("公司年假政策有哪些?")
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


FACT = "Zeppelins may be moored on the roof of the Hamburg office between six and nine in the morning."
FILLER = "".join(f"\n\n## Rule {n}\n\nRule {n} says nothing of interest about anything that flies." for n in range(60))
HANDBOOK = f"# Airship handbook{FILLER}\n\n## Mooring\n\n{FACT}{FILLER}\n"
SECRET_FACT = "The hovercraft of the Bremen branch is hidden behind the third lighthouse."
SECRET_QUESTION = "Where is the hovercraft of the Bremen branch hidden?"
QUESTION = "When may zeppelins be moored on the roof of the Hamburg office?"
READ_MS = 60_000


async def test_a_dropped_document_is_read_answers_questions_and_is_shown_at_its_passage(
    page: Page, context: BrowserContext, demo: System
) -> None:
    ask = await AskPage(page, demo.url).open()
    documents = page.get_by_role("region", name="Documents")
    await expect(documents).to_be_visible()
    await page.evaluate(DROP, [["airships.md", HANDBOOK], ["broken.pdf", "this is no PDF"]])
    row = documents.get_by_role("listitem")
    await expect(row.filter(has_text="airships.md")).to_contain_text("Ready · ", timeout=READ_MS)
    broken = row.filter(has_text="broken.pdf")
    await expect(broken).to_contain_text("Failed: ", timeout=READ_MS)
    assert "PDF" in await broken.locator(".facts").inner_text()
    turn = await ask.ask(QUESTION)
    await turn.until("done")
    assert "between six and nine" in await turn.text()
    await turn.element.locator(".answer button.cite").first.click()
    async with context.expect_page() as opened:
        await ask.panel.get_by_role("link", name="Open the original").click()
    original = await opened.value
    mark = original.locator("mark", has_text="Zeppelins may be moored")
    await expect(mark).to_be_in_viewport()
    assert await mark.inner_text() == FACT
    await broken.get_by_role("button", name="Remove").click()
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await expect(broken).to_have_count(0, timeout=READ_MS)


async def test_a_removed_document_disappears_and_no_answer_cites_it_any_more(page: Page, demo: System) -> None:
    ask = await AskPage(page, demo.url).open()
    documents = page.get_by_role("region", name="Documents")
    await expect(documents).to_be_visible()  # nothing that is dropped before it is taken
    fact = "The submarine of the Kiel branch is painted yellow on the second Tuesday of October."
    question = "When is the submarine of the Kiel branch painted yellow?"
    await page.evaluate(DROP, [["submarines.md", HANDBOOK.replace(FACT, fact).replace("Airship", "Submarine")]])
    row = documents.get_by_role("listitem").filter(has_text="submarines.md")
    await expect(row).to_contain_text("Ready · ", timeout=READ_MS)
    turn = await ask.ask(question)
    await turn.until("done")
    assert "second Tuesday of October" in await turn.text()
    await expect(turn.cited_sources.filter(has_text="Submarine handbook").first).to_be_visible()
    address = await row.get_by_role("link").get_attribute("href") or ""
    assert (await page.request.get(demo.url + address)).status == 200
    await row.get_by_role("button", name="Remove").click()
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await expect(row).to_have_count(0, timeout=READ_MS)
    await expect(ask.announcer).to_have_text("submarines.md was removed.")
    await page.locator("#new").click()
    again = await ask.ask(question)
    await again.until("done")
    assert "Tuesday" not in await again.text()
    assert await again.sources.filter(has_text="Submarine handbook").count() == 0
    assert (await page.request.get(demo.url + address)).status == 404


async def test_a_document_brought_in_with_a_token_is_for_its_user_alone(browser: Browser, demo: System) -> None:
    secret = "a secret of at least thirty-two bytes"

    def token(name: str) -> str:
        return jwt.encode({"sub": name, "exp": time.time() + 600}, secret, "HS256")

    async def page_of(name: str) -> AskPage:
        context = await browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 800})
        page = await context.new_page()
        await page.add_init_script(f"sessionStorage.setItem('baton.token', '{token(name)}')")
        return await AskPage(page, url).open()

    with start_gateway(demo, 7, BATON_JWT_SECRET=secret) as port:
        url = f"http://127.0.0.1:{port}"
        alice, bob = await page_of("alice"), await page_of("bob")
        private = HANDBOOK.replace(FACT, SECRET_FACT).encode()
        async with alice.page.expect_file_chooser() as choosing:
            await alice.page.locator("#attach").click()
        await (await choosing.value).set_files({"name": "mine.md", "mimeType": "text/markdown", "buffer": private})
        row = alice.page.get_by_role("region", name="Documents").get_by_role("listitem").filter(has_text="mine.md")
        await expect(row).to_contain_text("Ready · ", timeout=READ_MS)
        turn = await alice.ask(SECRET_QUESTION)
        await turn.until("done")
        assert "third lighthouse" in await turn.text()
        await turn.element.locator(".answer button.cite").first.click()
        async with alice.page.context.expect_page() as opened:
            await alice.panel.get_by_role("link", name="Open the original").click()
        frame = (await opened.value).frame_locator("iframe")
        await expect(frame.locator("mark#passage")).to_be_in_viewport()
        await expect((await opened.value).get_by_role("button", name="Original file")).to_be_visible()
        # Somebody else finds it in no way.
        await expect(bob.page.get_by_role("region", name="Documents")).to_be_visible()
        await expect(bob.page.get_by_text("mine.md")).to_have_count(0)
        theirs = await bob.ask(SECRET_QUESTION)
        await theirs.until("done")
        assert "third lighthouse" not in await theirs.element.inner_text()
        address = await row.get_by_role("link").get_attribute("href") or ""
        for name, status in (("alice", 200), ("bob", 404)):
            answer = await alice.page.request.get(url + address, headers=_bearer(token(name)))
            assert answer.status == status
        for person in (alice, bob):
            await person.page.context.close()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_an_answer_goes_on_in_its_sentence_after_its_gateway_was_killed(
    page: Page, demo: System, lasting: contextlib.ExitStack
) -> None:
    ask = await AskPage(page, demo.url).open()
    undisturbed = await ask.ask("公司年假政策有哪些?")
    await undisturbed.until("done")
    turn = await ask.ask("公司年假政策有哪些?")
    await turn.begins()
    demo.processes["gateway"][-1].kill()
    await expect(ask.connection).to_have_attribute("data-state", "reconnecting")
    await expect(turn.steps.last).to_contain_text("Waiting for the connection")
    assert await turn.element.get_attribute("data-phase") == "running"
    begun, length = await turn.answer.locator("p").all_inner_texts(), len(await turn.text())
    lasting.enter_context(_gateway(demo, 1))
    await turn.until("done", 60_000)
    assert await turn.text() == await undisturbed.text()
    await expect(ask.connection).to_have_attribute("data-state", "online")
    # What stood there has grown in its own place. Only the first paragraph can be compared: a later "-" may have become
    # a list, and a citation at its end may only have become one afterwards.
    whole = await turn.answer.locator("p").all_inner_texts()
    assert whole[0].startswith(begun[0].rstrip("0123456789 \n"))
    assert len(await turn.text()) > length

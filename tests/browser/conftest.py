"""A browser for the whole run, a scripted gateway and an empty profile for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.chromium import launch
from tests.browser.page import AskPage, Turn
from tests.browser.scripted import Connection, Log, ScriptedGateway, scripted_gateway

PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    async with launch() as running:
        yield running


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with scripted_gateway() as running:
        yield running


@pytest.fixture
async def context(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[BrowserContext]:
    """Options of the profile come from `@pytest.mark.parametrize("context", [{…}], indirect=True)`."""
    options = {"locale": "en-GB", "viewport": {"width": 1280, "height": 800}, **getattr(request, "param", {})}
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    yield context
    await context.close()


@pytest.fixture
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A page that must not report an error: no exception, and nothing that its policy had to refuse."""
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    await page.close()
    unexpected = [
        text for text in problems if "WebSocket connection" not in text and "Failed to load resource" not in text
    ]
    assert not unexpected, unexpected


@pytest.fixture
async def ask_page(page: Page, gateway: ScriptedGateway) -> AskPage:
    return await AskPage(page, gateway.url).open()


@dataclass
class Talk:
    """The open page and, at the other end of its connection, the script."""

    page: AskPage
    gateway: ScriptedGateway
    connection: Connection

    async def ask(self, question: str = "How much leave do I have?") -> tuple[Turn, Log]:
        """A question that has arrived, and the log in which to answer it."""
        turn = await self.page.ask(question)
        query = await self.connection.receive("query")
        assert query["query"] == question
        return turn, Log(query["request_id"])

    async def answer(
        self, text: str, *cited: int, question: str = "How much leave do I have?", **fields: object
    ) -> Turn:
        """A question and its whole answer."""
        turn, log = await self.ask(question)
        log.accepted()
        if "sources" in fields:
            log.sources(*fields["sources"])
        log.chunks(text)
        log.done(*cited)
        await self.connection.send(*log[:])
        await turn.until("done")
        return turn


@pytest.fixture
async def talk(ask_page: AskPage, gateway: ScriptedGateway) -> Talk:
    return Talk(ask_page, gateway, await gateway.connection())

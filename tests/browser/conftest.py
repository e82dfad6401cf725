"""A browser for the whole run, a scripted gateway and an empty profile for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.chromium import launch
from tests.browser.page import AskPage
from tests.browser.scripted import ScriptedGateway, scripted_gateway

expect.set_options(timeout=10_000)


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
    context.set_default_timeout(10_000)
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
    unexpected = [
        text for text in problems if "WebSocket connection" not in text and "Failed to load resource" not in text
    ]
    assert not unexpected, unexpected


@pytest.fixture
async def ask_page(page: Page, gateway: ScriptedGateway) -> AskPage:
    return await AskPage(page, gateway.url).open()

"""The page as a person uses it. Works on any address that serves it: the scripted gateway or a running system."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Locator, Page, expect

DONE_MS = 30_000
DROP = """files => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) transfer.items.add(new File([text], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
"""Drops files made in the page, given as name and text."""


async def record(element: Locator, what: str = "node.textContent") -> Callable[[], Awaitable[list[Any]]]:
    """From now on note what an expression says of an element, `node`, whenever that changes: for what may be over
    before a test looks. Gives what was noted so far."""
    await element.evaluate(
        f"""node => {{
          const seen = node.seen = [];
          const look = () => {{
            const now = {what};
            if (seen.length === 0 || seen.at(-1) !== now) seen.push(now);
          }};
          look();
          const all = {{ subtree: true, childList: true, characterData: true, attributes: true }};
          new MutationObserver(look).observe(node, all);
        }}"""
    )
    return lambda: element.evaluate("node => node.seen")


class Turn:
    """One question with its answer, on the page."""

    def __init__(self, element: Locator) -> None:
        self.element = element
        self.question = element.locator("h2").first
        self.answer = element.locator(".answer")
        self.steps = element.locator(".steps > ol > li")
        self.sources = element.locator("button.source")
        self.cited_sources = element.locator("button.source.cited")
        self.error = element.locator(".error-card")
        self.notes = element.locator(".note")
        self.waits = element.get_by_text("Waiting for the answer before")
        self.supported = element.locator(".answer .supported")
        self.details = element.locator("details.about")
        self.timings = element.locator(".timings")
        self.copy = element.locator("button.copy")
        self.retry = element.locator("button.retry")

    def citation(self, n: int) -> Locator:
        """The marks `[n]` in the answer."""
        return self.element.locator(f'.answer button.cite[data-n="{n}"]')

    def source(self, n: int) -> Locator:
        return self.element.locator(f'button.source[data-n="{n}"]')

    async def until(self, phase: str, timeout_ms: int = DONE_MS) -> None:
        """Wait for `running`, `done` or `failed`."""
        await expect(self.element).to_have_attribute("data-phase", phase, timeout=timeout_ms)

    async def begins(self) -> None:
        """Wait for the first of the answer, without the pauses in which `expect` looks."""
        element = await self.answer.element_handle()
        await self.element.page.wait_for_function("node => node.textContent !== ''", arg=element)

    async def request_id(self) -> str:
        return await self.element.get_attribute("data-request") or ""

    async def text(self) -> str:
        """The answer as it reads: citation marks are bare numbers."""
        return await self.answer.inner_text()


class AskPage:
    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url.rstrip("/")
        self.question = page.locator("#question")
        self.send = page.locator("#ask button[type=submit]")
        self.turns = page.locator("article.turn")
        self.examples = page.locator("#examples button")
        self.connection = page.locator("#connection")
        self.panel = page.locator("#source-panel")
        self.token_dialog = page.locator("#token-dialog")
        self.announcer = page.locator("#announcer")
        self.language = page.locator("#language")
        self.theme = page.locator("#theme")
        self.new_conversation = page.locator("#new")
        self.interrupt = page.get_by_role("button", name="Stop and ask this")
        self.peek = page.get_by_role("tooltip")
        self.conversations = page.locator("#history-nav")
        self.entries = self.conversations.get_by_role("listitem")

    async def open(self, *, online: bool = True) -> AskPage:
        await self.page.goto(f"{self.base_url}/")
        if online:
            await expect(self.connection).to_have_attribute("data-state", "online")
        return self

    async def ask(self, question: str) -> Turn:
        """Type a question, press Enter, and give the turn that appears."""
        before = await self.turns.count()
        await self.question.fill(question)
        await self.question.press("Enter")
        await expect(self.turns).to_have_count(before + 1)
        return self.turn(before)

    def turn(self, index: int) -> Turn:
        return Turn(self.turns.nth(index))

    async def overflows_sideways(self) -> bool:
        return await self.page.evaluate("document.scrollingElement.scrollWidth > document.scrollingElement.clientWidth")

"""Takes a picture of the page on a running address: `python -m tests.browser.screenshot http://127.0.0.1:8000`.

It begins some conversations, asks its question in another, waits for the whole answer, opens the first source, and
writes a PNG of what a person would see.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from playwright.async_api import expect

from tests.browser.chromium import launch
from tests.browser.page import AskPage

QUESTION = "公司年假政策有哪些？"
BEFORE = ("Can I work remotely from abroad?", "How do I claim travel expenses?", "我还剩多少天年假？")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "page.png"


async def take(options: argparse.Namespace) -> None:
    async with launch() as browser:
        page = await browser.new_page(
            viewport={"width": options.width, "height": options.height},
            locale="zh-CN" if options.language == "zh" else "en-GB",
            color_scheme="dark" if options.dark else "light",
            device_scale_factor=options.scale,
        )
        ask = await AskPage(page, options.address).open()
        for question in options.before:
            turn = await ask.ask(question)
            await turn.until("done", timeout_ms=120_000)
            await ask.new_conversation.click()
            await expect(ask.turns).to_have_count(0)
        turn = await ask.ask(options.question)
        await turn.until("done", timeout_ms=120_000)
        if not options.no_source:
            await turn.element.locator(".answer .cite").first.click()
            await expect(ask.panel).to_be_visible()
        await expect(ask.page.locator("#history-nav [aria-current]")).to_contain_text(options.question[:8])
        # The picture shows the question, not the end of a long answer, and nothing in motion.
        await page.evaluate("document.scrollingElement.scrollTop = 0")
        await page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="where the page is served, as in http://127.0.0.1:8000")
    parser.add_argument("output", nargs="?", type=Path, default=PICTURE, help="the PNG to write")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--before", nargs="*", default=BEFORE, help="questions of conversations before it")
    parser.add_argument("--language", choices=("zh", "en"), default="zh", help="language of the page")
    parser.add_argument("--dark", action="store_true", help="with the dark theme")
    parser.add_argument("--no-source", action="store_true", help="without an open source")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--scale", type=float, default=1.0, help="pixels of the picture per pixel of the page")
    options = parser.parse_args()
    asyncio.run(take(options))
    print(options.output)


if __name__ == "__main__":
    main()

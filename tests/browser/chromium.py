"""Finds a Chromium to drive, and starts it with as little noise as it allows."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Playwright, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowser(RuntimeError):
    """There is no Chromium; the text says how to get one."""


def find_chromium(playwright: Playwright) -> str:
    """Path of a browser: `$CHROMIUM`, one on the PATH, or the one that Playwright manages.

    Raises:
        NoBrowser: none of them is there.
    """
    named = os.environ.get("CHROMIUM")
    if named and not shutil.which(named):
        raise NoBrowser(f"CHROMIUM={named} is no program that can be run; unset it or name a Chromium.")
    for name in (named, *NAMES):
        path = shutil.which(name) if name else None
        if path:
            return path
    managed = playwright.chromium.executable_path
    if Path(managed).exists():
        return managed
    raise NoBrowser(
        "The browser tests need Chromium or Chrome, and there is none. Install it with `sudo apt-get install chromium` "
        "(Debian, Ubuntu: also `snap install chromium`), `brew install --cask chromium` (macOS) or "
        "`python -m playwright install chromium`, or name one in CHROMIUM."
    )


@asynccontextmanager
async def launch() -> AsyncIterator[Browser]:
    """A headless browser with a new, empty profile, closed at the end."""
    async with async_playwright() as playwright:
        flags = [*FLAGS, *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]
        browser = await playwright.chromium.launch(executable_path=find_chromium(playwright), args=flags)
        try:
            yield browser
        finally:
            await browser.close()

"""The smallest client there can be, written after the article, against frames as the protocol has them."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.scripted import Log, ScriptedGateway, source

pytestmark = pytest.mark.anyio


async def test_the_article_client_shows_status_sources_and_answer(page: Page, gateway: ScriptedGateway) -> None:
    await page.goto(f"{gateway.url}/article")
    connection = await gateway.connection()
    message = await connection.receive()
    assert list(message) == ["query"]
    assert message["query"].startswith("公司年假政策有哪些")
    log = Log("chosen-by-the-server")
    log.accepted()
    log.status("retrieving", "正在查找资料")
    log.sources(source(1, "员工休假管理制度", "年假十天"))
    log.tool_call("clock", {})
    log.tool_result("12:00")
    log.chunks("每年 **10** 天 [1]。", 3)
    log.done(1)
    await connection.send(*log[:])
    await expect(page.locator("#status")).to_have_text("正在查找资料")
    await expect(page.locator("#sources li")).to_have_text(["员工休假管理制度"])
    await expect(page.locator("#answer")).to_have_text("每年 **10** 天 [1]。")
    await expect(page.locator("#error")).to_be_empty()


async def test_the_article_client_shows_an_error(page: Page, gateway: ScriptedGateway) -> None:
    await page.goto(f"{gateway.url}/article")
    connection = await gateway.connection()
    await connection.receive()
    log = Log("r")
    await connection.send(log.accepted(), log.error("no_worker", "没有可用的检索服务。", retryable=True))
    await expect(page.locator("#error")).to_have_text("没有可用的检索服务。")

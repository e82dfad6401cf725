"""Documents on the page: bringing them in by mouse and keyboard, how far they are, and what happens in between."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, Route, expect

from services.common.config import RetrieverSettings
from services.retriever.ingestion import telling
from services.retriever.stored import StoredPassage
from services.retriever.stores.local import LocalStore
from tests.browser.page import DROP, AskPage
from tests.browser.scripted import WAIT_S, ScriptedGateway
from tests.browser.test_page_use import CONTRAST, PHONE
from tests.ingesting import worker_thread
from tests.integration.test_gateway_protocol import gateway as running_gateway
from tests.servers.nats import Nats
from tests.servers.processes import eventually

pytestmark = pytest.mark.anyio
READ_MS = 60_000
SOON = "Math.random = () => 0"
"""The shortest of the pauses that are taken at random."""


class Documents:
    """The panel of documents on an open page."""

    def __init__(self, ask: AskPage, gateway: ScriptedGateway) -> None:
        self.ask = ask
        self.page = ask.page
        self.gateway = gateway
        self.shelf = gateway.shelf
        self.region = ask.page.get_by_role("region", name="Documents")
        self.rows = self.region.get_by_role("listitem")
        self.progress = self.region.get_by_role("progressbar")

    def row(self, name: str) -> Locator:
        return self.rows.filter(has_text=name)

    async def says(self, text: str) -> None:
        await expect(self.ask.announcer).to_have_text(text)

    async def watches(self) -> None:
        """The list that is read when the page watches has been read too: from now on it hears of changes in no other
        way, and says them."""
        await eventually(lambda: self.shelf.watchers and self.shelf.listed > 1, "the page watches")


@pytest.fixture
async def documents(page: Page, gateway: ScriptedGateway) -> Documents:
    gateway.shelf.open = True
    gateway.shelf.put("there.md", passages=3, document_id="d" * 32)
    found = Documents(await AskPage(page, gateway.url).open(), gateway)
    await expect(found.row("there.md")).to_contain_text("Ready · 3 passages")
    await found.watches()
    return found


async def dropped(page: Page, *paths: Path) -> None:
    """Files and folders of the disk, as a file manager drops them."""
    for kind in ("dragEnter", "dragOver"):
        await drag(page, kind, 400, 300, *paths)
    # The browser lets nothing fall that the page has not allowed yet.
    await expect(page.locator("#drop")).to_be_visible()
    for kind in ("dragOver", "drop"):
        await drag(page, kind, 400, 300, *paths)


async def drag(page: Page, kind: str, x: float, y: float, *paths: Path) -> None:
    session = await page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    await session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})
    await session.detach()


async def test_a_dropped_folder_is_brought_in_with_the_folders_in_it(documents: Documents, tmp_path: Path) -> None:
    wanted = {"handbook/leave.md": b"# Leave", "handbook/it/vpn.md": b"# VPN", "handbook/it/\u7f51\u7edc.txt": b"x"}
    for name, content in {**wanted, "alone.md": b"# Alone"}.items():
        path = tmp_path / "drop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "drop" / "handbook" / "empty").mkdir()
    await dropped(documents.page, tmp_path / "drop" / "handbook", tmp_path / "drop" / "alone.md")
    await eventually(lambda: len(documents.shelf.uploads) == 4, "all are there")
    assert dict(documents.shelf.uploads) == {**wanted, "alone.md": b"# Alone"}
    await expect(documents.rows).to_have_count(5)
    await expect(documents.row("handbook/it/vpn.md")).to_contain_text("Waiting to be read")
    await documents.says("4 files are being uploaded.")


async def test_a_file_that_is_heard_of_before_its_upload_was_answered_is_shown_once(documents: Documents) -> None:
    documents.shelf.answers.clear()
    await documents.page.evaluate(DROP, [["a.md", "x"]])
    await expect(documents.row("a.md").get_by_text("Waiting to be read")).to_be_visible()
    await expect(documents.rows).to_have_count(2)
    documents.shelf.put("a.md", "parsing")
    await expect(documents.row("a.md").get_by_text("Reading")).to_be_visible()
    await expect(documents.rows).to_have_count(2)
    documents.shelf.answers.set()


async def test_of_many_files_two_are_sent_at_once_and_only_some_are_drawn(documents: Documents) -> None:
    page = documents.page
    documents.shelf.takes.clear()
    await page.evaluate(COUNT_WHAT_IS_DRAWN)
    await page.evaluate(DROP, [[f"file-{n}.md", "x"] for n in range(3_000)])
    await expect(documents.region).to_contain_text("and 2801 more")
    await expect(documents.rows).to_have_count(200)
    await expect(documents.row("Uploading")).to_have_count(2)
    await documents.says("3000 files are being uploaded.")
    documents.shelf.takes.set()
    await eventually(lambda: len(documents.shelf.uploads) > 20, "they are sent")
    documents.shelf.takes.clear()  # or there may soon be more of them than are drawn
    drawn, entries = await page.evaluate("[drawn.ul, drawn.li]")
    assert entries <= 200 * drawn
    await page.reload()  # the rest need not be waited for
    await expect(documents.row("there.md")).to_be_visible()
    documents.shelf.takes.set()


COUNT_WHAT_IS_DRAWN = """() => {
  window.drawn = { ul: 0, li: 0 };
  const create = document.createElement.bind(document);
  document.createElement = (tag, ...more) => {
    if (tag in drawn) drawn[tag] += 1;
    return create(tag, ...more);
  };
}"""


async def test_what_hangs_over_the_page_is_shown_until_it_leaves(documents: Documents, tmp_path: Path) -> None:
    page = documents.page
    (tmp_path / "a.md").write_text("# A")
    overlay = page.locator("#drop")
    box = await documents.region.bounding_box()
    assert box is not None
    entry = box["x"] + 30, box["y"] + box["height"] - 20
    await drag(page, "dragEnter", *entry, tmp_path / "a.md")
    await drag(page, "dragOver", *entry, tmp_path / "a.md")
    await expect(overlay).to_be_visible()
    # What is below the pointer is drawn anew meanwhile.
    documents.shelf.put("there.md", passages=4, document_id="d" * 32)
    await expect(documents.row("there.md")).to_contain_text("4 passages")
    await drag(page, "dragOver", 500, 300, tmp_path / "a.md")
    await drag(page, "dragOver", -50, -50, tmp_path / "a.md")  # out of the window
    await expect(overlay).to_be_hidden()


async def test_how_far_a_file_is_is_shown_and_its_end_is_said(documents: Documents) -> None:
    shelf = documents.shelf
    await documents.page.evaluate(DROP, [["long.md", "x"], ["broken.pdf", "x"]])
    row = documents.row("long.md")
    await expect(row).to_contain_text("Waiting to be read")
    await expect(documents.progress).to_have_count(2)
    shelf.put("long.md", "parsing")
    await expect(row).to_contain_text("Reading")
    for done in (0, 128, 256):
        shelf.put("long.md", "writing", done=done, total=300)
        await expect(row).to_contain_text(f"{done} of 300 passages")
        await expect(row.get_by_role("progressbar")).to_have_attribute("value", str(done))
    await expect(row.get_by_role("progressbar")).to_have_accessible_name("Progress: long.md")
    shelf.put("long.md", passages=300, document_id="e" * 32)
    await expect(row).to_contain_text("Ready · 300 passages")
    await documents.says("long.md is ready.")
    await expect(row.get_by_role("link", name="long.md")).to_have_attribute("href", f"/documents/{'e' * 32}")
    shelf.put("broken.pdf", "failed", error="It is no PDF.")
    await documents.says("broken.pdf failed: It is no PDF.")
    await expect(documents.row("broken.pdf")).to_contain_text("Failed: It is no PDF.")
    await expect(documents.progress).to_have_count(0)
    await documents.row("broken.pdf").get_by_role("button", name="Try again").click()
    await eventually(lambda: [name for name, _ in shelf.uploads].count("broken.pdf") == 2, "it is sent again")


async def test_an_upload_is_repeated_where_the_server_is_busy_and_says_why_it_was_refused(documents: Documents) -> None:
    documents.shelf.refusals += [503, 400]
    await documents.page.evaluate(DROP, [["a.md", "x"]])
    row = documents.row("a.md")
    await expect(row).to_contain_text("Not taken: Refused with 400.")
    await documents.says("a.md failed: Refused with 400.")
    await documents.page.evaluate(DROP, [["huge.md", "x" * 1_000_001]])
    await expect(documents.row("huge.md")).to_contain_text("Not taken: The file is too large")
    await row.get_by_role("button", name="Try again").click()
    await expect(row).to_contain_text("Waiting to be read")
    assert [name for name, _ in documents.shelf.uploads] == ["a.md"]


async def test_what_is_pressed_stays_where_it_is_while_files_go_on(documents: Documents) -> None:
    for name in ("a.md", "b.md"):
        documents.shelf.put(name, "writing", done=0, total=9)
    row = documents.row("there.md")
    await expect(documents.rows).to_have_count(3)
    await row.get_by_role("button", name="Remove").hover()
    await documents.page.mouse.down()
    for done in (1, 2, 3):
        for name in ("a.md", "b.md"):
            documents.shelf.put(name, "writing", done=done, total=9)
        documents.shelf.put("there.md", passages=3 + done, document_id="d" * 32)
        await expect(row).to_contain_text(f"{3 + done} passages")
        await expect(documents.row("b.md")).to_contain_text(f"{done} of 9")
    await documents.page.mouse.up()
    await expect(documents.page.get_by_role("dialog")).to_contain_text("there.md")
    names = [await each.locator(".name").inner_text() for each in await documents.rows.all()]
    assert names == ["b.md", "a.md", "there.md"]


async def _tab_to(page: Page, target: Locator, key: str = "Tab", most: int = 12) -> None:
    for _ in range(most):
        await page.keyboard.press(key)
        if await target.evaluate("node => node === document.activeElement"):
            return
    await expect(target).to_be_focused()


async def test_files_are_brought_in_and_removed_by_keyboard_alone(documents: Documents, tmp_path: Path) -> None:
    page, region = documents.page, documents.region
    page.on("filechooser", lambda _: None)  # from now on, or the first key is faster than the wait for what it opens
    await expect(documents.ask.question).to_be_focused()
    await _tab_to(page, page.get_by_role("button", name="Add documents").last, "Shift+Tab")
    async with page.expect_file_chooser() as choosing:
        await page.keyboard.press("Enter")
    await (await choosing.value).set_files({"name": "new.md", "mimeType": "text/markdown", "buffer": b"# New"})
    await documents.says("1 file is being uploaded.")
    await expect(documents.rows).to_have_count(2)
    skip = page.get_by_role("link", name="Skip to the question box")
    await _tab_to(page, skip, "Shift+Tab", 30)
    # In the order in which it is seen: a folder, files, then each entry with what can be done to it.
    folder, add = region.get_by_role("button", name="Add a folder"), region.get_by_role("button", name="Add documents")
    await _tab_to(page, folder)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "one.md").write_text("# One")
    async with page.expect_file_chooser() as choosing:
        await page.keyboard.press("Space")
    await (await choosing.value).set_files(tmp_path / "rules")
    await expect(documents.row("rules/one.md")).to_be_visible()
    await expect(folder).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(add).to_be_focused()
    new = documents.shelf.put("new.md", passages=1, document_id="e" * 32)
    await documents.says("new.md is ready.")
    link = documents.row("new.md").get_by_role("link", name="new.md")
    await expect(link).to_be_visible()
    await _tab_to(page, link)
    await page.keyboard.press("Tab")
    remove = documents.row("new.md").get_by_role("button", name="Remove: new.md")
    await expect(remove).to_be_focused()
    dialog = page.get_by_role("dialog")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("button", name="Not now")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(remove).to_be_focused()
    await page.keyboard.press("Space")
    # The list changes behind the question.
    documents.shelf.put("new.md", passages=2, document_id="f" * 32)
    await expect(documents.row("new.md")).to_contain_text("2 passages")
    await page.keyboard.press("Tab")
    await expect(dialog.get_by_role("button", name="Remove")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(dialog).to_be_hidden()
    await expect(documents.row("new.md")).to_contain_text("Being removed")
    assert await region.evaluate("node => node.contains(document.activeElement)")
    assert documents.shelf.files[new["file"]]["state"] == "removing"
    documents.shelf.remove("new.md")
    await documents.says("new.md was removed.")
    await expect(documents.row("new.md")).to_have_count(0)
    assert await region.evaluate("node => node.contains(document.activeElement)")


async def test_the_focus_goes_on_to_the_next_entry_where_its_own_disappears(documents: Documents) -> None:
    documents.shelf.put("later.md", passages=1)
    await documents.row("later.md").get_by_role("button", name="Remove").focus()
    documents.shelf.remove("later.md")
    await expect(documents.row("there.md").get_by_role("button", name="Remove")).to_be_focused()
    documents.shelf.remove("there.md")
    await expect(documents.region.get_by_role("button", name="Add documents")).to_be_focused()


async def test_what_somebody_else_has_removed_meanwhile_counts_as_removed(documents: Documents) -> None:
    await documents.row("there.md").get_by_role("button", name="Remove").click()
    documents.shelf.files.clear()
    await documents.page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await expect(documents.page.get_by_role("dialog")).to_be_hidden()


async def test_a_list_that_comes_late_undoes_nothing_that_was_heard_of_meanwhile(
    page: Page, gateway: ScriptedGateway
) -> None:
    shelf = gateway.shelf
    shelf.open, shelf.held_from = True, 1
    shelf.put("there.md")
    lists = []
    page.on("requestfinished", lambda request: request.url.endswith("/documents") and lists.append(request))
    documents = Documents(await AskPage(page, gateway.url).open(), gateway)
    await eventually(lambda: shelf.listed == 2, "the list is read again when the page watches")
    shelf.put("new.md")
    shelf.remove("there.md")
    await expect(documents.row("new.md")).to_be_visible()
    await expect(documents.row("there.md")).to_have_count(0)
    shelf.lists.set()
    await eventually(lambda: len(lists) == 2, "the late list has come")
    await page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 150))")
    assert [await row.locator(".name").inner_text() for row in await documents.rows.all()] == ["new.md"]


async def test_a_list_that_comes_after_a_later_one_undoes_nothing(page: Page, gateway: ScriptedGateway) -> None:
    shelf = gateway.shelf
    shelf.open = True
    shelf.put("there.md")
    read, due, came = asyncio.Event(), asyncio.Event(), asyncio.Event()
    lists = itertools.count(1)

    async def hold(route: Route) -> None:
        if next(lists) != 2:
            await route.continue_()
            return
        old = await route.fetch()
        read.set()
        await due.wait()
        await route.fulfill(response=old)
        came.set()

    await page.route("**/documents", hold)
    await page.add_init_script(SOON)
    documents = Documents(await AskPage(page, gateway.url).open(), gateway)
    await asyncio.wait_for(read.wait(), WAIT_S)
    shelf.hang_up()
    await eventually(lambda: shelf.listed == 4, "the list is read again when the page watches anew")
    shelf.put("new.md")
    await expect(documents.row("new.md")).to_be_visible()
    due.set()
    await asyncio.wait_for(came.wait(), WAIT_S)
    await page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 150))")
    await expect(documents.rows).to_have_count(2)


async def test_a_page_that_comes_back_watches_anew_and_knows_what_it_missed(
    page: Page, gateway: ScriptedGateway, documents: Documents
) -> None:
    """A stream that died on the way tells nobody: it goes with the connection."""
    (before,) = documents.shelf.watchers
    await (await gateway.connection()).close(1012)
    await gateway.connection()
    await documents.page.evaluate(SOON)
    await eventually(lambda: documents.shelf.watchers and before not in documents.shelf.watchers, "it watches anew")
    documents.shelf.put("there.md", passages=9)
    await expect(documents.row("there.md")).to_contain_text("Ready · 9 passages")
    # One that is ended by the server is asked for again by itself.
    (before,) = documents.shelf.watchers
    documents.shelf.hang_up()
    await eventually(lambda: documents.shelf.watchers and before not in documents.shelf.watchers, "and again")


async def test_who_comes_with_another_token_does_not_see_the_documents_of_the_one_before(
    page: Page, gateway: ScriptedGateway
) -> None:
    gateway.auth = "required"
    gateway.shelf.open = True
    gateway.shelf.put("secret.md")
    await page.add_init_script("sessionStorage.setItem('baton.token', 'old')")
    documents = Documents(await AskPage(page, gateway.url).open(), gateway)
    await expect(documents.row("secret.md")).to_be_visible()
    await documents.watches()
    await (await gateway.connection()).close(4001)
    await expect(documents.ask.token_dialog).to_be_visible()
    await expect(page.get_by_text("secret.md")).to_have_count(0)
    await eventually(lambda: not documents.shelf.watchers, "the stream of the first has ended")
    gateway.shelf.files.clear()
    await page.get_by_label("Token", exact=True).fill("new")
    await page.get_by_role("button", name="Continue").click()
    await expect(documents.region).to_contain_text("Drop files or folders")


HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


async def test_names_and_reasons_are_shown_as_text(documents: Documents) -> None:
    documents.shelf.put(
        f"{HOSTILE}.md", "failed", error=HOSTILE, document_id="javascript:window.hacked=1", title=HOSTILE
    )
    documents.shelf.put("b.md", HOSTILE, title=HOSTILE)
    row = documents.row(".md").filter(has_text="Failed")
    await expect(row).to_contain_text(f"Failed: {HOSTILE}")
    assert await row.get_by_role("link").get_attribute("href") == "/documents/javascript%3Awindow.hacked%3D1"
    await row.get_by_role("button", name="Remove").click()
    await expect(documents.page.get_by_role("dialog")).to_contain_text(f"{HOSTILE}.md")
    assert await documents.page.locator("section img, section script, dialog img, dialog script").count() == 0
    assert await documents.page.evaluate("window.hacked") is None


@pytest.mark.parametrize(
    "context", [{**PHONE, "color_scheme": scheme, "locale": "zh-CN"} for scheme in ("light", "dark")], indirect=True
)
async def test_on_a_chinese_phone_documents_are_in_the_drawer_and_are_read_out_there(
    page: Page, gateway: ScriptedGateway
) -> None:
    shelf = gateway.shelf
    shelf.open = True
    shelf.put("手册/" + "很长的名字" * 30 + ".md", passages=3, document_id="d" * 32)
    shelf.put("x" * 200 + ".pdf", "failed", error="y" * 200)
    shelf.put("c.md", "writing", done=1, total=2)
    ask = await AskPage(page, gateway.url).open()
    await Documents(ask, gateway).watches()
    await page.get_by_role("button", name="添加文档").tap()
    await page.get_by_role("button", name="对话记录").tap()
    drawer = page.get_by_role("dialog")
    region = drawer.get_by_role("region", name="文档")
    await expect(region.get_by_role("listitem")).to_have_count(3)
    await expect(region).to_contain_text("1 / 2 段")
    await expect(region).to_contain_text("就绪 · 3 段")
    assert not await ask.overflows_sideways()
    assert await region.evaluate("node => node.scrollWidth <= node.clientWidth")
    for button in await region.get_by_role("button").all():
        box = await button.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 43.9, box
    await drawer.evaluate("node => Promise.all(node.getAnimations().map((animation) => animation.finished))")
    assert await page.evaluate(CONTRAST) == []
    shelf.put("c.md", passages=2)
    await expect(drawer.get_by_role("status")).to_have_text("c.md 已就绪。")


@pytest.mark.parametrize("context", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
async def test_the_texts_of_documents_have_enough_contrast(documents: Documents) -> None:
    documents.shelf.put("a.md", "failed", error="No.")
    documents.shelf.put("b.md", "writing", done=1, total=2)
    documents.shelf.takes.clear()
    await documents.page.evaluate(DROP, [["c.md", "x"]])
    await expect(documents.rows).to_have_count(4)
    assert await documents.page.evaluate(CONTRAST) == []
    await documents.row("a.md").get_by_role("button", name="Remove").click()
    assert await documents.page.evaluate(CONTRAST) == []
    documents.shelf.takes.set()  # or the gateway waits for it before it ends


class Gate:
    """Lets an ingest worker write its passages batch by batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._batches = threading.Semaphore(0)
        self._open = threading.Event()
        upsert = LocalStore.upsert

        async def gated(store: LocalStore, passages: Sequence[StoredPassage], total: int) -> None:
            await asyncio.to_thread(self._wait)
            await upsert(store, passages, total)

        monkeypatch.setattr(LocalStore, "upsert", gated)

    def _wait(self) -> None:
        while not (self._open.is_set() or self._batches.acquire(timeout=0.05)):
            pass

    def one(self) -> None:
        self._batches.release()

    def open(self) -> None:
        self._open.set()


async def test_the_progress_of_a_real_file_is_shown_as_it_is_written(
    page: Page, nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "EVERY_S", 0.0)
    gate = Gate(monkeypatch)
    settings = RetrieverSettings(retriever="local", store_dir=str(tmp_path / "store"))
    long = "# Rules\n" + "".join(f"\n## Rule {n}\n\nRule {n} is about number {n}.\n" for n in range(300))
    with running_gateway(tmp_path, nats) as (port, _), worker_thread(nats.url, settings):
        try:
            ask = await AskPage(page, f"http://127.0.0.1:{port}").open()
            region = page.get_by_role("region", name="Documents")
            await expect(region).to_be_visible()
            await page.evaluate(DROP, [["long.md", long], ["broken.pdf", "this is no PDF"], ["empty.txt", ""]])
            row = region.get_by_role("listitem").filter(has_text="long.md")
            await expect(row).to_contain_text("0 of 300 passages", timeout=READ_MS)
            for written in (128, 256):
                gate.one()
                await expect(row).to_contain_text(f"{written} of 300 passages", timeout=READ_MS)
                await expect(row.get_by_role("progressbar")).to_have_attribute("value", str(written))
            gate.open()
            await expect(row).to_contain_text("Ready · 300 passages", timeout=READ_MS)
            await expect(row.get_by_role("progressbar")).to_have_count(0)
            for name, reason in (("broken.pdf", "PDF"), ("empty.txt", "empty")):
                failed = region.get_by_role("listitem").filter(has_text=name)
                await expect(failed).to_contain_text(re.compile(f"Failed: .*{reason}"), timeout=READ_MS)
            await expect(ask.announcer).to_contain_text(re.compile("is ready|failed"))
        finally:
            gate.open()

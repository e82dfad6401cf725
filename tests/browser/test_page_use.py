"""The page for everybody: keyboard, input methods, screen readers, languages, themes, small screens."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Talk
from tests.browser.scripted import source

pytestmark = pytest.mark.anyio

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SOURCES = [source(1, "Leave policy", "Ten days."), source(2, "Handbook", "Five days carry over.")]


# --- keyboard and input methods ---------------------------------------------------------------------------------------


async def test_shift_enter_breaks_the_line_and_enter_sends(talk: Talk) -> None:
    await talk.page.question.press_sequentially("one")
    await talk.page.question.press("Shift+Enter")
    await talk.page.question.press_sequentially("two")
    await talk.page.question.press("Enter")
    assert (await talk.connection.receive("query"))["query"] == "one\ntwo"
    await expect(talk.page.question).to_have_value("")


async def test_enter_that_ends_a_composition_does_not_send(talk: Talk) -> None:
    """Through Chromium's own input method interface, as a Chinese keyboard uses it."""
    session = await talk.page.page.context.new_cdp_session(talk.page.page)
    await talk.page.question.focus()
    await session.send("Input.imeSetComposition", {"text": "nianjia", "selectionStart": 7, "selectionEnd": 7})
    # The key goes to the input method: the page hears of it, the text box does not.
    await session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    await session.send("Input.insertText", {"text": "年假"})
    await expect(talk.page.question).to_have_value("年假")
    await expect(talk.page.turns).to_have_count(0)
    assert talk.connection.messages.empty()
    await talk.page.question.press("Enter")
    assert (await talk.connection.receive("query"))["query"] == "年假"


async def test_the_key_code_of_an_input_method_does_not_send(talk: Talk) -> None:
    """Safari ends the composition before the key press, and marks the press by its code alone."""
    await talk.page.question.fill("年假")
    press = "new KeyboardEvent('keydown', { key: 'Enter', keyCode: 229, bubbles: true, cancelable: true })"
    await talk.page.question.evaluate(f"node => node.dispatchEvent({press})")
    await expect(talk.page.turns).to_have_count(0)
    await expect(talk.page.question).to_have_value("年假")


async def test_an_empty_question_is_not_sent(talk: Talk) -> None:
    await expect(talk.page.send).to_be_disabled()
    await talk.page.question.fill("  \n ")
    await talk.page.question.press("Enter")
    await expect(talk.page.turns).to_have_count(0)


async def test_everything_can_be_done_by_keyboard(talk: Talk) -> None:
    page = talk.page.page
    keyboard = page.keyboard
    skip = page.get_by_role("link", name="Skip to the question box")
    for _ in range(10):
        await keyboard.press("Shift+Tab")
        if await skip.evaluate("node => node === document.activeElement"):
            break
    await expect(skip).to_be_focused()
    await keyboard.press("Enter")
    await expect(talk.page.question).to_be_focused()
    await keyboard.type("How much leave?")
    await keyboard.press("Enter")
    await talk.connection.receive("query")
    await expect(talk.page.question).to_be_focused()
    await keyboard.press("Escape")
    cancel = await talk.connection.receive("cancel")
    end = {"type": "done", "finish_reason": "cancelled", "cited": [], "seq": 1, "request_id": cancel["request_id"]}
    start = {"type": "accepted", "seq": 0, "request_id": cancel["request_id"], "conversation_id": "c"}
    await talk.connection.send(start, end)
    await talk.page.turn(0).until("done")
    turn = await talk.answer("Ten days [1].", 1, sources=SOURCES)
    await turn.citation(1).focus()
    await keyboard.press("Enter")
    await expect(talk.page.panel.get_by_role("heading", name="Leave policy")).to_be_focused()
    await keyboard.press("Tab")
    await expect(talk.page.panel.get_by_role("link", name="Open the original")).to_be_focused()
    await keyboard.press("Escape")
    await expect(turn.citation(1)).to_be_focused()
    await keyboard.press("Tab")
    await expect(turn.source(1)).to_be_focused()


async def test_the_focused_element_is_visibly_marked(talk: Talk) -> None:
    await talk.page.question.focus()
    await talk.page.page.keyboard.press("Shift+Tab")
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert await talk.page.page.evaluate(style) == "solid"


async def test_leafing_through_the_sources_stops_at_the_ends(talk: Talk) -> None:
    turn = await talk.answer("[1] [2]", 1, 2, sources=SOURCES)
    await turn.source(1).click()
    panel = talk.page.panel
    await expect(panel.get_by_role("button", name="Previous source")).to_be_disabled()
    await panel.get_by_role("button", name="Next source").click()
    await expect(panel).to_contain_text("2 of 2")
    await expect(panel.get_by_role("heading", name="Handbook")).to_be_visible()
    await expect(panel.get_by_role("button", name="Next source")).to_be_disabled()


# --- names and roles --------------------------------------------------------------------------------------------------


async def test_the_first_screen_has_landmarks_and_names(talk: Talk) -> None:
    await expect(talk.page.page.locator("body")).to_match_aria_snapshot(
        """
        - link "Skip to the question box"
        - banner:
          - text: Baton Online
          - button "切换到中文"
          - 'button "Theme: automatic"'
        - main:
          - region "What would you like to know?":
            - heading "What would you like to know?" [level=1]
            - heading "Try one of these" [level=2]
            - list
          - region "Conversation"
        - contentinfo:
          - textbox "Your question"
          - button "Send" [disabled]
        - status
        """
    )


async def test_an_answer_has_structure_and_names(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1].", 1, sources=SOURCES, question="How many?")
    await expect(turn.element).to_match_aria_snapshot(
        """
        - article "How many?":
          - heading "How many?" [level=2]
          - group
          - paragraph:
            - text: Ten days
            - 'button "Source 1: Leave policy"'
          - region "Sources":
            - heading "Sources" [level=3]
            - list:
              - listitem:
                - button "1 Leave policy Ten days."
            - group
          - button "Copy answer"
        """
    )


async def test_every_control_has_a_name(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1].\n\n```\ncode\n```", 1, sources=SOURCES)
    await turn.citation(1).click()
    controls = talk.page.page.locator("button:visible, a:visible, input:visible, textarea:visible, summary:visible")
    for index in range(await controls.count()):
        await expect(controls.nth(index)).to_have_accessible_name(re.compile(r"\S"))


async def test_a_growing_answer_is_announced_only_when_it_is_complete(talk: Talk) -> None:
    page = talk.page.page
    await page.evaluate(
        """() => {
          window.announced = [];
          const node = document.getElementById("announcer");
          new MutationObserver(() => announced.push(node.textContent)).observe(node, { childList: true });
        }"""
    )
    turn, log = await talk.ask()
    log.accepted()
    log.sources(*SOURCES)
    await talk.connection.send(*log[:])
    await expect(talk.page.announcer).to_have_text("2 passages found.")
    sent = len(log.frames)
    log.chunks("Ten days [1].")
    log.done(1)
    await talk.connection.send(*log[sent:])
    await turn.until("done")
    assert await page.evaluate("announced") == ["2 passages found.", "Answer complete, 1 source cited."]
    live = await turn.element.evaluate("node => node.closest('[aria-live]') || node.querySelector('[aria-live]')")
    assert live is None


async def test_texts_carry_their_language(talk: Talk) -> None:
    turn = await talk.answer("每年十天 [1]。", 1, sources=[source(1, "休假制度", "年假十天")], question="年假多少天")
    await expect(turn.question).to_have_attribute("lang", "zh-CN")
    await expect(turn.answer).to_have_attribute("lang", "zh-CN")
    await expect(talk.page.page.locator("html")).to_have_attribute("lang", "en")
    await turn.citation(1).click()
    await expect(talk.page.panel.locator("blockquote")).to_have_attribute("lang", "zh-CN")


# --- contrast ---------------------------------------------------------------------------------------------------------

# WCAG's contrast ratio for every piece of text that shows. A canvas resolves colours of any notation.
CONTRAST = """() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba("white");
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const node = walker.currentNode.parentElement;
    if (!text || node.closest(".visually-hidden, :disabled, .skip, script, noscript")) continue;
    if (!node.checkVisibility({ visibilityProperty: true })) continue;
    const [a, b] = [luminance(rgba(getComputedStyle(node).color)), luminance(background(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([text.slice(0, 40), ratio.toFixed(2)]);
  }
  return poor;
}"""


@pytest.mark.parametrize("context", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
async def test_all_text_has_enough_contrast(talk: Talk) -> None:
    assert await talk.page.page.evaluate(CONTRAST) == []
    turn, log = await talk.ask()
    log.accepted()
    log.status("retrieving", "Found 2", count=2, elapsed_ms=3)
    log.sources(*SOURCES)
    log.tool_call("clock", {"zone": "UTC"})
    log.tool_result("no clock", ok=False)
    log.chunks("Ten [1] `code` [link](https://example.invalid)\n\n> quote\n\n```sh\nls\n```")
    log.error("model_failed", "It broke.", retryable=True)
    await talk.connection.send(*log[:])
    await turn.until("failed")
    await turn.citation(1).click()
    await expect(talk.page.panel).to_be_visible()
    assert await talk.page.page.evaluate(CONTRAST) == []


# --- languages and themes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [{"locale": "zh-CN"}], indirect=True)
async def test_a_chinese_browser_gets_a_chinese_page(talk: Talk) -> None:
    await expect(talk.page.page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(talk.page.page.get_by_role("heading", name="想了解什么")).to_be_visible()
    await expect(talk.page.examples.first).to_contain_text("年假")


async def test_the_language_can_be_switched_in_mid_conversation_and_is_remembered(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1].", 1, sources=SOURCES)
    await turn.citation(1).click()
    await talk.page.language.click()
    await expect(talk.page.page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(turn.copy).to_have_text("复制回答")
    await expect(turn.timings).to_contain_text("首字")
    await expect(talk.page.panel).to_contain_text("打开原文")
    await expect(turn.citation(1)).to_have_accessible_name(re.compile("来源 1"))
    await expect(talk.page.question).to_have_attribute("placeholder", re.compile("继续追问"))
    await talk.page.page.reload()
    await expect(talk.page.page.locator("html")).to_have_attribute("lang", "zh-CN")
    await talk.page.language.click()
    await expect(talk.page.page.locator("html")).to_have_attribute("lang", "en")


async def test_every_word_exists_in_both_languages(talk: Talk) -> None:
    texts = (
        "() => document.body.innerText + [...document.querySelectorAll('[aria-label]')].map((node) => node.ariaLabel)"
    )
    await talk.page.language.click()
    chinese = await talk.page.page.evaluate(texts)
    assert "undefined" not in chinese
    left = [word for word in ("Your question", "Send", "Theme", "Conversation", "Ready", "Online") if word in chinese]
    assert left == []


BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.parametrize("context", [{"color_scheme": "dark"}], indirect=True)
async def test_the_page_is_dark_where_the_system_is(talk: Talk) -> None:
    assert await talk.page.page.evaluate(BACKGROUND) == "rgb(22, 22, 22)"


async def test_a_chosen_theme_outlives_a_reload(talk: Talk) -> None:
    page = talk.page.page
    assert await page.evaluate(BACKGROUND) == "rgb(250, 249, 246)"
    await expect(talk.page.theme).to_have_accessible_name("Theme: automatic")
    await talk.page.theme.click()
    await talk.page.theme.click()
    await expect(talk.page.theme).to_have_accessible_name("Theme: dark")
    assert await page.evaluate(BACKGROUND) == "rgb(22, 22, 22)"
    await page.reload()
    assert await page.evaluate(BACKGROUND) == "rgb(22, 22, 22)"
    await talk.page.theme.click()
    assert await page.evaluate(BACKGROUND) == "rgb(250, 249, 246)"


@pytest.mark.parametrize("context", [{"reduced_motion": "reduce"}], indirect=True)
async def test_nothing_moves_for_who_wants_no_motion(talk: Talk) -> None:
    turn, log = await talk.ask()
    await talk.connection.send(log.accepted(), log.status("generating", "Writing"), log.chunk("Ten"))
    await expect(turn.answer).to_have_text("Ten")
    assert await talk.page.page.evaluate("document.getAnimations().length") == 0


# --- phones -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [PHONE], indirect=True)
async def test_on_a_phone_nothing_scrolls_sideways(talk: Talk) -> None:
    assert not await talk.page.overflows_sideways()
    sources = [source(n, f"Document-{n}-" + "x" * 90, "y" * 400) for n in range(1, 21)]
    turn, log = await talk.ask("https://example.invalid/" + "q" * 300)
    log.accepted()
    log.sources(*sources)
    log.tool_call("a_tool_with_a_long_name", {"argument": "z" * 150})
    log.tool_result("r" * 110)
    log.chunks("Word " + "w" * 300 + " [1] `" + "c" * 200 + "`\n\n```\n" + "k" * 300 + "\n```\n\n1. " + "i" * 200, 300)
    await talk.connection.send(*log[:])
    await expect(turn.answer).to_contain_text("Word")
    assert not await talk.page.overflows_sideways()
    await talk.connection.send(log.done(1))
    await turn.until("done")
    assert not await talk.page.overflows_sideways()


@pytest.mark.parametrize("context", [PHONE], indirect=True)
async def test_on_a_phone_a_source_comes_as_a_sheet_that_a_tap_beside_it_closes(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1].", 1, sources=SOURCES)
    await turn.citation(1).tap()
    await expect(talk.page.panel).to_be_visible()
    await talk.page.panel.evaluate("node => Promise.all(node.getAnimations().map((animation) => animation.finished))")
    box = await talk.page.panel.bounding_box()
    assert box is not None
    assert box["width"] == 390
    assert box["y"] + box["height"] == pytest.approx(844, abs=1)
    assert not await talk.page.overflows_sideways()
    await talk.page.page.touchscreen.tap(195, 20)
    await expect(talk.page.panel).to_be_hidden()


async def test_an_open_source_survives_a_turned_screen(talk: Talk) -> None:
    turn = await talk.answer("Ten days [1].", 1, sources=SOURCES)
    await turn.citation(1).click()
    await talk.page.page.set_viewport_size({"width": 390, "height": 844})
    await expect(talk.page.page.locator("#source-panel:modal")).to_be_visible()
    await talk.page.page.keyboard.press("Escape")
    await expect(talk.page.panel).to_be_hidden()
    await expect(turn.citation(1)).to_be_focused()

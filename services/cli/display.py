"""How `baton ask` shows an answer: live in a terminal, as plain text in a pipe, or as the frames themselves."""

from __future__ import annotations

import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import Any, Protocol, TextIO
from urllib.parse import urljoin

from .answer import Answer

CITATION = re.compile(r"\[\d{1,3}\]")
OPEN_CITATION = re.compile(r"\[\d{0,3}$")
"""The end of a chunk that may be the first half of a citation."""

WORDS = {
    "en": {
        "sources": "Sources",
        "others": "Also found",
        "page": "p. {}",
        "reset": "(the text above was lost; it starts again)",
        "cancelled": "Stopped.",
        "stopping": "Stopping …",
        "unstopped": "The gateway could not be told: the answer goes on without us, until it ends by itself.",
        "again": "The connection was lost; reconnecting …",
        "busy": "{} Trying again in {} s …",
        "kept": "(the steps of this answer are no longer stored; this is the final answer that was kept)",
        "calls": "Calling {} {}",
        "result": "{} answered in {} ms",
        "failed": "{} failed",
        "length": "The answer was cut off: the model's limit was reached.",
        "content_filter": "The model's content filter ended the answer.",
        "cached": "From the cache.",
        "go_on": "Conversation {0}: go on with --conversation {0}",
    },
    "zh": {
        "sources": "来源",
        "others": "另外找到",
        "page": "第 {} 页",
        "reset": "（以上文字已失效，重新开始）",
        "cancelled": "已停止。",
        "stopping": "正在停止……",
        "unstopped": "无法通知网关：回答将继续，直到自行结束。",
        "again": "连接中断，正在重连……",
        "busy": "{}{} 秒后重试……",
        "kept": "（这次回答的过程已不再保存，以下是留存的最终答案）",
        "calls": "调用 {} {}",
        "result": "{} 已返回，用时 {} 毫秒",
        "failed": "{} 失败",
        "length": "回答被截断：已达到模型的长度上限。",
        "content_filter": "回答被模型的内容过滤器终止。",
        "cached": "来自缓存。",
        "go_on": "对话 {0}：可用 --conversation {0} 继续",
    },
}


class Display(Protocol):
    """`frame` gets every frame, as it was received in `raw`; `new` says whether `answer` has taken it, and then `frame`
    is without what was known before. `note` is about the connection. `end` comes once, after the last frame."""

    def frame(self, raw: str, frame: dict[str, Any], answer: Answer, new: bool) -> None: ...

    def note(self, what: str, *values: str) -> None: ...

    def end(self, answer: Answer) -> None: ...


class JsonLines:
    """One frame a line, as received."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def frame(self, raw: str, frame: dict[str, Any], answer: Answer, new: bool) -> None:
        line = json.dumps(json.loads(raw), ensure_ascii=False) if "\n" in raw else raw
        print(line, file=self._out, flush=True)

    def note(self, what: str, *values: str) -> None:
        print(printable(WORDS["en"][what].format(*values)), file=sys.stderr)

    def end(self, answer: Answer) -> None:
        pass


class Plain:
    """Steps to standard error as they happen; the finished answer and its sources to standard output."""

    def __init__(self, out: TextIO, err: TextIO, language: str, origin: str, *, go_on: bool = True) -> None:
        self._out = out
        self._err = err
        self._go_on = go_on
        self._words = WORDS[language]
        self._origin = origin

    def frame(self, raw: str, frame: dict[str, Any], answer: Answer, new: bool) -> None:
        if new and is_kept(frame):
            self.note("kept")
        elif new and (step := describe_step(frame, self._words)):
            print(step, file=self._err, flush=True)

    def note(self, what: str, *values: str) -> None:
        print(printable(self._words[what].format(*values)), file=self._err, flush=True)

    def end(self, answer: Answer) -> None:
        if answer.text:
            print(printable(answer.text), file=self._out)
        for heading, lines in source_lists(answer, self._words, self._origin):
            print(f"\n{heading}", *lines, sep="\n", file=self._out)
        message, is_error = closing_words(answer, self._words)
        if message:
            print(message, file=self._err if is_error else self._out)
        self._out.flush()
        for note in last_words(answer, self._words, go_on=self._go_on):
            print(note, file=self._err)


class Live:
    """For a terminal: steps with their times, the answer as it is written, citations in colour."""

    def __init__(
        self, language: str, origin: str, clock: Callable[[], float] = time.monotonic, *, go_on: bool = True
    ) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._words = WORDS[language]
        self._origin = origin
        self._go_on = go_on
        self._clock = clock
        self._started = clock()
        self._waiting = self._console.status("…", spinner_style="cyan")
        self._waiting.start()
        self._held = ""  # the end of the text so far, if a citation may begin there
        self._text = ""  # all of the answer that was written
        self._in_text = False
        self._paused = False

    def frame(self, raw: str, frame: dict[str, Any], answer: Answer, new: bool) -> None:
        if not new:
            return
        if frame["type"] == "answer_chunk":
            self._catch_up(answer)
        elif frame["type"] == "answer_reset":
            self._step(self._words["reset"])
            self._text = ""
        elif is_kept(frame):
            self._show_kept(answer)
        elif step := describe_step(frame, self._words):
            self._step(step)

    def note(self, what: str, *values: str) -> None:
        text = printable(self._words[what].format(*values))
        if what == "again" and self._in_text:
            self._pause(text)
        else:
            self._step(text)

    def end(self, answer: Answer) -> None:
        self._waiting.stop()
        self._end_text()
        for heading, lines in source_lists(answer, self._words, self._origin):
            self._print(f"\n{heading}", "bold")
            for line in lines:
                self._print(line, "" if heading == self._words["sources"] else "dim")
        message, is_error = closing_words(answer, self._words)
        if message:
            self._print(f"\n{message}", "bold red" if is_error else "yellow")
        if timings := describe_timings(answer.end or {}):
            self._print(f"\n{timings}", "dim")
        for note in last_words(answer, self._words, go_on=self._go_on):
            self._print(note, "dim")

    def _step(self, text: str) -> None:
        self._end_text()
        self._print(f"{self._clock() - self._started:6.2f} s  {text}", "dim")
        self._waiting.update(text)
        self._waiting.start()

    def _catch_up(self, answer: Answer) -> None:
        """Write what the answer has and the screen has not: of a chunk that was seen in part, only the rest."""
        self._unpause()
        new, self._text = answer.text[len(self._text) :], answer.text
        self._write(new)

    def _show_kept(self, answer: Answer) -> None:
        """The final answer in place of its log: go on in the text where it is the same, else show it whole."""
        if self._text and answer.text.startswith(self._text):
            self._catch_up(answer)
            return
        self._step(self._words["kept"])
        self._text = ""
        self._catch_up(answer)

    def _pause(self, text: str) -> None:
        """Say something below an unfinished line of the answer, which can be gone on with."""
        if not self._paused:
            self._console.print()
            self._paused = True
        self._waiting.update(text)
        self._waiting.start()

    def _unpause(self) -> None:
        """Back to where the text ended, so that it goes on in the same sentence."""
        if not self._paused:
            return
        self._paused = False
        self._waiting.stop()
        column = column_after(printable(self._text).removesuffix(self._held), self._console.width)
        if column:
            self._console.file.write(f"\x1b[A\x1b[{column}C")

    def _write(self, content: str) -> None:
        from rich.text import Text

        if not self._in_text:
            self._waiting.stop()
            self._console.print()
            self._in_text = True
        text, self._held = split_open_citation(self._held + printable(content))
        styled = Text(text)
        styled.highlight_regex(CITATION, "cyan")
        self._console.print(styled, end="", soft_wrap=True)

    def _end_text(self) -> None:
        self._unpause()
        if self._in_text:
            self._console.print(self._held, markup=False)
            self._held, self._in_text = "", False

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Without control characters: what documents and models say must not steer the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def column_after(text: str, width: int) -> int:
    """In which column of a terminal of `width` columns the cursor stands after `text` began in the first one; 0 also
    where a line is just full, because what follows begins the next one."""
    from rich.cells import cell_len

    column = 0
    for char in text.rpartition("\n")[2]:
        cells = cell_len(char)
        column = cells if column + cells > width else column + cells
    return column % width


def is_kept(frame: dict[str, Any]) -> bool:
    """Whether this is the final answer in place of a log that is gone."""
    return frame["type"] == "resumed" and not frame["recovered"] and frame.get("answer") is not None


def split_open_citation(text: str) -> tuple[str, str]:
    """The text up to where a citation may have begun but not ended, and the rest."""
    match = OPEN_CITATION.search(text)
    return (text[: match.start()], match.group()) if match else (text, "")


def describe_step(frame: dict[str, Any], words: dict[str, str]) -> str:
    """One line about a step; empty for frames that are no step."""
    match frame["type"]:
        case "status":
            text = frame["content"]
        case "tool_call":
            arguments = json.dumps(frame["arguments"], ensure_ascii=False) if frame["arguments"] else ""
            text = words["calls"].format(frame["name"], arguments).strip()
        case "tool_result" if frame["ok"]:
            text = words["result"].format(frame["name"], frame["elapsed_ms"])
        case "tool_result":
            text = f"{words['failed'].format(frame['name'])}: {frame['content']}"
        case _:
            text = ""
    return " ".join(printable(text).split())


def source_lists(answer: Answer, words: dict[str, str], origin: str) -> list[tuple[str, list[str]]]:
    """Headings and lines: the cited sources, then the others. Without any citation all are sources."""
    cited = [source for source in answer.sources if source["n"] in answer.cited]
    others = [source for source in answer.sources if source["n"] not in answer.cited]
    lists = [(words["sources"], cited), (words["others"], others)] if cited else [(words["sources"], others)]
    return [(heading, [_source_line(each, words, origin) for each in some]) for heading, some in lists if some]


def _source_line(source: dict[str, Any], words: dict[str, str], origin: str) -> str:
    page = f", {words['page'].format(source['page'])}" if source.get("page") else ""
    return " ".join(printable(f"[{source['n']}] {source['title']}{page}  {urljoin(origin, source['url'])}").split("\n"))


def closing_words(answer: Answer, words: dict[str, str]) -> tuple[str, bool]:
    """What to say after the answer, and whether it is an error."""
    end = answer.end
    if end is None:
        return "", False
    if end["type"] == "error":
        retry = f" (retry after {end['retry_after_ms'] / 1000:g} s)" if end.get("retry_after_ms") else ""
        return printable(f"{end['code']}: {end['message']}{retry}"), True
    return words.get(end.get("finish_reason", ""), ""), False


def last_words(answer: Answer, words: dict[str, str], *, go_on: bool) -> list[str]:
    """Where the answer came from, if not from the model, and how to go on."""
    cached = [words["cached"]] if (answer.end or {}).get("cache") == "hit" else []
    return (
        [*cached, printable(words["go_on"].format(answer.conversation_id))]
        if go_on and answer.conversation_id
        else cached
    )


def describe_timings(end: dict[str, Any]) -> str:
    """`TTFT 0.31 s · retrieval 42 ms · 118 tokens, 61.0 tokens/s`; empty where nothing is known."""
    timings, usage = end.get("timings") or {}, end.get("usage") or {}
    parts = []
    for name, key in (("TTFB", "ttfb_ms"), ("TTFT", "ttft_ms"), ("retrieval", "retrieval_ms")):
        if timings.get(key):
            parts.append(f"{name} {timings[key]} ms")
    if timings.get("tool_calls"):
        parts.append(f"tool calls {timings['tool_calls']}")
    if usage.get("completion_tokens"):
        parts.append(f"{usage['completion_tokens']} tokens")
    if timings.get("tokens_per_second"):
        parts.append(f"{timings['tokens_per_second']:.1f} tokens/s")
    return " · ".join(parts)

"""Asks every question of a list twice, like a user, and says whether the same frames came back.

    python -m evaluation.replay [--url ws://127.0.0.1:8000/ws] [--questions FILE] [--json FILE]

The list has a JSON object in each line: `question`, and what else a query may have (`language`, `top_k`, `seed`, …);
`id` is for the report. Ids, timestamps and measured durations are left out of the comparison, everything else counts.

Exit code 0: every answer was the same twice. 1: one differed or failed, or, with --expect-hits, did not come from the
cache. 2: nothing could be asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from websockets.exceptions import InvalidHandshake, WebSocketException

from services.cli.connecting import open_socket, reason_of
from services.cli.options import DEFAULT_URL, problem_with_urls, socket_url

from .frames import Difference, Frame, comparable, first_difference, joined

QUESTIONS = Path(__file__).with_name("questions.jsonl")
ANSWER_S = 180.0
MAX_QUESTIONS = 100_000
PAUSE_S = 1.0
"""Between the runs: what has been worked out is kept in the background."""


class CannotAsk(Exception):
    """There is no list of questions, or nobody to ask; the text says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One answer. `failed` is what went wrong, otherwise empty."""

    frames: Sequence[Frame]
    elapsed_ms: int
    failed: str = ""
    last: Frame = field(default_factory=dict)
    """What came last, also where it is about the connection: an `error` says there whether to try again."""

    @property
    def done(self) -> Mapping[str, Any]:
        return self.frames[-1] if self.frames and self.frames[-1]["type"] == "done" else {}


@dataclass(frozen=True, slots=True)
class Result:
    """Both runs of one question."""

    id: str
    question: str
    first: Run
    second: Run

    @property
    def failed(self) -> str:
        return self.first.failed or self.second.failed

    @property
    def difference(self) -> Difference | None:
        return first_difference(self.first.frames, self.second.frames)

    @property
    def outcome(self) -> str:
        if self.failed:
            return "failed"
        return "different" if self.difference else "equal"

    @property
    def hit(self) -> bool:
        return self.second.done.get("cache") == "hit"


def load_questions(path: Path) -> list[dict[str, Any]]:
    """The list. Raises CannotAsk where it cannot be read."""
    questions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotAsk(f"{path}: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise CannotAsk(f"{path}, line {number}: {error}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str):
            raise CannotAsk(f"{path}, line {number}: expected an object with `question`")
        questions.append({"id": str(number), **entry})
    if not 0 < len(questions) <= MAX_QUESTIONS:
        raise CannotAsk(f"{path}: {len(questions)} questions; from 1 to {MAX_QUESTIONS} can be asked")
    return questions


async def replay(
    url: str, questions: Sequence[Mapping[str, Any]], *, token: str = "", at_once: int = 4, pause_s: float = PAUSE_S
) -> list[Result]:
    """Ask all questions, and then all of them again.

    Raises:
        CannotAsk: nobody answers at `url`.
    """
    await reach(url, token)
    first = await _ask_all(url, questions, token, at_once)
    await asyncio.sleep(pause_s)
    second = await _ask_all(url, questions, token, at_once)
    return [
        Result(str(entry["id"]), str(entry["question"]), one, other)
        for entry, one, other in zip(questions, first, second, strict=True)
    ]


async def reach(url: str, token: str) -> None:
    """Raises CannotAsk where nobody answers."""
    try:
        async with open_socket(url, token):
            pass
    except (OSError, TimeoutError, InvalidHandshake, ValueError) as error:
        raise CannotAsk(f"nobody answers at {url}: {reason_of(error)}") from None


async def _ask_all(url: str, questions: Sequence[Mapping[str, Any]], token: str, at_once: int) -> list[Run]:
    places = asyncio.Semaphore(at_once)

    async def one(entry: Mapping[str, Any]) -> Run:
        async with places:
            return await ask(url, entry, token)

    return await asyncio.gather(*map(one, questions))


async def ask(url: str, entry: Mapping[str, Any], token: str = "") -> Run:
    """One question, on a connection of its own, to the end of its answer."""
    fields = {name: value for name, value in entry.items() if name not in ("id", "question")}
    frames: list[Frame] = []
    frame: Frame = {}
    started = time.monotonic()
    failed = "the connection was closed before the answer ended"
    try:
        async with asyncio.timeout(ANSWER_S), open_socket(url, token) as socket:
            await socket.send(json.dumps({"type": "query", "query": entry["question"], **fields}))
            async for data in socket:
                frame = json.loads(data)
                kind = frame["type"]
                if "seq" in frame:
                    frames.append(frame)
                if kind in ("done", "error"):
                    failed = f"{frame['code']}: {frame['message']}" if kind == "error" else ""
                    break
    except (KeyError, TypeError, ValueError) as error:
        frame, failed = {}, f"the server sent what is no frame ({type(error).__name__})"
    except (OSError, TimeoutError, WebSocketException) as error:
        failed = reason_of(error) if not isinstance(error, TimeoutError) else f"no answer within {ANSWER_S:g} s"
    return Run(frames, round((time.monotonic() - started) * 1000), failed, frame)


def report(results: Sequence[Result], url: str) -> dict[str, Any]:
    """All there is to say, for programs."""
    outcomes = Counter(result.outcome for result in results)
    return {
        "url": url,
        "questions": len(results),
        **{outcome: outcomes[outcome] for outcome in ("equal", "different", "failed")},
        "hits": sum(result.hit for result in results),
        "frames": sum(len(result.second.frames) for result in results),
        "bytes": sum(len(data) for result in results for data in comparable(result.second.frames)),
        "joined": sum(joined(run.frames) for result in results for run in (result.first, result.second)),
        "median_ms": [_median([run.elapsed_ms for run in runs]) for runs in _runs(results)],
        "results": [
            {
                "id": result.id,
                "question": result.question,
                "outcome": result.outcome,
                "failed": result.failed or None,
                "difference": asdict(result.difference) if result.difference and not result.failed else None,
                "cache": [result.first.done.get("cache"), result.second.done.get("cache")],
                "fingerprint": [result.first.done.get("fingerprint"), result.second.done.get("fingerprint")],
                "elapsed_ms": [result.first.elapsed_ms, result.second.elapsed_ms],
            }
            for result in results
        ],
    }


def report_text(told: Mapping[str, Any]) -> str:
    """The report for people: the sum, and each question that was not the same twice."""
    lines = [
        f"{told['questions']} questions asked twice at {told['url']}",
        f"  {told['equal']} equal, {told['different']} different, {told['failed']} failed; "
        f"{told['hits']} of the second answers came from the cache",
        f"  compared: {told['frames']} frames, {told['bytes']:,} bytes, without "
        "ids, timestamps, measured durations and `cache`",
        f"  median time of an answer: {told['median_ms'][0]} ms, then {told['median_ms'][1]} ms",
    ]
    if told["joined"]:
        lines.append(f"  in {told['joined']} answers the server had joined pieces: there the pieces were not compared")
    for one in told["results"]:
        if one["outcome"] == "failed":
            lines.append(f"  failed     {one['id']} {one['question']}\n             {one['failed']}")
        elif one["outcome"] == "different":
            found = Difference(**one["difference"])
            lines.append(f"  different  {one['id']} {one['question']}\n             {found}")
            if one["fingerprint"][0] != one["fingerprint"][1]:
                lines += [f"             {fingerprint}" for fingerprint in one["fingerprint"]]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation.replay", description="Ask every question twice.")
    parser.add_argument("--url", default=DEFAULT_URL, help="WebSocket or page of a gateway [%(default)s]")
    parser.add_argument("--token", default="", help="token for a gateway that wants one")
    parser.add_argument("--questions", type=Path, default=QUESTIONS, metavar="FILE", help="the list [%(default)s]")
    parser.add_argument("--at-once", type=int, default=4, metavar="N", help="questions at a time [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    parser.add_argument("--expect-hits", action="store_true", help="every second answer must come from the cache")
    arguments = parser.parse_args(argv)
    url = socket_url(arguments.url)
    try:
        if problem := problem_with_urls([url]):
            raise CannotAsk(problem)
        questions = load_questions(arguments.questions)
        results = asyncio.run(replay(url, questions, token=arguments.token, at_once=max(1, arguments.at_once)))
    except CannotAsk as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    told = report(results, url)
    if arguments.json:
        arguments.json.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    print(report_text(told))
    good = told["equal"] == len(results) and (not arguments.expect_hits or told["hits"] == len(results))
    return 0 if good else 1


def _runs(results: Sequence[Result]) -> tuple[list[Run], list[Run]]:
    return [result.first for result in results], [result.second for result in results]


def _median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    sys.exit(main())

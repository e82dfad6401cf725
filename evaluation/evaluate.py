"""One evaluation from its options to its record: which system is asked, what its documents are called, what came."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.options import problem_with_urls, socket_url
from services.common.config import ALL_SETTINGS, JudgeSettings, RetrieverSettings
from services.common.settings import SettingsError, load

from .asking import ask_all
from .dataset import Dataset, read_datasets
from .measures import Answered, measure
from .passages import read_passages
from .reaching import TRIES, Reaching
from .record import public, record, without_secrets
from .replay import CannotAsk
from .running import Running, ingest, names_at, names_of, parse_settings, started

if TYPE_CHECKING:
    from services.retriever.embedding import Embedding

DEFAULT_TOP_K = 10


@dataclass(frozen=True, slots=True)
class Options:
    """What an evaluation depends on, as it is kept in its record. `url` empty: a system is started for it, with
    `settings` over those of the environment. With a `variant` each question is asked, at most `tries` times, until that
    one of the gateway's variants (`none`: those of no variant) has answered it."""

    datasets: Sequence[str]
    url: str = ""
    corpus: str = ""
    top_k: int = DEFAULT_TOP_K
    concurrency: int = 4
    limit: int | None = None
    seed: int = 1
    judge: bool = False
    variant: str = ""
    tries: int | None = None
    settings: Mapping[str, str] | None = None
    name: str = ""

    def as_map(self) -> dict[str, Any]:
        """Without the token, and without what may be a secret."""
        told = {field: getattr(self, field) for field in self.__slots__}
        return {**told, "url": without_secrets(self.url), "settings": public(self.settings or {})}


def evaluate(
    options: Options,
    *,
    token: str = "",
    say: Callable[[str], None] = print,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Run it, and give its record.

    Args:
        keep: gets the record as soon as there are answers, also where judging them is interrupted or fails.

    Raises:
        BadDataset, CannotAsk, SettingsError
    """
    dataset = read_datasets([Path(path) for path in options.datasets]).some(options.limit, options.seed)
    judging = _judge_settings() if options.judge else None
    if judging:
        asyncio.run(_open_once(options))
    with _system(options, token, say) as (running, names):
        _check_names(dataset, names)
        say(f"Asking {len(dataset.entries)} questions of {dataset.name} …")
        began = time.monotonic()
        reaching = Reaching(options.variant, options.tries or TRIES) if options.variant else None
        answers = asyncio.run(_answers(running.url, dataset, names, options, token, reaching))
        seconds = time.monotonic() - began
        if reaching and not answers:
            raise CannotAsk(
                f"no question was answered by variant {options.variant} in {reaching.asked} tries "
                f"({next(iter(reaching.missed.values()))}); see that the gateway's BATON_VARIANTS gives it a share and "
                "that its workers are there (`workers` in /readyz)"
            )
        needed = [source for one in answers for source in one.sources if judging or one.entry.get("passages")]
        seen = asyncio.run(read_passages(running.url, needed, token, options.concurrency))
    entries = {entry.id: entry for entry in dataset.entries}
    for one in answers:
        one.language = one.language or ("zh" if any("\u3400" <= char <= "\u9fff" for char in one.question) else "en")
    measure(answers, entries, options.top_k)
    told: dict[str, Any] = {}
    try:
        if judging:
            asyncio.run(_judge(answers, judging, options, say, told))
    except BaseException as error:
        told["stopped"] = str(error) or type(error).__name__
        raise
    finally:
        run = record(
            dataset,
            answers,
            options=options.as_map(),
            settings=running.environ,
            name=options.name,
            judge=told,
            passages=seen,
            seconds=seconds,
            unreached=reaching.missed if reaching else None,
        )
        keep(run)
    return run


def with_target(options: Options, target: str) -> Options:
    """The options for one side of a comparison: an address to ask, or the settings of a system to start.

    Raises:
        CannotAsk: it is neither.
    """
    if target.startswith(("ws://", "wss://", "http://", "https://")):
        return replace(options, url=socket_url(target), name=without_secrets(target))
    settings = parse_settings(target)
    # The name stands on the report, and the target may hold keys.
    shown = ",".join(f"{name}={value}" for name, value in public(settings).items())
    return replace(
        options, url="", settings=settings, name=(shown if target.startswith("BATON_") else target) or "settings"
    )


def options_of(told: Mapping[str, Any]) -> Options:
    """The options of a record, to run it again.

    Raises:
        CannotAsk: the set is another one by now, or the record lacks something.
    """
    try:
        options = Options(**told["options"])
        digest = told["dataset"]["sha256"]
    except (KeyError, TypeError) as error:
        raise CannotAsk(f"the record does not say how it was made: {error}") from None
    if read_datasets([Path(path) for path in options.datasets]).digest != digest:
        raise CannotAsk(f"{', '.join(options.datasets)}: not the set of the record any more (SHA-256 {digest})")
    return options


@contextlib.contextmanager
def _system(options: Options, token: str, say: Callable[[str], None]) -> Iterator[tuple[Running, Mapping[str, str]]]:
    if options.url:
        if problem := problem_with_urls([options.url]):
            raise CannotAsk(problem)
        # Settings in this shell say nothing about a system elsewhere, except where --corpus is to be ingested into it.
        running = Running(options.url, dict(os.environ) if options.corpus else {})
        if options.corpus:
            ingest(running, Path(options.corpus))
            yield running, names_of(running)
        else:
            yield running, names_at(options.url, token)
        return
    if not options.corpus:
        raise CannotAsk("name the documents with --corpus FOLDER, or a running system with --url")
    say("Starting Baton …")
    with started(options.settings or {}) as running:
        say(f"Reading the documents in {options.corpus} …")
        ingest(running, Path(options.corpus))
        yield running, names_of(running)


async def _answers(
    url: str, dataset: Dataset, names: Mapping[str, str], options: Options, token: str, reaching: Reaching | None
) -> list[Answered]:
    done, total = 0, len(dataset.entries)

    def count() -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty() and (done % 10 == 0 or done == total):
            print(f"\r  {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return await ask_all(
        url,
        dataset.entries,
        names,
        token=token,
        at_once=options.concurrency,
        top_k=options.top_k,
        seed=options.seed,
        reaching=reaching,
        on_answer=count,
    )


def _check_names(dataset: Dataset, names: Mapping[str, str]) -> None:
    """Raises CannotAsk where the set speaks of documents that are not there: every figure would be wrong."""
    there = set(names.values())
    missing = sorted({name for entry in dataset.entries for name in entry.documents} - there)
    if missing:
        some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise CannotAsk(
            f"{len(missing)} documents that the set names are not there: {some}. Documents are named by their path "
            "below the folder that was ingested; --corpus FOLDER ingests it"
        )


def _judge_settings() -> JudgeSettings:
    (settings,) = load([JudgeSettings], ALL_SETTINGS)
    missing = [
        name
        for name, value in (("BATON_JUDGE_URL", settings.judge_url), ("BATON_JUDGE_MODEL", settings.judge_model))
        if not value
    ]
    if missing:
        raise SettingsError([f"--judge needs {' and '.join(missing)}"])
    assert isinstance(settings, JudgeSettings)
    return settings


def _embedder(options: Options) -> AbstractAsyncContextManager[Embedding | None]:
    from services.retriever.embedding import open_embedder

    (retriever,) = load([RetrieverSettings], ALL_SETTINGS, {**os.environ, **(options.settings or {})})
    return open_embedder(retriever)


async def _open_once(options: Options) -> None:
    """Raises SettingsError where the embedder cannot be had: now, and not when everything has been asked."""
    async with _embedder(options):
        pass


async def _judge(
    answers: Sequence[Answered],
    settings: JudgeSettings,
    options: Options,
    say: Callable[[str], None],
    told: dict[str, Any],
) -> None:
    """Judge the answers; `told` gets what the record says of it, also of a part."""
    from .judge import open_judge

    say("Judging the answers …")
    async with _embedder(options) as embedder, open_judge(settings, embedder, options.concurrency) as judge:
        try:
            await judge.judge(answers)
        finally:
            told.update(judge.told())

"""Retrieval of the whole system beside a plain BM25 library, on SQuAD- and CMRC-style files.

    python -m evaluation.against_bm25 FILE… [--sample 1000] [--seed 1] [--embedder none] [--json FILE] [--out FILE]

Of each file every distinct paragraph is a document, and `--sample` of its answerable questions are asked over the
WebSocket of a system started for it, ten passages each. The same questions go to bm25s in this process, over the same
paragraphs: words in lower case by `\\w+`, Chinese cut by jieba. Both rankings are measured alike.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.cli.options import bounded
from services.common.settings import SettingsError

from .comparing import compare, sentence
from .convert import BadFile, Converted, read_squad, write
from .dataset import MAX_QUESTIONS, BadDataset
from .evaluate import Options, evaluate
from .measures import retrieval
from .page import page
from .record import SCHEMA, as_json
from .replay import CannotAsk
from .running import interruptible
from .text import aligned, table

K = 10
_WORD = re.compile(r"\w+")


def bm25_runs(converted: Converted) -> dict[str, list[str]]:
    """The ten best documents for each question by bm25s with its usual parameters.

    Raises:
        CannotAsk: bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError:
        raise CannotAsk("bm25s is not installed: pip install bm25s (`make eval` does)") from None
    chinese = bool(converted.entries) and sum(entry.language == "zh" for entry in converted.entries) * 2 > len(
        converted.entries
    )
    names = list(converted.documents)
    index = bm25s.BM25()
    index.index([words(text, chinese) for text in converted.documents.values()], show_progress=False)
    asked = [words(entry.question, chinese) for entry in converted.entries]
    found, scores = index.retrieve(asked, k=min(K, len(names)), show_progress=False)
    return {
        entry.id: [names[at] for at, score in zip(row, of, strict=True) if score > 0]
        for entry, row, of in zip(converted.entries, found, scores, strict=True)
    }


def words(text: str, chinese: bool) -> list[str]:
    if not chinese:
        return _WORD.findall(text.lower())
    import jieba  # type: ignore[import-untyped]

    return [word for word in jieba.lcut(text.lower()) if _WORD.search(word)]


def beside(run: Mapping[str, Any], converted: Converted, seed: int) -> tuple[str, dict[str, Any]]:
    """The table of both, and what it says for programs."""
    relevant = {entry.id: entry.documents for entry in converted.entries}
    plain = retrieval(bm25_runs(converted), relevant, K)
    ours = {one["id"]: one["values"] for one in run["results"]}
    names = list(next(iter(plain.values())))
    a = {name: [plain[entry.id][name] for entry in converted.entries] for name in names}
    b = {name: [ours[entry.id][name] for entry in converted.entries] for name in names}
    differences = compare(a, b, seed=seed)
    rows = [["", "bm25s", "Baton"], *([one.measure, f"{one.a:.4f}", f"{one.b:.4f}"] for one in differences)]
    said = [f"  {sentence(one)}" for one in differences if one.measure in (f"recall@{K}", f"mrr@{K}")]
    return "\n".join([aligned(rows), *said]), {one.measure: {"bm25s": one.a, "baton": one.b} for one in differences}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation.against_bm25", description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="SQuAD- or CMRC-style JSON")
    parser.add_argument(
        "--sample", type=bounded(1, MAX_QUESTIONS), default=1000, metavar="N", help="questions of each [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sample [%(default)s]")
    parser.add_argument("--embedder", default="", help="BATON_EMBEDDER of the system (default: the environment's)")
    parser.add_argument(
        "--concurrency", type=bounded(1, 64), default=4, metavar="N", help="questions at a time [%(default)s]"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write the report there")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the records there")
    arguments = parser.parse_args(argv)
    try:
        with interruptible():
            runs, told = _all(arguments)
    except KeyboardInterrupt:
        return 130
    except (BadFile, BadDataset, CannotAsk, SettingsError, OSError) as error:
        print(f"against_bm25: {error}", file=sys.stderr)
        return 2
    for path, text in (
        (arguments.json, as_json({"schema": SCHEMA, "runs": runs, "beside": told})),
        (arguments.out, page(runs)),
    ):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"written: {path}")
    worse = [
        f"{name} {one}"
        for name, of in told.items()
        for one in of
        if one in (f"recall@{K}", f"mrr@{K}") and of[one]["baton"] < of[one]["bm25s"]
    ]
    print(f"below bm25s: {', '.join(worse)}" if worse else f"recall@{K} and mrr@{K} are at least those of bm25s")
    return 1 if worse or any(run["figures"]["all"]["failed"] for run in runs) else 0


def _all(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    runs, told = [], {}
    for file in dict.fromkeys(arguments.files):
        converted = read_squad(file).answerable().sample(arguments.sample, arguments.seed)
        print(f"\n{file.name}: {len(converted.entries)} questions, {len(converted.documents)} paragraphs", flush=True)
        with tempfile.TemporaryDirectory(prefix="baton-eval-set-") as folder:
            questions, documents = write(converted, Path(folder))
            options = Options(
                datasets=[str(questions)],
                corpus=str(documents),
                top_k=K,
                concurrency=arguments.concurrency,
                seed=arguments.seed,
                settings={"BATON_EMBEDDER": arguments.embedder} if arguments.embedder else None,
                name=f"{file.stem} ({arguments.embedder or os.environ.get('BATON_EMBEDDER') or 'default'})",
            )
            run = evaluate(options, say=lambda line: print(line, flush=True))
        runs.append(run)
        text, told[str(file)] = beside(run, converted, arguments.seed)
        print(f"\n{table(run)}\n\n{text}", flush=True)
    return runs, told


if __name__ == "__main__":
    sys.exit(main())

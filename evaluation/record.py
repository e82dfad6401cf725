"""The record of an evaluation, as JSON: what was asked of what, every answer, and the figures. Read back for comparing
and for repeating; `SCHEMA` counts up whenever a reader would have to know."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from services.common.config import ALL_SETTINGS
from services.common.settings import describe

from .by_variant import by_variant
from .dataset import Dataset
from .measures import Answered, figures, first_rank

SCHEMA = 1
ROOT = Path(__file__).resolve().parents[1]
_FIELDS = dict.fromkeys(("baton", "dataset", "figures", "fingerprints", "judge", "options", "settings"), dict)
_RESULT = ("id", "entry", "values", "answer", "sources", "fingerprint", "failed", "rank", "times", "language")
_LOGIN = re.compile(r"(^|://|,)[^\s/,?#]*@")
_QUERY = re.compile(r"(://[^\s,?#]*)[?#][^\s,]*")


class BadRecord(ValueError):
    """The file is no record of an evaluation; the text says why."""


def record(
    dataset: Dataset,
    answers: Sequence[Answered],
    *,
    options: Mapping[str, Any],
    settings: Mapping[str, str],
    name: str = "",
    judge: Mapping[str, Any] | None = None,
    passages: Mapping[str, int] | None = None,
    seconds: float = 0.0,
    unreached: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All of one run.

    Args:
        options: of the command line, all that is needed to run it again.
        settings: BATON_* of the system that was asked, as far as they are known here; secrets are left out.
        passages: how many that a judge or `passage_hit` looked at were seen whole, and how many as a snippet.
        unreached: why questions did not reach the variant they were to be asked of, by their id; not in `answers`.
    """
    parts = [dict(part.split("=", 1) for part in one.fingerprint.split() if "=" in part) for one in answers]
    languages = sorted({one.language for one in answers} - {""})
    return {
        "schema": SCHEMA,
        "name": name or dataset.name,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "baton": _version(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "dataset": {"name": dataset.name, "sha256": dataset.digest, "questions": len(answers)},
        "options": dict(options),
        "settings": public(settings),
        "corpus": sorted({part["corpus"] for part in parts if "corpus" in part}),
        "fingerprints": dict(Counter(one.fingerprint for one in answers if one.fingerprint)),
        "seconds": round(seconds, 3),
        "judge": dict(judge or {}),
        "passages": dict(passages or {}),
        "figures": {"all": figures(answers)}
        | {language: figures([one for one in answers if one.language == language]) for language in languages},
        "variants": by_variant(answers, seed=options.get("seed", 1)),
        "unreached": dict(unreached or {}),
        "results": [{**one.as_map(), "rank": first_rank(one, one.entry.get("documents", ()))} for one in answers],
    }


def read_record(path: Path) -> dict[str, Any]:
    """Raises BadRecord."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{path}: not JSON: {error}") from None
    runs = told.get("runs") if isinstance(told, dict) else None
    told = runs[0] if isinstance(runs, list) and len(runs) == 1 else told
    if not isinstance(told, dict) or not isinstance(told.get("results"), list):
        raise BadRecord(f"{path}: not the record of one evaluation, as `baton eval --json FILE` writes it")
    if told.get("schema") != SCHEMA:
        raise BadRecord(f"{path}: of schema {told.get('schema')}; this version reads {SCHEMA}")
    missing = [name for name, kind in _FIELDS.items() if not isinstance(told.get(name), kind)]
    missing += [name for name in ("variants", "unreached") if not isinstance(told.get(name, {}), dict)]
    missing += [name for one in told["results"] for name in _RESULT if not isinstance(one, dict) or name not in one]
    if missing:
        raise BadRecord(f"{path}: not the record of an evaluation, or one that was changed: it lacks `{missing[0]}`")
    return told


def public(settings: Mapping[str, str]) -> dict[str, str]:
    """The BATON_* settings without secrets. What is not known as a setting may be one, so it goes too."""
    known = {info.env: info for group in ALL_SETTINGS for info in describe(group)}
    return {
        name: without_secrets(value)
        for name, value in sorted(settings.items())
        if name in known and not known[name].secret
    }


def paired_values(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """The values of both records by measure, over the questions that both have, in the same order.

    Raises:
        BadRecord: they have asked different things.
    """
    second = {result["id"]: result for result in other["results"]}
    pairs = [(result, second[result["id"]]) for result in one["results"] if result["id"] in second]
    if not pairs:
        raise BadRecord("the two records have no question in common")
    if changed := [a["id"] for a, b in pairs if a["entry"] != b["entry"]]:
        raise BadRecord(f"question {changed[0]!r} is not the same in both records; compare runs of one set")
    names = dict.fromkeys(name for a, b in pairs for name in (*a["values"], *b["values"]))
    return (
        {name: [a["values"].get(name) for a, _ in pairs] for name in names},
        {name: [b["values"].get(name) for _, b in pairs] for name in names},
    )


def without_secrets(value: str) -> str:
    """A setting's value, its addresses without user, password, query and fragment: all of these carry keys."""
    return _QUERY.sub(r"\1", _LOGIN.sub(r"\1", value))


def _version() -> dict[str, str]:
    try:
        package = version("baton")
    except PackageNotFoundError:
        package = "from source"
    try:
        told = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
        commit = told.stdout.strip() if told.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {"version": package, "git": commit}


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=dataclasses.asdict)

"""The report as one HTML file: no scripts, nothing loaded from elsewhere, readable in the dark and on paper. All that
comes from documents, questions and answers is escaped. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from . import svg
from .comparing import Difference, sentence
from .measures import TIMES

WORST = 20
_WEIGHTS = {"right_abstention": 3, "answered": 3, "token_recall": 2, "citation_hit": 2, "faithfulness": 2}
"""How much it counts among the worst where one of these is 0."""
_SHOWN_CHARS = 600
_GROUPS = (
    ("Finding", ("recall@", "mrr@", "ndcg@", "hit@", "passage_hit@")),
    ("Citing", ("citation_", "invalid_citations")),
    ("Abstaining", ("right_abstention", "answered", "failed")),
    ("Answers beside the reference", ("exact_match", "token_", "rouge_l")),
    ("Judged by a model", ("faithfulness", "answer_relevance")),
)
_STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--line:#d0d7de;--box:#f6f8fa;
--c0:#0969da;--c1:#bf5700;--c2:#1a7f37;--c3:#8250df;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9198a1;--line:#3d444d;--box:#161b22;
--c0:#58a6ff;--c1:#f0883e;--c2:#3fb950;--c3:#bc8cff;--bad:#ff7b72}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1120px;padding:24px;font:15px/1.5 system-ui,"Noto Sans CJK SC",
sans-serif;color:var(--fg);background:var(--bg)}h1{font-size:1.6em;margin:0}h2{margin:1.8em 0 .5em;font-size:1.2em;
border-bottom:1px solid var(--line)}p{margin:.5em 0}.soft{color:var(--soft)}.bad{color:var(--bad)}
table{border-collapse:collapse;margin:.6em 0;max-width:100%}th,td{padding:3px 12px 3px 0;text-align:left;
vertical-align:top;border-bottom:1px solid var(--line);overflow-wrap:anywhere}td.n,th.n{text-align:right;
font-variant-numeric:tabular-nums;white-space:nowrap}th.group{padding-top:.9em;color:var(--soft);font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px}
figure{margin:0;padding:10px;background:var(--box);border:1px solid var(--line);border-radius:6px}
figcaption{font-weight:600;font-size:.92em}svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--soft)}
svg .grid{stroke:var(--line)}svg .axis{stroke:var(--soft)}polyline,svg [class^=l]{fill:none;stroke-width:2}
.s0{fill:var(--c0)}.s1{fill:var(--c1)}.s2{fill:var(--c2)}.s3{fill:var(--c3)}.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}
.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}details{border:1px solid var(--line);border-radius:6px;margin:.5em 0;
padding:.4em .8em;break-inside:avoid}summary{cursor:pointer}.answer{white-space:pre-wrap;background:var(--box);
padding:.6em;border-radius:4px}code{font-size:.9em;overflow-wrap:anywhere}
@media print{body{max-width:none;padding:0;font-size:11px}details{border:0}
details::details-content{content-visibility:visible;block-size:auto}figure{break-inside:avoid}}
"""


def page(runs: Sequence[Mapping[str, Any]], differences: Sequence[Difference] = (), notes: Sequence[str] = ()) -> str:
    """The report of one run, or of two with what tells them apart. `notes` are sentences to stand on top."""
    title = " / ".join(str(run["name"]) for run in runs)
    parts = [f"<h1>{escape(title)}</h1>", _lead(runs), *(f"<p>{escape(note)}</p>" for note in notes)]
    if differences:
        parts.append(_differences(runs, differences))
    for run in runs:
        parts += _run(run, several=len(runs) > 1)
    return document(f"Evaluation: {title}", "".join(parts))


def document(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML, in the report's style."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def figure_text(name: str, value: float) -> str:
    return f"{value:.0f}" if name in TIMES else f"{value:.3f}"


def measure_groups(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """The measures in the groups in which they are shown; times are shown as percentiles."""
    rest = [name for name in names if name not in TIMES]
    groups = []
    for title, beginnings in _GROUPS:
        of = [name for name in rest if name.startswith(beginnings)]
        rest = [name for name in rest if name not in of]
        groups.append((title, of))
    return [(title, of) for title, of in [*groups, ("Others", rest)] if of]


def shown_figures(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of all questions and of each language; one language is the same as all."""
    return figures if len(figures) != 2 else {"all": figures["all"]}


def _lead(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for run in runs:
        figures = run["figures"]["all"]
        lines.append(
            f"{run['made_at']}, Baton {run['baton']['version']} "
            f"({run['baton']['git'] or 'no commit known'}): {figures['questions']} questions, "
            f"{figures['failed']} failed, {figures['abstained']} without an answer, in {run['seconds']:.0f} s"
        )
    return "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)


def _run(run: Mapping[str, Any], *, several: bool) -> list[str]:
    head = f"{run['name']}: " if several else ""
    return [
        f"<h2>{escape(head)}Figures</h2>",
        _figures(shown_figures(run["figures"])),
        *_variants(head, run.get("variants") or {}),
        f"<h2>{escape(head)}Plots</h2>",
        _plots(run),
        f"<h2>{escape(head)}Where it was worst</h2>",
        _worst(run["results"]),
        f"<h2>{escape(head)}What was asked of what</h2>",
        _configuration(run),
    ]


def _figures(figures: Mapping[str, Any]) -> str:
    columns = list(figures)
    names = dict.fromkeys(name for column in columns for name in figures[column]["measures"])
    rows = [_row("th", "measure", columns)]
    for title, of in measure_groups(names):
        rows.append(f'<tr><th class="group" colspan="{len(columns) + 1}">{escape(title)}</th></tr>')
        rows += [
            _row("td", name, [_cell(figures[column]["measures"].get(name), name) for column in columns]) for name in of
        ]
    rows.append(f'<tr><th class="group" colspan="{len(columns) + 1}">Time, p50 / p95 / p99 in ms</th></tr>')
    for name in TIMES:
        shown = []
        for column in columns:
            told = figures[column]["percentiles"].get(name)
            shown.append(" / ".join(f"{told[p]:.0f}" for p in ("p50", "p95", "p99")) if told else "–")
        rows.append(_row("td", name, shown))
    return f"<table>{''.join(rows)}</table>"


def _variants(head: str, told: Mapping[str, Any]) -> list[str]:
    if not told:
        return []
    level = told["differences"][0]["level"] if told["differences"] else 0.95
    said = "".join(f"<li>{escape(one['says'])}</li>" for one in told["differences"])
    return [
        f"<h2>{escape(head)}By variant</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in told["says"]),
        _figures(told["figures"]),
        f'<p class="soft">Bootstrap of each variant by itself, and a permutation test; intervals of level {level:.2%}'
        f"</p><ul>{said}</ul>",
    ]


def _cell(told: Mapping[str, float] | None, name: str) -> str:
    return f"{figure_text(name, told['mean'])} ({told['questions']:.0f})" if told else "–"


def _row(kind: str, name: str, cells: Iterable[str]) -> str:
    shown = "".join(f'<{kind} class="n">{escape(cell)}</{kind}>' for cell in cells)
    return f"<tr><{kind}>{escape(name)}</{kind}>{shown}</tr>"


def _plots(run: Mapping[str, Any]) -> str:
    results = run["results"]
    languages = sorted({one["language"] for one in results if one["language"]}) or [""]
    ranks: dict[str, dict[str, float]] = {}
    judged = {
        language: [one for one in results if one["language"] == language and one["entry"].get("documents")]
        for language in languages
    }
    for place in [*map(str, range(1, 11)), "later", "none"]:
        ranks[place] = {
            language or "all": 100 * sum(_place(one["rank"]) == place for one in of) / len(of)
            for language, of in judged.items()
            if of
        }
    times = {
        name: [one["times"][name] for one in results if not one["failed"] and one["times"].get(name) is not None]
        for name in TIMES
    }
    plots = [
        ("Where the first right document stands, % of the questions", svg.bars(ranks, label="ranks", unit=" %")),
        ("Times: share of the questions that took at most so long", svg.cumulative(times, label="times")),
    ]
    shown = [f"<figure><figcaption>{escape(title)}</figcaption>{plot}</figure>" for title, plot in plots if plot]
    return f'<div class="plots">{"".join(shown)}</div>'


def _place(rank: int | None) -> str:
    return "none" if rank is None else str(rank) if rank <= 10 else "later"


def _worst(results: Sequence[Mapping[str, Any]]) -> str:
    bad = sorted((one for one in results if _badness(one) > 0), key=_badness, reverse=True)
    if not bad:
        return "<p>Every question found its document first and was answered as it should be.</p>"
    return f'<p class="soft">{len(bad)} questions are not all right; the {min(WORST, len(bad))} worst:</p>' + "".join(
        map(_question, bad[:WORST])
    )


def _badness(one: Mapping[str, Any]) -> float:
    if one["failed"]:
        return 10
    values = one["values"]
    missing = 0.0
    if one["entry"].get("documents"):
        missing += 4 if one["rank"] is None else 1 - 1 / one["rank"]
    for name, weight in _WEIGHTS.items():
        value = values.get(name)
        missing += weight * (1 - value) if value is not None else 0
    return missing + 3 * (values.get("invalid_citations") or 0)


def _question(one: Mapping[str, Any]) -> str:
    entry = one["entry"]
    wanted = ", ".join(entry.get("documents") or ()) or ("nothing: it cannot be answered" if _never(entry) else "–")
    told = [f"wanted: {wanted}"]
    if entry.get("documents"):
        told.append(f"first right document: {one['rank'] or 'not found'}")
    told += [f"{name} {value:.2f}" for name, value in one["values"].items() if value is not None and name not in TIMES]
    references = " | ".join(entry.get("answer") or ())
    sources = "".join(
        f"<tr><td>[{int(source['n'])}]</td><td>{escape(str(source['name']))}</td>"
        f"<td>{escape(_short(source.get('snippet', '')))}</td></tr>"
        for source in one["sources"][:5]
    )
    earlier = "".join(f'<p class="soft">before: {escape(text)}</p>' for text in entry.get("conversation") or ())
    return (
        f"<details><summary>{escape(one['id'])}: {escape(one['question'])}</summary>{earlier}"
        + (f'<p class="bad">{escape(one["failed"])}</p>' if one["failed"] else "")
        + f'<p class="soft">{escape("; ".join(told))}</p>'
        + (f"<p>Reference: {escape(references)}</p>" if references else "")
        + f'<div class="answer">{escape(_short(one["answer"], 2 * _SHOWN_CHARS)) or "(no answer)"}</div>'
        + f"<table>{sources}</table></details>"
    )


def _never(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("unanswerable"))


def _short(text: str, most: int = _SHOWN_CHARS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _configuration(run: Mapping[str, Any]) -> str:
    told: dict[str, Any] = {
        "dataset": f"{run['dataset']['name']}, SHA-256 {run['dataset']['sha256']}",
        "corpus": ", ".join(run["corpus"]) or "not told",
        **{f"option {name}": value for name, value in run["options"].items() if value not in (None, "", [])},
        **{f"setting {name}": value for name, value in run["settings"].items()},
    }
    if any(of := run.get("passages", {}).values()):
        told["passages seen whole"] = f"{run['passages']['whole']} of {sum(of)}, of the others 500 characters"
    if run["judge"]:
        told |= {f"judge {name}": value for name, value in run["judge"].items()}
    most = Counter(run["fingerprints"]).most_common(5)
    told |= {f"fingerprint of {count}": fingerprint for fingerprint, count in most}
    rows = "".join(f"<tr><td>{escape(k)}</td><td><code>{escape(str(v))}</code></td></tr>" for k, v in told.items())
    return f"<table>{rows}</table>"


def _differences(runs: Sequence[Mapping[str, Any]], differences: Sequence[Difference]) -> str:
    level = differences[0].level
    shares = [(one.measure, one.difference, one.low, one.high) for one in differences if one.measure not in TIMES]
    said = "".join(f"<li>{escape(sentence(one))}</li>" for one in differences)
    names = " against ".join(f"{letter} = {escape(str(run['name']))}" for letter, run in zip("AB", runs, strict=False))
    return (
        f"<h2>Differences</h2><p>{names}. Paired bootstrap over the questions; the intervals are of level "
        f"{level:.2%}, so that all {len(differences)} together name a difference that is none in at most 5 % of "
        f'comparisons.</p><div class="plots"><figure><figcaption>B minus A</figcaption>'
        f"{svg.intervals(shares, label='differences')}</figure></div><ul>{said}</ul>"
    )

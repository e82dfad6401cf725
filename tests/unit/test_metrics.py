"""What metrics are called, that all are documented, and which format they are told in."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import Histogram, MetricWrapperBase

from services.common import metrics, metrics_doc
from tests.servers.processes import ROOT

DECLARED = {name: one for name, one in vars(metrics).items() if isinstance(one, MetricWrapperBase)}


def test_the_page_in_the_docs_is_what_the_code_makes() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == metrics_doc.metrics_page(), "run `make docs`"


def test_every_metric_is_said_to_be_observed_by_one_kind_of_service() -> None:
    grouped = [metric for group in metrics.SERVED_BY.values() for metric in group]
    assert sorted(map(id, grouped)) == sorted(map(id, DECLARED.values()))


@pytest.mark.parametrize(
    ("histogram", "edge"),
    [
        (metrics.TTFB, metrics.TTFB_OBJECTIVE_S),
        (metrics.TTFT, metrics.TTFT_OBJECTIVE_S),
        (metrics.RETRIEVAL, metrics.RETRIEVAL_OBJECTIVE_S),
    ],
)
def test_an_objective_is_an_edge_of_its_buckets(histogram: Histogram, edge: float) -> None:
    assert edge in histogram._upper_bounds


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", True),
        ("application/openmetrics-text; version=1.0.0", True),
        ("text/plain;version=0.0.4", False),
        ("", False),
        ("*/*", False),
    ],
)
def test_openmetrics_is_told_to_those_who_accept_it(accept: str, openmetrics: bool) -> None:
    metrics.TTFB.observe(0.123, {"trace_id": "ab" * 16})
    content, content_type = metrics.exposition(accept)
    assert content_type.startswith("application/openmetrics-text" if openmetrics else "text/plain")
    assert (f'# {{trace_id="{"ab" * 16}"}} 0.123' in content.decode()) is openmetrics
    assert ("# EOF" in content.decode()) is openmetrics


def test_no_series_says_only_when_another_one_was_made() -> None:
    names = {sample.name for metric in REGISTRY.collect() for sample in metric.samples}
    assert not [name for name in names if name.startswith("baton_") and name.endswith("_created")]


def test_of_names_that_others_choose_only_some_are_told_apart() -> None:
    names = metrics.Names(most=2)
    assert [names.of(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]

"""Alerts speak of metrics that exist, and lead whoever is woken by one somewhere. (How they fire: tests/deploy.)"""

from __future__ import annotations

import runpy
from typing import Any

import pytest
import yaml

from tests.promql_names import unknown_in
from tests.servers.processes import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_an_expression_speaks_of_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    assert unknown_in(rule["expr"]) == set()


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("rate(baton_requests_total[5m])", set()),
        ("rate(baton_request_total[5m])", {"baton_request_total"}),
        ("baton_ttfb_seconds", {"baton_ttfb_seconds"}),
        ('baton_requests_total{code="x", outcome!="y"}', {"baton_requests_total{code}"}),
        ("sum by (le, step) (baton_retrieval_step_seconds_bucket)", set()),
        ("sum by (le, stage) (baton_retrieval_step_seconds_bucket)", {"stage"}),
    ],
)
def test_a_name_that_does_not_exist_is_found(expression: str, wrong: set[str]) -> None:
    assert unknown_in(expression) == wrong


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_urgent_it_is_and_has_a_runbook_and_a_test(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    page = ROOT / alert["annotations"]["runbook"]
    assert page.parent == RUNBOOKS
    assert page.is_file()
    listed = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert f"`{alert['alert']}`" in listed
    assert f"({page.name})" in listed
    assert f'alertname="{alert["alert"]}", alertstate="firing"' in (FOLDER / "alerts_test.yaml").read_text()


def test_every_metric_that_a_runbook_names_exists() -> None:
    for page in sorted(RUNBOOKS.glob("*.md")):
        # Between backticks there may be a name without its endings.
        for expression in page.read_text(encoding="utf-8").split("`")[1::2]:
            whole = {f"{name}{ending}" for name in unknown_in(expression) for ending in ("_bucket", "_total", "")}
            assert not unknown_in(expression) or any(not unknown_in(one) for one in whole), (page.name, expression)


def test_every_runbook_is_listed() -> None:
    listed = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in RUNBOOKS.glob("*.md") if page.name != "README.md" and page.name not in listed]


def test_the_operators_rule_is_what_the_code_makes_of_the_alerts() -> None:
    rule = (FOLDER / "rule.yaml").read_text(encoding="utf-8")
    made = runpy.run_path(str(FOLDER / "rule.py"))["rule"]()
    assert rule == made, "run `make docs`"
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(rule)["spec"] == groups

"""The dashboards that are checked in: what they ask for exists. (That it has data: tests/deploy.)"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.promql_names import EXPORTER, known, unknown_in
from tests.servers.processes import ROOT

FOLDER = ROOT / "deploy" / "grafana"
BOARDS: list[dict[str, Any]] = [
    json.loads(path.read_text(encoding="utf-8")) for path in sorted((FOLDER / "dashboards").glob("*.json"))
]


def test_there_are_three() -> None:
    assert [board["uid"] for board in BOARDS] == ["baton-question", "baton-system", "baton-variants"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_every_panel_says_what_it_means_and_asks_for_metrics_that_exist(board: dict[str, Any]) -> None:
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "namespace"} <= variables
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        for target in panel["targets"]:
            assert unknown_in(target["expr"]) == set(), panel["title"]
    titles = [panel["title"] for panel in panels]
    assert len(titles) == len(set(titles))


def test_every_metric_is_on_a_panel_but_one_that_says_what_another_says() -> None:
    shown = "\n".join(
        target["expr"] for board in BOARDS for panel in board["panels"] for target in panel.get("targets", [])
    )
    missing = {
        name for name in known() if name.removesuffix("_bucket") not in shown and not name.endswith(("_count", "_sum"))
    }
    assert missing - set(EXPORTER) == {"baton_tool_calls_total"}  # as the gateway saw `baton_tool_seconds`


def test_examples_lead_to_traces_by_the_name_that_metrics_give_them() -> None:
    sources = yaml.safe_load((FOLDER / "provisioning/datasources/baton.yaml").read_text(encoding="utf-8"))
    prometheus, traces = sources["datasources"]
    (link,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert link == {"name": "trace_id", "datasourceUid": traces["uid"]}

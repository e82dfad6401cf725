"""The numbers that decide whether a rollout loses anything fit together: drains, grace periods, budgets."""

from __future__ import annotations

import re

from services.common.config import ALL_SETTINGS, ProcessSettings
from services.common.process import CLOSING_S
from services.common.settings import load
from tests.deploy.manifests import Manifests, Resource, labels, pod, selects

SPARE_S = 5
NATS_WRITES_S = 15
"""What nats-server may take to close its streams after the last client has gone."""


def test_a_pod_is_not_killed_before_its_service_has_drained(overlay: Manifests) -> None:
    for service in overlay.services():
        spec = pod(overlay.one("Deployment", service))
        (settings,) = load((ProcessSettings,), ALL_SETTINGS, overlay.environment(service, {"NATS_PASSWORD": "x"}))
        needed = _sleeps(spec) + settings.drain_s + CLOSING_S
        assert spec["terminationGracePeriodSeconds"] >= needed + SPARE_S, service


def test_a_gateway_is_out_of_the_way_before_it_sends_its_clients_to_others(overlay: Manifests) -> None:
    for service in overlay.services():
        assert _sleeps(pod(overlay.one("Deployment", service))) == (5 if service == "gateway" else 0)


def test_a_new_pod_is_there_before_an_old_one_goes(overlay: Manifests) -> None:
    for service in overlay.services():
        spec = overlay.one("Deployment", service)["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_nats_server_is_not_killed_before_its_clients_have_gone(overlay: Manifests) -> None:
    conf = overlay.one("ConfigMap", "nats-config")["data"]["nats.conf"]
    spec = pod(overlay.one("StatefulSet", "nats"))
    lame_duck = int(re.search(r"lame_duck_duration: (\d+)s", conf)[1])  # type: ignore[index]
    (container,) = (one for one in spec["containers"] if one["name"] == "nats")
    pid_file = re.search(r"pid_file: (\S+)", conf)[1]  # type: ignore[index]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["nats-server", "--signal", f"ldm={pid_file}"]
    assert spec["terminationGracePeriodSeconds"] >= lame_duck + NATS_WRITES_S


def test_a_node_may_be_emptied_and_takes_one_of_a_kind_at_most(prod: Manifests) -> None:
    for workload in prod.workloads():
        budgets = [one for one in prod.all("PodDisruptionBudget") if selects(one["spec"]["selector"], labels(workload))]
        assert [one["spec"]["maxUnavailable"] for one in budgets] == [1], workload["metadata"]["name"]


def test_replicas_are_spread_over_nodes_and_zones(prod: Manifests) -> None:
    for workload in prod.workloads():
        spread = pod(workload)["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert all(selects(one["labelSelector"], labels(workload)) for one in spread)
    nats = pod(prod.one("StatefulSet", "nats"))["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in nats if one["whenUnsatisfiable"] == "DoNotSchedule"} == {
        "kubernetes.io/hostname"
    }


def _sleeps(spec: Resource) -> int:
    hooks = spec["containers"][0].get("lifecycle", {})
    return int(hooks["preStop"]["sleep"]["seconds"]) if hooks else 0

"""What one resource says of another, of NATS or of a metric is true: selectors, ports, consumers, names of metrics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import services.common.metrics  # noqa: F401  (declares them)
from services.common.config import ALL_SETTINGS, GatewaySettings, IngestSettings, WorkerSettings
from services.common.settings import load
from tests.deploy.manifests import Manifests, Resource, copied, labels, pod, pods_of, rendered, selects

SECRETS = {"NATS_PASSWORD": "x"}


def test_a_workload_takes_no_pods_of_another_one(overlay: Manifests) -> None:
    for workload in overlay.workloads():
        assert pods_of(overlay, workload["spec"]["selector"]) == [workload["metadata"]["name"]]


def test_services_lead_to_ports_of_pods(overlay: Manifests) -> None:
    for service in overlay.all("Service"):
        (selected,) = (one for one in overlay.workloads() if service["spec"]["selector"].items() <= labels(one).items())
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(_ports(selected))


def test_everything_is_denied_and_every_port_that_is_allowed_is_one(overlay: Manifests) -> None:
    policies = overlay.all("NetworkPolicy")
    denied = overlay.one("NetworkPolicy", "deny-all")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        spec = policy["spec"]
        if policy["metadata"]["name"] == "acme-solver":
            continue  # cert-manager's pod, not one of ours
        selected = [one for one in overlay.workloads() if selects(spec["podSelector"], labels(one))]
        assert selected, policy["metadata"]["name"]
        open_ports = {number for one in selected for number in _ports(one).values()}
        allowed = {port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]}
        # The exporter is only there with the component `monitoring`, its port is allowed with either.
        assert allowed <= open_ports | {7777}, policy["metadata"]["name"]


def test_whoever_connects_to_nats_may(overlay: Manifests) -> None:
    for service in overlay.services():
        assert _may(overlay, service, "nats", 4222), service
    assert _may(overlay, "nats", "nats", 6222)
    assert not _may(overlay, "gateway", "retriever", 9090)
    assert not _may(overlay, "tools", "nats", 8222)
    if overlay.name == "dev":
        assert _may(overlay, "retriever", "milvus", 19530)
        assert _may(overlay, "ingest", "milvus", 19530)
        assert not _may(overlay, "generator", "milvus", 19530)


def _may(overlay: Manifests, source: str, target: str, port: int) -> bool:
    """Whether the policies let one workload of the namespace connect to another one."""
    found = {one["metadata"]["name"]: labels(one) for one in overlay.workloads()}
    return _allows(overlay, found[source], found[target], port, "egress", "to") and _allows(
        overlay, found[target], found[source], port, "ingress", "from"
    )


def _allows(
    overlay: Manifests, own: dict[str, str], other: dict[str, str], port: int, direction: str, peers: str
) -> bool:
    for policy in overlay.all("NetworkPolicy"):
        if not selects(policy["spec"]["podSelector"], own):
            continue
        for rule in policy["spec"].get(direction, []):
            if "ports" in rule and port not in {one["port"] for one in rule["ports"]}:
                continue
            for peer in rule.get(peers, []):
                if "podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], other):
                    return True
    return False


def test_every_pod_is_scraped_once_at_a_port_that_it_has(prod: Manifests) -> None:
    (monitor,) = (one["spec"] for one in prod.all("PodMonitor"))
    scraped = {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]}
    for workload in prod.workloads():
        assert selects(monitor["selector"], labels(workload))
        assert len(scraped & set(_ports(workload))) == 1


def test_workers_scale_on_the_consumers_that_they_pull_from(prod: Manifests) -> None:
    for service in set(prod.services()) - {"gateway"}:
        (trigger,) = prod.one("ScaledObject", service)["spec"]["triggers"]
        asked = trigger["metadata"]
        assert (asked["stream"], asked["consumer"]) == prod.queue(service)
        assert asked["account"] == "$G"
        monitor = prod.one("Service", "nats-headless")
        (port,) = (one["port"] for one in monitor["spec"]["ports"] if one["name"] == "monitor")
        namespace = prod.all("Namespace")[0]["metadata"]["name"]
        assert asked["natsServerMonitoringEndpoint"] == f"nats-headless.{namespace}.svc.cluster.local:{port}"


def test_a_worker_more_comes_before_the_others_are_full(prod: Manifests) -> None:
    for service in set(prod.services()) - {"gateway", "ingest"}:
        (worker,) = load((WorkerSettings,), ALL_SETTINGS, prod.environment(service, SECRETS))
        assert _threshold(prod, service) <= worker.concurrency
    (ingest,) = load((IngestSettings,), ALL_SETTINGS, prod.environment("ingest", SECRETS))
    assert _threshold(prod, "ingest") > ingest.concurrency  # nobody waits for documents as for an answer


def test_gateways_scale_on_metrics_that_there_are(prod: Manifests) -> None:
    known = {sample.name for metric in REGISTRY.collect() for sample in metric.samples}
    triggers = prod.one("ScaledObject", "gateway")["spec"]["triggers"]
    namespace = prod.all("Namespace")[0]["metadata"]["name"]
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in triggers}
    names = set()
    for query in queries.values():
        found = re.fullmatch(r'sum\((\w+)\{namespace="(.+)"\}\)', query)
        assert found
        assert found[2] == namespace
        names.add(found[1])
    assert names == {"baton_connections", "baton_running_requests"}
    assert names <= known


def test_a_gateway_more_comes_before_the_others_are_full(prod: Manifests) -> None:
    (gateway,) = load((GatewaySettings,), ALL_SETTINGS, prod.environment("gateway", SECRETS))
    triggers = prod.one("ScaledObject", "gateway")["spec"]["triggers"]
    (connections,) = (int(one["metadata"]["threshold"]) for one in triggers if one["name"] == "connections")
    assert connections <= gateway.max_connections / 2


@pytest.mark.parametrize("component", ["autoscaling", "ingress", "monitoring", "network-policies"])
def test_a_component_of_prod_can_be_left_out_by_its_line(component: str, tmp_path: Path) -> None:
    file = copied(tmp_path, "prod")
    lines = file.read_text().splitlines(keepends=True)
    left = [line for line in lines if f"../../components/{component}" not in line]
    assert len(left) == len(lines) - 1
    file.write_text("".join(left))
    made = rendered(file.parent)
    replicas = {made.one("Deployment", service)["spec"].get("replicas") for service in made.services()}
    assert replicas == ({2} if component == "autoscaling" else {None})


def test_kubectl_apply_does_not_undo_what_keda_has_decided(prod: Manifests) -> None:
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in prod.all("ScaledObject")}
    assert scaled == set(prod.services())
    assert all("replicas" not in prod.one("Deployment", service)["spec"] for service in scaled)


def test_only_what_clients_need_is_open_to_the_outside(prod: Manifests) -> None:
    (rule,) = prod.one("Ingress", "baton")["spec"]["rules"]
    paths = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
    assert paths == {
        "/": "Exact",
        "/ws": "Exact",
        "/static": "Prefix",
        "/documents": "Prefix",
        "/conversations": "Prefix",
    }
    annotations = prod.one("Ingress", "baton")["metadata"]["annotations"]
    (gateway,) = load((GatewaySettings,), ALL_SETTINGS, prod.environment("gateway", SECRETS))
    limit = int(annotations["nginx.ingress.kubernetes.io/proxy-body-size"].removesuffix("m")) * 1024 * 1024
    assert limit > gateway.upload_max_bytes
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > gateway.idle_s


def _threshold(prod: Manifests, service: str) -> int:
    (trigger,) = prod.one("ScaledObject", service)["spec"]["triggers"]
    return int(trigger["metadata"]["lagThreshold"])


def _ports(workload: Resource) -> dict[str, int]:
    """Names and numbers of a workload's ports."""
    return {port["name"]: port["containerPort"] for one in pod(workload)["containers"] for port in one["ports"]}

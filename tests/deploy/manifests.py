"""The manifests as `kubectl kustomize` gives them, and what tests ask of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from baton_proto import subjects
from services.common.config import ALL_SETTINGS, ProcessSettings, ToolsSettings
from services.common.settings import load
from tests.servers.processes import ROOT

K8S = ROOT / "deploy" / "k8s"
TOOLS = (ROOT / os.environ.get("TEST_DEPLOY", ".make/deploy")).resolve()
SERVICES = ("gateway", "retriever", "ingest", "generator", "tools")
CUSTOM = ("ScaledObject", "PodMonitor", "PrometheusRule", "Gateway", "HTTPRoute")

Resource = dict[str, Any]


@dataclass(frozen=True)
class Manifests:
    name: str
    text: str
    resources: list[Resource]

    def all(self, kind: str) -> list[Resource]:
        return [one for one in self.resources if one["kind"] == kind]

    def one(self, kind: str, name: str) -> Resource:
        """The only one of that name; the hash that kustomize adds to the names of ConfigMaps does not count."""
        (found,) = (
            one
            for one in self.all(kind)
            if one["metadata"]["name"] == name
            or (kind == "ConfigMap" and one["metadata"]["name"].rpartition("-")[0] == name)
        )
        return found

    def workloads(self) -> list[Resource]:
        return [*self.all("Deployment"), *self.all("StatefulSet")]

    def services(self) -> list[str]:
        """Names of the Deployments that run a service of Baton; of a canary there are two."""
        return [
            one["metadata"]["name"]
            for one in self.all("Deployment")
            if "app.kubernetes.io/component" in one["metadata"]["labels"]
        ]

    def containers(self) -> Iterator[tuple[str, Resource]]:
        """Each container with the name of its workload."""
        for workload in self.workloads():
            for container in workload["spec"]["template"]["spec"]["containers"]:
                yield workload["metadata"]["name"], container

    def environment(self, workload: str, secrets: Mapping[str, str]) -> dict[str, str]:
        """What the main container of a workload finds in its environment; secrets that are not given are not there,
        which only an optional one may be."""
        (spec,) = (one for one in self.workloads() if one["metadata"]["name"] == workload)
        container = next(one for one in pod(spec)["containers"] if one["name"] in ("baton", workload))
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.one("ConfigMap", source["configMapRef"]["name"])["data"]
            else:
                assert source["secretRef"]["optional"]
        for variable in container.get("env", []):
            value = variable.get("value", "")
            given = variable.get("valueFrom", {})
            if reference := given.get("secretKeyRef"):
                if reference["key"] not in secrets:
                    assert reference["optional"], reference
                    continue
                value = secrets[reference["key"]]
            elif "fieldRef" in given:
                continue
            for name, known in found.items():
                value = value.replace(f"$({name})", known)
            found[variable["name"]] = value
        return found

    def queue(self, worker: str) -> tuple[str, str]:
        """Stream and consumer that a worker pulls from, by what it runs and its settings."""
        environment = self.environment(worker, {"NATS_PASSWORD": "x"})
        process, tools = load((ProcessSettings, ToolsSettings), ALL_SETTINGS, environment)
        (service,) = pod(self.one("Deployment", worker))["containers"][0]["args"]
        if service == "services.retriever.ingestion":
            return subjects.INGEST_STREAM, subjects.INGEST_CONSUMER
        stage = {
            "services.retriever": subjects.RETRIEVE,
            "services.generator": subjects.GENERATE,
            "services.tools": subjects.tools_stage(tools.tool_set),
        }[service]
        return subjects.WORK_STREAM, subjects.work_consumer(subjects.queue_name(stage, process.variant))


def pods_of(manifests: Manifests, selector: Resource) -> list[str]:
    """Names of the workloads whose pods a selector takes."""
    return [one["metadata"]["name"] for one in manifests.workloads() if selects(selector, labels(one))]


def pod(workload: Resource) -> Resource:
    spec: Resource = workload["spec"]["template"]["spec"]
    return spec


def labels(workload: Resource) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def selects(selector: Resource, found: Mapping[str, str]) -> bool:
    """Whether a Kubernetes label selector takes these labels; an empty one takes all."""
    for name, value in selector.get("matchLabels", {}).items():
        if found.get(name) != value:
            return False
    for wanted in selector.get("matchExpressions", []):
        assert wanted["operator"] == "In"
        if found.get(wanted["key"]) not in wanted["values"]:
            return False
    return True


@cache
def render(overlay: str) -> Manifests:
    """An overlay, as in `dev`, or one with a component more, as in `dev+canary`."""
    name, _, component = overlay.partition("+")
    with TemporaryDirectory() as folder:
        return rendered(copied(Path(folder), name, component).parent)


def copied(folder: Path, overlay: str, component: str = "") -> Path:
    """The kustomization of an overlay in a copy of all that it consists of, to be changed; with one component more, the
    first of the list."""
    deploy = shutil.copytree(K8S.parent, folder / "deploy")
    file = deploy / "k8s" / "overlays" / overlay / "kustomization.yaml"
    if component:
        before, found, after = file.read_text().partition("\ncomponents:\n")
        file.write_text(f"{before}{found}  - ../../components/{component}\n{after}")
    return file


def rendered(folder: Path) -> Manifests:
    ran = subprocess.run(
        [str(TOOLS / "bin" / "kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    assert "deprecated" not in ran.stderr, ran.stderr
    return Manifests(folder.name, ran.stdout, list(yaml.safe_load_all(ran.stdout)))

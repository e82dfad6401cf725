"""An `http:` entry of the YAML file becomes a tool; docs/tools.md describes the fields."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_plus

import httpx

from baton_proto.messages import ToolSpec
from services.common.config import ToolsSettings
from services.common.settings import SettingsError
from services.common.wording import shorten
from services.tools.conformance import what_is_wrong_with_spec
from services.tools.port import REQUEST_SHARE, Tool

from .connecting import connector, port_of
from .destination import host_url, read_hosts, read_rule, read_verify
from .exchange import listed
from .fields import Fields
from .request import Body, RequestTemplate, Secret, is_header_value
from .result import Selection
from .secrets import read_secret
from .template import Template, is_identity
from .tool import Declared, HttpTool

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_KEYS = (
    *("name", "description", "method", "url", "query", "headers", "body", "parameters", "hosts", "private", "verify"),
    *("result", "progress", "idempotent", "connect_s", "read_s", "max_bytes"),
)
_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.IGNORECASE | re.DOTALL)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OUR_HEADERS = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "connection", "accept-encoding"),
        *("te", "trailer", "upgrade", "expect"),
    )
)


@asynccontextmanager
async def open_entry(entry: Mapping[str, Any], place: str, settings: ToolsSettings) -> AsyncIterator[Tool]:
    """The tool of one entry. Raises SettingsError with all that is wrong with it."""
    problems: list[str] = []
    if unknown := sorted(map(str, set(entry) - {"http"})):
        problems.append(f"{place}: unknown {', '.join(unknown)}; known: http, groups, timeout_s")
    content = entry.get("http")
    if not isinstance(content, dict):
        raise SettingsError([*problems, f"{place}: `http` must be a mapping"])
    fields = Fields(content, f"{place}: http", _KEYS, problems)
    declaration = _Declaration(fields, Path(settings.tools).parent, settings.timeout_s)
    declared = declaration.read()
    rule, verify = declaration.rule, declaration.verify
    if problems or declared is None or verify is None:
        raise SettingsError(problems)
    async with connector(rule, connect_s=declaration.connect_s, read_s=declaration.read_s, verify=verify) as connecting:
        yield HttpTool(declared, connecting, settings.timeout_s)


class _Declaration:
    """One pass over an entry's fields. Everything that is wrong ends up in the fields' problems."""

    def __init__(self, fields: Fields, folder: Path, timeout_s: float) -> None:
        self._fields = fields
        self._folder = folder
        self._total_s = REQUEST_SHARE * timeout_s
        self._secrets: list[str] = []
        self._used: dict[str, str] = {}
        """Placeholders, and where each stands first."""
        self._all_used = True
        """Whether `_used` is all of them: it is not where a text could not be read."""
        self.connect_s = fields.number("connect_s", min(5.0, self._total_s), most=timeout_s)
        self.read_s = fields.number("read_s", self._total_s, most=timeout_s)
        self.rule = read_rule(fields)
        self.verify = read_verify(fields, folder)

    def read(self) -> Declared | None:
        fields = self._fields
        name = fields.text("name", needed=True)
        description = fields.text("description", needed=True)
        method = fields.text("method", "GET").upper()
        if method not in _METHODS:
            fields.note(f"expected one of {', '.join(_METHODS)}", "method")
        hosts = read_hosts(fields)
        origin, segments, query = self._url(hosts)
        query += [(key, self._template(value, f"query.{key}")) for key, value in fields.mapping("query").items()]
        headers = [(key, self._header(key, value)) for key, value in fields.mapping("headers").items()]
        body = self._body(method)
        parameters = self._parameters(segments)
        selection = self._selection()
        max_bytes = int(fields.number("max_bytes", 256 * 1024, most=8 * 1024 * 1024))
        progress = self._progress()
        idempotent = fields.flag("idempotent", method == "GET")
        spec = ToolSpec(name=name, description=description, parameters=parameters, idempotent=idempotent)
        if name and description and (wrong := what_is_wrong_with_spec(spec)) is not None:
            fields.note(wrong)
        if fields.problems or origin is None:
            return None
        request = RequestTemplate(method, origin, tuple(segments), tuple(query), tuple(headers), body)
        return Declared(
            spec=spec,
            request=request,
            hosts=hosts,
            total_s=self._total_s,
            max_bytes=max_bytes,
            selection=selection,
            progress=progress,
            defaults=_defaults(parameters),
            secrets=tuple(self._secrets),
        )

    # --- what it asks -------------------------------------------------------------------------------------------------

    def _url(self, hosts: frozenset[str]) -> tuple[httpx.URL | None, list[Template], list[tuple[str, Template]]]:
        """Origin, segments of the path and the query that stands in the URL."""
        text = self._fields.text("url", needed=True)
        match = _URL.fullmatch(text)
        if match is None:
            self._all_used = False
            if text:
                self._fields.note("expected http:// or https://, a host and a path", "url")
            return None, [], []
        scheme, authority, path, query, fragment = match.groups()
        origin = host_url(authority, scheme.lower())
        if origin is None:
            self._all_used = False
            self._fields.note(f"{shorten(authority, 80)!r} must be a host or host:port, without placeholders", "url")
        else:
            self._check_origin(origin, hosts)
        if fragment:
            self._fields.note("a part after # is never sent", "url")
        segments = [self._template(part, "url") for part in path.split("/")[1:]] or [Template(())]
        if any(_literal(segment) in (".", "..") for segment in segments):
            self._fields.note("the path must not have steps such as ..", "url")
        return origin, segments, [self._query_item(item) for item in (query or "").split("&") if item]

    def _check_origin(self, origin: httpx.URL, hosts: frozenset[str]) -> None:
        if hosts and not listed(hosts, origin):
            self._fields.note(f"{origin.host}:{port_of(origin)} is not among `hosts`", "url")
        try:
            ip_address(origin.host)
        except ValueError:
            return
        if not self.rule.allows(origin.host):
            self._fields.note(f"{origin.host} is not a public address; `private` must list it", "url")

    def _query_item(self, item: str) -> tuple[str, Template]:
        name, _, value = item.partition("=")
        if "{" in name:
            self._fields.note("names in the query cannot be placeholders", "url")
        template = self._template(value, "url")
        # What stands there is encoded already, and will be again.
        parts = tuple(unquote_plus(part) if isinstance(part, str) else part for part in template.parts)
        return unquote_plus(name), Template(parts)

    def _header(self, name: str, value: Any) -> Template | Secret:
        where = f"headers.{name}"
        if not _HEADER.fullmatch(name) or name.lower() in _OUR_HEADERS:
            self._fields.note("no such header can be set", where)
        if isinstance(value, dict):
            fields = Fields(value, f"{self._fields.place}.{where}", ("env", "file", "prefix"), self._fields.problems)
            secret = read_secret(fields, self._folder)
            self._secrets.append(secret.value)
            return secret
        template = self._template(value, where)
        if arguments := [one for one in template.names if not is_identity(one)]:
            self._fields.note(f"a header takes no arguments of the model: {', '.join(arguments)}", where)
        if any(isinstance(part, str) and not is_header_value(part.strip()) for part in template.parts):
            self._fields.note("a header has visible ASCII only", where)
        return template

    def _body(self, method: str) -> Body | None:
        fields, content = self._fields, self._fields.raw("body")
        if content is None:
            return None
        if not isinstance(content, dict) or len(content) != 1 or not set(content) <= {"json", "form"}:
            fields.note("expected one key, `json` or `form`", "body")
            return None
        if method == "GET":
            fields.note("a GET request has no body", "body")
        if "json" in content:
            return Body("json", self._json(content["json"], "body.json", 0))
        form = Fields(content, f"{fields.place}.body", ("form",), fields.problems).mapping("form")
        return Body("form", {key: self._template(value, f"body.form.{key}") for key, value in form.items()})

    def _json(self, content: Any, where: str, depth: int) -> Any:
        """JSON with a template for each text."""
        if depth > 16:
            self._fields.note("nested too deeply", where)
        elif isinstance(content, str):
            return self._template(content, where)
        elif isinstance(content, dict):
            if not all(isinstance(key, str) for key in content):
                self._fields.note("expected texts as keys", where)
            return {str(key): self._json(value, f"{where}.{key}", depth + 1) for key, value in content.items()}
        elif isinstance(content, list):
            return [self._json(one, f"{where}[{index}]", depth + 1) for index, one in enumerate(content)]
        elif content is not None and not isinstance(content, bool | int | float):
            self._fields.note(f"{type(content).__name__} is no JSON; put it in quotes", where)
        return content

    def _template(self, value: Any, where: str) -> Template:
        found = len(self._fields.problems)
        template = self._fields.template(value, where)
        self._all_used &= len(self._fields.problems) == found
        for name in template.names:
            self._used.setdefault(name, where)
        return template

    # --- what the model may say ---------------------------------------------------------------------------------------

    def _parameters(self, segments: Iterable[Template]) -> dict[str, Any]:
        """The schema; checked against the placeholders, so this comes after all templates."""
        fields = self._fields
        schema = {"type": "object", "additionalProperties": False, **fields.mapping("parameters")}
        properties = schema.get("properties", {})
        if not isinstance(properties, dict) or not all(isinstance(name, str) for name in properties):
            fields.note("expected a mapping with texts as keys", "parameters.properties")
            return {"type": "object", "properties": {}}
        schema["properties"] = properties
        for name in properties:
            self._check_parameter(name)
        for name, where in self._used.items():
            if is_identity(name):
                if name != "user.sub" and (name.startswith("user") or name == "claims"):
                    fields.note(f"{{{name}}} is not known: {{user.sub}} or {{claims.…}} are the user's", where)
            elif name not in properties:
                fields.note(f"{{{name}}} is no parameter; known: {', '.join(properties) or 'none'}", where)
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        for name in dict.fromkeys(name for segment in segments for name in segment.names):
            if not is_identity(name) and name in properties and name not in required and not _default(properties[name]):
                fields.note(f"stands in the path and so must be `required`: {name}", "parameters")
        return schema

    def _check_parameter(self, name: str) -> None:
        own = {one.rpartition(".")[2] for one in self._used if is_identity(one)}
        if is_identity(name) or name in own:
            self._fields.note("is the user's, from the token; call the parameter otherwise", f"parameters.{name}")
        elif name not in self._used and self._all_used:
            self._fields.note("is used nowhere in the request", f"parameters.{name}")

    # --- what comes back ----------------------------------------------------------------------------------------------

    def _selection(self) -> Selection | None:
        text = self._fields.text("result")
        try:
            return Selection.parse(text) if text else None
        except ValueError as error:
            self._fields.note(str(error), "result")
            return None

    def _progress(self) -> dict[str, str]:
        lines = self._fields.mapping("progress")
        if set(lines) - {"zh", "en"} or not all(isinstance(line, str) and line.strip() for line in lines.values()):
            self._fields.note("expected a text for `zh` and one for `en`", "progress")
            return {}
        return lines


def _literal(template: Template) -> str | None:
    return unquote("".join(map(str, template.parts))) if not template.names else None


def _default(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("default") is not None


def _defaults(parameters: Mapping[str, Any]) -> dict[str, Any]:
    properties: Mapping[str, Any] = parameters["properties"]
    return {name: schema["default"] for name, schema in properties.items() if _default(schema)}

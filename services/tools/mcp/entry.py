"""One MCP server as the YAML file describes it, checked with everything that is wrong and not only the first."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mcp.client.stdio import get_default_environment

from services.common.settings import SettingsError
from services.common.wording import shorten

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,32}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SOURCE = re.compile(r"user\.sub|claims(\.[A-Za-z0-9_-]+)+")
_OF_THE_PROTOCOL = ("mcp-", "accept", "content-", "host", "connection", "transfer-encoding", "last-event-id")
_KEYS = (
    *("name", "command", "env", "cwd", "url", "headers", "tools", "prefix"),
    *("idempotent", "trust_annotations", "inject", "meta", "handshake"),
)
_ONLY_STDIO = ("env", "cwd")
_ONLY_HTTP = ("headers",)


@dataclass(frozen=True, slots=True)
class McpEntry:
    """`command` for a server over stdio, otherwise `url`. `env` is the program's whole environment. `tools` are the
    server's own names, None for all. `inject` (arguments) and `meta` (keys of the request's `_meta`) say where a value
    comes from: `user.sub`, or `claims.` and a path in the token's claims. With `handshake` the server is not asked
    whether it speaks a protocol that needs none."""

    name: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tools: frozenset[str] | None = None
    prefix: str = ""
    idempotent: frozenset[str] = frozenset()
    trust_annotations: bool = False
    handshake: bool = False
    inject: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)


def read_entry(entry: Mapping[str, Any], place: str, folder: Path) -> McpEntry:
    """What stands under `mcp`; the paths of secrets are relative to `folder`. Raises SettingsError."""
    problems = []
    if unknown := sorted(map(str, set(entry) - {"mcp"})):
        problems.append(f"{place}: unknown {', '.join(unknown)}; known: mcp, groups, timeout_s")
    content = entry.get("mcp")
    if not isinstance(content, dict):
        raise SettingsError([*problems, f"{place}: `mcp` must be a mapping"])
    read = _Reader(content, f"{place}: mcp", folder, problems).read()
    if problems:
        raise SettingsError(problems)
    return read


class _Reader:
    """One pass over an entry. What is wrong is added to `problems`, and reading goes on."""

    def __init__(self, entry: Mapping[str, Any], place: str, folder: Path, problems: list[str]) -> None:
        self._entry = entry
        self._place = place
        self._folder = folder
        self._problems = problems

    def read(self) -> McpEntry:
        self._check_keys()
        return McpEntry(
            name=self._text("name", _NAME, "letters, digits, _ and -, at most 64"),
            command=self._command(),
            env=get_default_environment() | self._values("env", self._is_env_name),
            cwd=self._cwd(),
            url=self._url(),
            headers=self._values("headers", self._is_header),
            tools=self._names("tools"),
            prefix=self._text("prefix", _PREFIX, "letters, digits, _ and -, at most 32", default=""),
            idempotent=self._names("idempotent") or frozenset(),
            trust_annotations=self._flag("trust_annotations"),
            handshake=self._flag("handshake"),
            inject=self._sources("inject"),
            meta=self._sources("meta"),
        )

    def _wrong(self, text: str) -> None:
        self._problems.append(f"{self._place}: {text}")

    def _check_keys(self) -> None:
        if unknown := sorted(map(str, set(self._entry).difference(_KEYS))):
            self._wrong(f"unknown {', '.join(unknown)}; known: {', '.join(_KEYS)}")
        stdio, http = "command" in self._entry, "url" in self._entry
        if stdio == http:
            self._wrong("expected `command` (a program to start) or `url` (an address), and not both")
            return
        for key in _ONLY_HTTP if stdio else _ONLY_STDIO:
            if key in self._entry:
                self._wrong(f"`{key}` goes with `{'url' if stdio else 'command'}`")

    def _text(self, key: str, pattern: re.Pattern[str], expected: str, default: str | None = None) -> str:
        value = self._entry.get(key, default)
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        self._wrong(f"`{key}` must be {expected}")
        return ""

    def _flag(self, key: str) -> bool:
        value = self._entry.get(key, False)
        if not isinstance(value, bool):
            self._wrong(f"`{key}` must be true or false")
        return value is True

    def _names(self, key: str) -> frozenset[str] | None:
        value = self._entry.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            self._wrong(f"`{key}` must be a list of the server's tool names")
            return None
        return frozenset(value)

    def _command(self) -> tuple[str, ...]:
        if "command" not in self._entry:
            return ()
        value = self._entry["command"]
        if not isinstance(value, list) or not value or not all(_is_argument(part) for part in value):
            self._wrong("`command` must be a list of texts, such as [uvx, mcp-server-time]")
            return ()
        program: str = value[0]
        folder = self._entry.get("cwd")
        # As the system finds it: names in PATH, others in the folder in which the program is started.
        path = program if "/" not in program or not isinstance(folder, str) else os.path.join(folder, program)
        if shutil.which(path) is None:
            self._wrong(f"`command`: there is no program {shorten(program, 200)}")
        return tuple(value)

    def _cwd(self) -> str | None:
        value = self._entry.get("cwd")
        if value is None:
            return None
        if not isinstance(value, str) or not Path(value).is_dir():
            self._wrong("`cwd` must be a folder that exists")
            return None
        return value

    def _url(self) -> str:
        value = self._entry.get("url", "")
        if "url" in self._entry and not _is_http(value):
            self._wrong("`url` must be an address such as https://tickets.example/mcp, without a password in it")
            return ""
        return str(value)

    def _values(self, key: str, fits: Callable[[str], bool]) -> dict[str, str]:
        given = self._entry.get(key) or {}
        if not isinstance(given, dict):
            self._wrong(f"`{key}` must be a mapping")
            return {}
        values = {}
        for name, value in given.items():
            if not isinstance(name, str) or not fits(name):
                self._wrong(f"`{key}`: {shorten(str(name), 80)} is no name that may be set")
            elif (text := self._value(f"{key}.{name}", value)) is not None:
                values[name] = text
        return values

    def _value(self, key: str, value: object) -> str | None:
        """A text, or a secret by where it is. What a secret holds is never in a message."""
        match value:
            case str():
                text: str | None = value
            case {"env": str(name), **rest} if not rest.keys() - {"prefix"}:
                text = self._secret(key, self._variable(key, name), rest.get("prefix", ""))
            case {"file": str(path), **rest} if not rest.keys() - {"prefix"}:
                text = self._secret(key, self._file(key, path), rest.get("prefix", ""))
            case _:
                self._wrong(f"`{key}` must be a text, {{env: NAME}} or {{file: path}}, perhaps with a `prefix`")
                return None
        if text is None:
            return None
        if any(char in text for char in "\0\r\n"):
            self._wrong(f"`{key}` must be one line")
            return None
        if key.startswith("headers.") and not text.isascii():
            self._wrong(f"`{key}` must be ASCII, as headers are")
            return None
        return text

    def _secret(self, key: str, found: str | None, prefix: object) -> str | None:
        if found == "":
            self._wrong(f"`{key}`: what it refers to is not there or is empty")
        if not isinstance(prefix, str):
            self._wrong(f"`{key}`: `prefix` must be a text")
            return None
        return f"{prefix}{found}" if found else None

    def _variable(self, key: str, name: str) -> str | None:
        if name.startswith("BATON_"):
            self._wrong(f"`{key}`: Baton's own settings are not for tools")
            return None
        return os.environ.get(name, "")

    def _file(self, key: str, path: str) -> str | None:
        try:
            return (self._folder / path).read_text(encoding="utf-8").strip()
        except OSError as error:
            self._wrong(f"`{key}`: {shorten(path, 200)}: {error.strerror or error}")
        except UnicodeDecodeError:
            self._wrong(f"`{key}`: {shorten(path, 200)}: is not UTF-8")
        return None

    def _sources(self, key: str) -> dict[str, str]:
        given = self._entry.get(key) or {}
        if not isinstance(given, dict):
            self._wrong(f"`{key}` must be a mapping, such as {{employee_id: claims.employee_id}}")
            return {}
        for name, source in given.items():
            if not isinstance(name, str) or not name or (key == "meta" and _is_reserved(name)):
                self._wrong(f"`{key}`: {shorten(str(name), 80)} is no name that may be set")
            elif not isinstance(source, str) or not _SOURCE.fullmatch(source):
                self._wrong(f"`{key}.{shorten(name, 80)}` must be user.sub or claims.<name>")
        return dict(given)

    @staticmethod
    def _is_env_name(name: str) -> bool:
        return _ENV_NAME.fullmatch(name) is not None

    @staticmethod
    def _is_header(name: str) -> bool:
        return _HEADER.fullmatch(name) is not None and not name.lower().startswith(_OF_THE_PROTOCOL)


def _is_argument(part: object) -> bool:
    return isinstance(part, str) and bool(part) and "\0" not in part


def _is_http(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and parts.username is None and not parts.fragment


def _is_reserved(name: str) -> bool:
    """Keys of `_meta` that the protocol itself uses."""
    prefix = name.partition("/")[0] if "/" in name else ""
    labels = prefix.split(".")
    return name in ("progressToken", "traceparent", "tracestate", "baggage") or any(
        label in ("modelcontextprotocol", "mcp") for label in labels[:2]
    )

"""MCP servers as the YAML file describes them: what is understood, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.settings import SettingsError
from services.tools.mcp.entry import McpEntry, read_entry


def read(text: str, folder: Path = Path()) -> McpEntry:
    return read_entry(yaml.safe_load(text), "tools[0]", folder)


def problems(content: Any) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        read_entry(content, "tools[0]", Path())
    return raised.value.problems


def test_a_server_over_stdio_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", "s3cret")
    (tmp_path / "key").write_text("from a file\n")
    entry = read(
        """
        mcp:
          name: tickets
          command: [sh, -c, "exec server"]
          env: {LEVEL: debug, TOKEN: {env: TICKETS_TOKEN}, KEY: {file: key}}
          cwd: /
          tools: [search, open.ticket]
          prefix: tickets_
          idempotent: [search]
          inject: {employee_id: claims.hr.employee_id, asked_by: user.sub}
          meta: {example.com/tenant: claims.tenant}
        """,
        tmp_path,
    )
    assert entry.command == ("sh", "-c", "exec server")
    assert {"LEVEL": "debug", "TOKEN": "s3cret", "KEY": "from a file"}.items() <= entry.env.items()
    assert entry.tools == {"search", "open.ticket"}
    assert (entry.prefix, entry.idempotent, entry.trust_annotations) == ("tickets_", {"search"}, False)
    assert entry.inject == {"employee_id": "claims.hr.employee_id", "asked_by": "user.sub"}
    assert entry.meta == {"example.com/tenant": "claims.tenant"}
    assert "s3cret" not in repr(entry)


def test_a_server_over_http_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", "s3cret")
    entry = read(
        """
        mcp:
          name: tickets
          url: https://tickets.example/mcp
          headers: {Authorization: {env: TICKETS_TOKEN, prefix: "Bearer "}, X-Team: hr}
          trust_annotations: true
        """
    )
    assert (entry.url, entry.command) == ("https://tickets.example/mcp", ())
    assert entry.headers == {"Authorization": "Bearer s3cret", "X-Team": "hr"}
    assert (entry.tools, entry.trust_annotations) == (None, True)
    assert "s3cret" not in repr(entry)


def test_a_program_gets_none_of_our_environment_but_what_every_program_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_JWT_SECRET", "ours")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
    env = read("mcp: {name: a, command: [sh]}").env
    assert set(env) <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{command: [sh]}", "`name` must be letters"),
        ("{name: a b, command: [sh]}", "`name` must be letters"),
        ("{name: a}", "expected `command` (a program to start) or `url` (an address), and not both"),
        ("{name: a, command: [sh], url: 'http://x'}", "and not both"),
        ("{name: a, command: sh -c x}", "`command` must be a list of texts"),
        ("{name: a, command: []}", "`command` must be a list of texts"),
        ("{name: a, command: [sh, 3]}", "`command` must be a list of texts"),
        ("{name: a, command: [no-such-program]}", "`command`: there is no program no-such-program"),
        ("{name: a, command: [sh], cwd: /nowhere}", "`cwd` must be a folder that exists"),
        ("{name: a, command: [sh], headers: {A: b}}", "`headers` goes with `url`"),
        ("{name: a, url: 'http://x', env: {A: b}}", "`env` goes with `command`"),
        ("{name: a, url: 'ftp://x'}", "`url` must be an address"),
        ("{name: a, url: 'https://me:pass@x/'}", "without a password"),
        ("{name: a, url: 3}", "`url` must be an address"),
        ("{name: a, url: 'http://x', headers: {Mcp-Session-Id: b}}", "Mcp-Session-Id is no name that may be set"),
        ("{name: a, url: 'http://x', headers: {'A b': b}}", "A b is no name that may be set"),
        ("{name: a, url: 'http://x', headers: {A: 密}}", "`headers.A` must be ASCII"),
        ('{name: a, url: "http://x", headers: {A: "b\\nc"}}', "`headers.A` must be one line"),
        ("{name: a, url: 'http://x', headers: {A: {env: MCP_NOT_SET}}}", "`headers.A`: what it refers to is not there"),
        ("{name: a, url: 'http://x', headers: {A: {env: BATON_JWT_SECRET}}}", "Baton's own settings are not for tools"),
        ("{name: a, url: 'http://x', headers: {A: {file: nothing}}}", "nothing: No such file or directory"),
        ("{name: a, url: 'http://x', headers: {A: {vault: b}}}", "`headers.A` must be a text, {env: NAME}"),
        ("{name: a, command: [sh], env: {A: 3}}", "`env.A` must be a text"),
        ("{name: a, command: [sh], env: {A-B: b}}", "A-B is no name that may be set"),
        ("{name: a, command: [sh], tools: echo}", "`tools` must be a list of the server's tool names"),
        ("{name: a, command: [sh], prefix: a.}", "`prefix` must be letters"),
        ("{name: a, command: [sh], trust_annotations: 1}", "`trust_annotations` must be true or false"),
        ("{name: a, command: [sh], inject: {x: employee}}", "`inject.x` must be user.sub or claims.<name>"),
        ("{name: a, command: [sh], meta: {progressToken: user.sub}}", "progressToken is no name that may be set"),
        ("{name: a, command: [sh], meta: {io.modelcontextprotocol/x: user.sub}}", "is no name that may be set"),
        ("{name: a, command: [sh], colour: red}", "unknown colour; known: name, command"),
        ("time", "`mcp` must be a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_place(content: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_JWT_SECRET", "ours")
    found = problems({"mcp": yaml.safe_load(content)})
    assert any(said in problem for problem in found), found
    assert all(problem.startswith("tools[0]: ") for problem in found)
    assert "ours" not in str(found)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems({"mcp": {"name": "a", "url": "x", "prefix": "%", "tools": 1}, "more": 1})) == 4

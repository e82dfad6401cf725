"""The examples in docs/tools.md work as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
import yaml

from services.common.config import ToolsSettings
from services.tools.http.addresses import AddressRule
from services.tools.http.entry import _KEYS
from services.tools.registry import open_tools
from services.tools.tools_file import KINDS, read_tools_file

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documented file beside the documented module, without its MCP servers: those have tests of their own."""
    source, *_ = blocks("yaml")
    content = yaml.safe_load(source)
    content["tools"] = [entry for entry in content["tools"] if "mcp" not in entry]
    (tmp_path / "tools.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    module, *_ = blocks("python")
    (tmp_path / "my_company").mkdir()
    (tmp_path / "my_company" / "tools.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ORDERS_TOKEN", "t0ken")
    return tmp_path / "tools.yaml"


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    source, *_ = blocks("yaml")
    path, problems = tmp_path / "tools.yaml", list[str]()
    path.write_text(source, encoding="utf-8")
    file = read_tools_file(str(path), problems)
    assert problems == []
    assert {key for _, entry in file.entries for key in entry} == {*KINDS, "settings", "groups", "timeout_s"}


def test_the_documented_tools_are_served(example: Path) -> None:
    async def once() -> None:
        async with open_tools(ToolsSettings(tools=str(example))) as toolbox:
            tools = {tool.spec.name: tool for tool in toolbox.tools()}
        assert list(tools) == ["calculator", "date_time", "open_tickets", "order_status"]
        assert (tools["open_tickets"].spec.groups, tools["open_tickets"].timeout_s) == (["support"], 5)

    asyncio.run(once())
    sys.modules.pop("my_company.tools", None)
    sys.modules.pop("my_company", None)


def test_every_field_of_an_http_tool_is_documented() -> None:
    _, _, table = TEXT.partition("## Tools that are one HTTP request")
    rows = "".join(line.split("|")[1] for line in table.partition("\n**")[0].splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == set(_KEYS)


def test_the_documented_closed_addresses_are_closed() -> None:
    named = re.findall(r"\(([^()]*169\.254\.169\.254[^()]*)\)", TEXT)[0].split(", ")
    assert len(named) == 3
    assert not any(AddressRule(private=True).allows(address) for address in named)

"""An MCP server without any SDK, over stdio, that does what well-behaved ones do not. What its tools are called says
what they do. Every message that it gets is appended to the file that its one argument names.

Run as a program: `python mcp_by_hand.py LOG [OPTION=VALUE …]`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PLAIN: dict[str, Any] = {"type": "object"}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"inner": schema}}
    return schema


class Server:
    def __init__(self, log: str, options: dict[str, str]) -> None:
        self._log = open(log, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._options = options
        self._grown = False
        self._asked: dict[str, Any] = {}
        self._asking: Any = None

    def run(self) -> None:
        print("hello from stderr", file=sys.stderr, flush=True)
        for line in sys.stdin:
            self._log.write(line)
            message = json.loads(line)
            if "method" not in message:
                self._heard(message)
            elif (handler := getattr(self, "on_" + message["method"].replace("/", "_"), None)) is not None:
                handler(message)
            elif "id" in message:
                self.error(message["id"], -32601, "Method not found")
        if "stubborn" in self._options:
            time.sleep(600)

    # --- out -----------------------------------------------------------------------------------------------------

    def send(self, **message: Any) -> None:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

    def result(self, request: dict[str, Any], **result: Any) -> None:
        self.send(id=request["id"], result=result)

    def text(self, request: dict[str, Any], text: str) -> None:
        self.result(request, content=[{"type": "text", "text": text}])

    def error(self, number: Any, code: int, text: str) -> None:
        self.send(id=number, error={"code": code, "message": text})

    # --- in ------------------------------------------------------------------------------------------------------

    def on_initialize(self, request: dict[str, Any]) -> None:
        if "mute" in self._options:
            return
        version = self._options.get("version", "2025-06-18")
        capabilities = {"tools": {"listChanged": True}, "logging": {}}
        self.result(
            request,
            protocolVersion=version,
            capabilities=capabilities,
            serverInfo={"name": "by-hand", "version": "1"},
        )

    def on_ping(self, request: dict[str, Any]) -> None:
        if "deaf" not in self._options:
            self.result(request)

    def on_tools_list(self, request: dict[str, Any]) -> None:
        names = [name[5:] for name in dir(self) if name.startswith("tool_")]
        tools = [{"name": name, "description": f"does {name}", "inputSchema": PLAIN} for name in names]
        if self._grown:
            tools.append({"name": "grown", "description": "new", "inputSchema": PLAIN})
        if "bad" in self._options:
            tools += bad_tools()
        if "many" in self._options:
            page = int(request.get("params", {}).get("cursor", "0"))
            many = [{"name": f"t{page:03}_{n:02}", "inputSchema": PLAIN} for n in range(30)]
            self.result(request, tools=many, nextCursor=str(page + 1))
            return
        self.result(request, tools=tools)

    def on_tools_call(self, request: dict[str, Any]) -> None:
        params = request["params"]
        getattr(self, "tool_" + params["name"])(request, params.get("arguments") or {})

    # --- tools ---------------------------------------------------------------------------------------------------

    def tool_echo(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        meta = {key: value for key, value in request["params"].get("_meta", {}).items() if key != "progressToken"}
        self.text(request, json.dumps({"arguments": arguments, "meta": meta}, ensure_ascii=False))

    def tool_env(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.text(request, json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "group": os.getpgrp()}))

    def tool_hang(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        pass

    def tool_die(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        os._exit(3)

    def tool_die_once(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        if "died" in Path(self._log.name).read_text():
            self.text(request, "alive")
        else:
            self._log.write('{"died": true}\n')
            os._exit(5)

    def tool_leave_child(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        """Dies while a child of it holds its pipes open."""
        child = subprocess.Popen(["sleep", "600"])
        self._log.write(json.dumps({"child": child.pid}) + "\n")
        os._exit(4)

    def tool_stop_reading(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self._log.write(json.dumps({"asleep": True}) + "\n")
        time.sleep(600)

    def tool_grow(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self._grown = not self._grown
        for _ in range(20):
            self.send(method="notifications/tools/list_changed")
        self.text(request, "grown" if self._grown else "shrunk")

    def tool_babble(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        for line in ("debugging 1 2 3", "{broken", '{"jsonrpc": "2.0", "id": 999999, "result": {}}', "[]"):
            print(line, flush=True)
        print("\x1b[31mred\x1b[0m " + "x" * 10_000, file=sys.stderr, flush=True)
        self.send(method="notifications/message", params={"level": "info", "data": "a log message"})
        self.send(method="notifications/progress", params={"progressToken": 12345, "progress": 1})
        self.send(method="notifications/unheard_of", params={})
        self.text(request, "still here")

    def tool_flood(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.text(request, "x" * 5_000_000)

    def tool_large(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.text(request, "x" * 1_000_000)

    def tool_fail(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.error(request["id"], -32050, "no\nsuch   thing")

    def tool_abyss(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.result(request, content=[], structuredContent=deep(400))

    def tool_misfit(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.result(request, content="not a list")

    def tool_progress(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        token = request["params"]["_meta"]["progressToken"]
        for fields in ({"progress": 1, "total": 4}, {"progress": 0.5, "total": 1}, {"progress": 3, "message": "half"}):
            self.send(method="notifications/progress", params={"progressToken": token, **fields})
        self.text(request, "done")

    def tool_ask(self, request: dict[str, Any], arguments: dict[str, Any]) -> None:
        """Asks for all that a server may ask a client for, and answers with what it got."""
        self._asking, self._asked = request, {}
        message = {"role": "user", "content": {"type": "text", "text": "hi"}}
        self.send(id="a", method="sampling/createMessage", params={"messages": [message], "maxTokens": 5})
        schema = {"type": "object", "properties": {"x": {"type": "string"}}}
        self.send(id="b", method="elicitation/create", params={"message": "who?", "requestedSchema": schema})
        self.send(id="c", method="roots/list")
        self.send(id="d", method="ping")

    def _heard(self, message: dict[str, Any]) -> None:
        self._asked[message["id"]] = message.get("error", {}).get("message", "ok")
        if len(self._asked) == 4:
            self.text(self._asking, json.dumps(self._asked, sort_keys=True))


def bad_tools() -> list[dict[str, Any]]:
    schemas = {
        "no_object": {"type": "array"},
        "no_schema": {"type": "objekt"},
        "too_deep": deep(20),
        "far_too_deep": deep(80),
        "elsewhere": {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema.json"}}},
        "huge": {"type": "object", "description": "x" * 100_000},
    }
    tools = [{"name": name, "description": name, "inputSchema": schema} for name, schema in schemas.items()]
    tools.append({"name": "files.read/all", "description": "d" * 5_000, "inputSchema": PLAIN})
    tools.append({"name": "files_read_all", "inputSchema": PLAIN})
    tools.append({"name": "n" * 80, "title": "A long name", "inputSchema": PLAIN})
    tools.append({"name": "task", "inputSchema": PLAIN, "execution": {"taskSupport": "required"}})
    return tools


if __name__ == "__main__":
    given = dict(option.partition("=")[::2] for option in sys.argv[2:])
    if "stubborn" in given:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "crash" in given:
        sys.exit("cannot start: no licence")
    Server(sys.argv[1], given).run()

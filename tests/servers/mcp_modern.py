"""An MCP server of protocol 2026-07-28 with the SDK's server side, over stdio or streamable HTTP.

Run as a program: `python mcp_modern.py LOG [PORT]`. What happens to `wait` is appended to the file LOG.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from mcp.server.mcpserver import Context, MCPServer

log = Path(sys.argv[1])
server = MCPServer("modern", log_level="WARNING")


def note(text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


@server.tool()
async def wait(ctx: Context) -> str:
    """Says that it has begun, and waits for ever."""
    await ctx.report_progress(1, 3, "waiting")
    note("began")
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        note("cancelled")
        raise
    return "never"


@server.tool()
async def add_one(ctx: Context) -> str:
    """Makes a further tool appear."""
    server.add_tool(lambda: "here", name="one_more", description="One more.")
    await ctx.notify_tools_changed()
    return "added"


@server.tool()
def greet(name: str, employee_id: str) -> str:
    """Greets."""
    return f"{name}, {employee_id}"


if __name__ == "__main__":
    if len(sys.argv) > 2:
        server.run("streamable-http", port=int(sys.argv[2]), host="127.0.0.1")
    else:
        server.run("stdio")

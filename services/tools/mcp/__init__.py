"""Tools of MCP servers, over stdio or streamable HTTP, through the official SDK: the entries `mcp:` of the YAML file.

    - mcp:
        name: time                          # in messages and logs
        command: [mcp-server-time]          # a program that is started, or instead of it
        url: "https://tickets.example/mcp"  # an address

docs/mcp.md has every key.
"""

from .opening import open_entry

__all__ = ["open_entry"]

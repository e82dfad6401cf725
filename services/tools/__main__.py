"""`python -m services.tools`: puts the tools together and reads the environment."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator

from baton_proto import subjects
from services.common.bus import Bus
from services.common.config import NatsSettings, ToolsSettings, WorkerSettings
from services.common.presence import Presence
from services.common.process import Opened, read_settings, run, serve_stage

from .registry import open_tools
from .service import tools_handler


def main() -> None:
    nats, worker, settings, process = read_settings("tools", NatsSettings, WorkerSettings, ToolsSettings)
    try:
        stage = subjects.tools_stage(settings.tool_set)
    except ValueError as error:
        print(f"BATON_TOOL_SET={settings.tool_set!r}: {error}", file=sys.stderr)
        raise SystemExit(2) from None

    @contextlib.asynccontextmanager
    async def open_handler(_: Bus, __: Presence) -> AsyncIterator[Opened]:
        async with open_tools(settings) as toolbox:
            yield Opened(tools_handler(toolbox, settings), lambda: [tool.spec for tool in toolbox.tools()])

    run(serve_stage(stage, open_handler, nats, worker, process))


if __name__ == "__main__":
    main()

"""The HR system of the demo: a small HTTP service with made-up employees, from which `leave_balance` reads.

    python -m examples.hr_assistant.erp --port 8100

It stands for the system of record that a company already has. Its figures are in memory and never change.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

YEAR = 2026
LABELS = {
    "annual": {"zh": "年假", "en": "Annual leave"},
    "sick": {"zh": "病假", "en": "Sick leave"},
    "personal": {"zh": "事假", "en": "Personal leave"},
}


@dataclass(frozen=True, slots=True)
class Employee:
    """`entitlement` and `used` are days of this year by kind of leave."""

    name: Mapping[str, str]
    joined: str
    entitlement: Mapping[str, float]
    used: Mapping[str, float]


def _employee(zh: str, en: str, joined: str, annual: float, used: tuple[float, float, float]) -> Employee:
    """Everybody has 12 days of paid sick leave and 10 days of personal leave, as the handbook says."""
    return Employee(
        name={"zh": zh, "en": en},
        joined=joined,
        entitlement={"annual": annual, "sick": 12, "personal": 10},
        used=dict(zip(LABELS, used, strict=True)),
    )


EMPLOYEES: Mapping[str, Employee] = {
    # Whoever asks without signing in.
    "anonymous": _employee("演示用户", "Demo user", "2019-04-01", 15, (6.5, 2, 1)),
    "lin.yue": _employee("林悦", "Lin Yue", "2014-09-15", 20, (11, 0, 0)),
    "chen.hao": _employee("陈皓", "Chen Hao", "2022-03-07", 12, (12, 4.5, 3)),
    "maria.silva": _employee("玛丽亚·席尔瓦", "Maria Silva", "2024-06-03", 10, (3.5, 1, 0)),
    "wu.qing": _employee("吴青", "Wu Qing", "2026-07-01", 5, (0, 0, 0)),
}


def leave_of(employee_id: str) -> dict[str, Any] | None:
    """The answer for one employee, None where there is no such employee. All figures are days."""
    employee = EMPLOYEES.get(employee_id)
    if employee is None:
        return None
    return {
        "employee": {"id": employee_id, "name": dict(employee.name), "joined": employee.joined},
        "year": YEAR,
        "unit": "day",
        "leave": [
            {
                "type": kind,
                "label": label,
                "entitlement": employee.entitlement[kind],
                "used": employee.used[kind],
                "remaining": employee.entitlement[kind] - employee.used[kind],
            }
            for kind, label in LABELS.items()
        ],
    }


def make_app(delay_s: float = 0.0) -> Starlette:
    """The service. `delay_s` makes it as slow as systems of this kind often are."""

    async def leave(request: Request) -> JSONResponse:
        await asyncio.sleep(delay_s)
        answer = leave_of(request.path_params["employee_id"])
        if answer is None:
            return JSONResponse({"error": {"zh": "没有这名员工。", "en": "There is no such employee."}}, 404)
        return JSONResponse(answer)

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "employees": len(EMPLOYEES)})

    return Starlette(
        routes=[Route("/employees/{employee_id}/leave", leave, methods=["GET"]), Route("/healthz", healthz)]
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="examples.hr_assistant.erp", description="The HR system of the demo.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8100, help="port; 0 = any free one (default: %(default)s)")
    parser.add_argument(
        "--delay-ms", type=int, default=0, help="milliseconds to think before each answer (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    try:
        listener = socket.create_server((options.host, options.port))
    except OSError as error:
        sys.exit(f"cannot listen on {options.host}:{options.port}: {error.strerror}")
    # uvicorn repeats the signal it ended on; being told to stop is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"HR system on http://{options.host}:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(make_app(options.delay_ms / 1000), log_level="warning", timeout_graceful_shutdown=2)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

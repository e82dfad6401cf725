"""The leave tool against the demo's HR system as a process, and against HR systems in trouble."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from baton_proto.messages import Language, ToolOutcome
from services.common.config import ToolsSettings
from services.tools import registry, retries
from services.tools.leave_balance import LeaveBalance
from services.tools.port import REQUEST_SHARE
from services.tools.registry import open_tools
from services.tools.service import tools_handler
from tests.jobs import MemoryJob, call, tools_item
from tests.servers.hr_system import broken_hr_system, demo_erp
from tests.servers.processes import free_port


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def erp():
    with demo_erp() as url:
        yield url


def ask(
    url: str, language: Language = "en", *, owner: str = "anonymous", timeout_s: float = 30.0, **arguments: Any
) -> tuple[MemoryJob, ToolOutcome]:
    """One call through the whole tools service; the job and the call's outcome."""
    settings = ToolsSettings(leave_url=url, timeout_s=timeout_s)
    job = MemoryJob(tools_item(call("leave_balance", **arguments), language=language, owner=owner))

    async def once() -> None:
        async with open_tools(settings) as tools:
            await tools_handler(tools, settings)(job)

    asyncio.run(once())
    return job, job.handed_over.turns[-1].results[0]


def send(request: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def test_all_leave_is_told_in_english(erp: str) -> None:
    job, outcome = ask(erp)
    assert outcome.ok
    assert outcome.content == (
        "Leave balance for 2026:\n"
        "- Annual leave: 15 days a year, 6.5 used, 8.5 remaining.\n"
        "- Sick leave: 12 days a year, 2 used, 10 remaining.\n"
        "- Personal leave: 10 days a year, 1 used, 9 remaining."
    )
    assert job.progress == [("c1", "Asking the HR system for your leave balance…")]


def test_one_kind_of_leave_is_told_in_chinese(erp: str) -> None:
    job, outcome = ask(erp, "zh", leave_type="annual")
    assert outcome.content == "2026 年假期余额：\n- 年假：全年 15 天，已用 6.5 天，剩余 8.5 天。"
    assert job.progress == [("c1", "正在向人事系统查询假期余额…")]


def test_the_owner_of_the_request_is_asked_about(erp: str) -> None:
    assert "20 days a year, 11 used, 9 remaining" in ask(erp, owner="lin.yue", leave_type="annual")[1].content


def test_a_model_cannot_ask_about_somebody_else(erp: str) -> None:
    _, outcome = ask(erp, owner="wu.qing", employee="lin.yue")
    assert not outcome.ok
    assert "There is no argument employee" in outcome.content


@pytest.mark.parametrize("owner", ["nobody", "..", "", "lin.yue/leave?", "../employees/lin.yue", "林悦", "a\nb"])
def test_an_owner_without_a_record_is_told_so(erp: str, owner: str) -> None:
    _, outcome = ask(erp, owner=owner)
    assert (outcome.ok, outcome.content) == (
        False,
        "The HR system has no employee record for you; please contact Human Resources.",
    )


def test_an_hr_system_that_is_down_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert ask(url)[1].content == "The HR system cannot be reached at the moment; try again later."
    assert ask(url, "zh")[1].content == "目前无法连接人事系统，请稍后再试。"


def test_an_hr_system_that_cannot_be_resolved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "cannot be reached" in ask("http://hr-system.invalid")[1].content


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request has 2 of the call's 20 seconds in place of most of them: a busy machine may stand still for longer
    than the rest of these, in which the tool says what was wrong."""
    assert REQUEST_SHARE < 1
    monkeypatch.setattr(registry, "REQUEST_SHARE", 0.1)
    monkeypatch.setattr(LeaveBalance, "GRACE_S", 18.0)


@pytest.mark.usefixtures("early")
def test_an_hr_system_that_stalls_costs_no_more_than_the_time_out() -> None:
    released = threading.Event()
    with broken_hr_system(lambda request: released.wait(20)) as url:
        started = time.monotonic()
        _, outcome = ask(url, timeout_s=20.0)
        released.set()
    assert time.monotonic() - started < 15
    assert (outcome.ok, outcome.content) == (
        False,
        "The HR system did not answer within 2 seconds; try again later.",
    )


@pytest.mark.usefixtures("early")
def test_a_body_that_drips_costs_no_more_than_the_time_out() -> None:
    released = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not released.wait(0.02):
            request.wfile.write(b" ")
            request.wfile.flush()

    with broken_hr_system(drip) as url:
        started = time.monotonic()
        _, outcome = ask(url, timeout_s=20.0)
        released.set()
    assert time.monotonic() - started < 15
    assert "did not answer within" in outcome.content


@pytest.mark.parametrize("status", [500, 503, 403, 302, 204])
def test_another_status_is_told(status: int) -> None:
    with broken_hr_system(lambda request: send(request, b"", status, Location="/elsewhere")) as url:
        _, outcome = ask(url)
    assert (outcome.ok, outcome.content) == (False, f"The HR system answered with status {status}; try again later.")


def test_ten_megabytes_are_not_read() -> None:
    with broken_hr_system(lambda request: send(request, b" " * 10_000_000)) as url:
        _, outcome = ask(url)
    assert (outcome.ok, outcome.content) == (False, "The HR system's answer is too large and was not read.")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"[]",
        b'{"year": 2026}',
        b'{"year": "soon", "leave": []}',
        b'{"year": 2026, "leave": [{"type": "annual", "entitlement": "many", "used": 0, "remaining": 0}]}',
        b'{"year": 2026, "leave": "\xff"}',
        b"[" * 100_000,
    ],
    ids=["empty", "html", "list", "incomplete", "wrong_year", "wrong_number", "no_utf8", "deep"],
)
def test_an_answer_in_another_form_is_not_understood(body: bytes) -> None:
    with broken_hr_system(lambda request: send(request, body)) as url:
        _, outcome = ask(url)
    assert (outcome.ok, outcome.content) == (False, "The HR system's answer could not be understood.")


def test_a_small_compressed_body_cannot_hide_a_large_one() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    with broken_hr_system(lambda request: send(request, bomb, Content_Encoding="gzip")) as url:
        _, outcome = ask(url)
    assert (outcome.ok, outcome.content) == (False, "The HR system's answer could not be understood.")


def test_an_hr_system_that_is_busy_for_a_moment_is_asked_again() -> None:
    body = json.dumps({"year": 2026, "leave": [{"type": "sick", "entitlement": 5, "used": 0, "remaining": 5}]}).encode()
    answers = iter([(b"", 503), (b"", 502), (body, 200)])
    with broken_hr_system(lambda request: send(request, *next(answers))) as url:
        assert "5 remaining" in ask(url, leave_type="sick")[1].content


def test_leave_that_the_hr_system_does_not_know_is_said() -> None:
    body = json.dumps({"year": 2026, "leave": []}).encode()
    with broken_hr_system(lambda request: send(request, body)) as url:
        assert ask(url, leave_type="sick")[1].content == "The HR system has no record of that leave."


def test_calls_of_one_turn_are_answered_together(erp: str) -> None:
    settings = ToolsSettings(leave_url=erp)
    calls = [
        call("leave_balance", "a", leave_type="annual"),
        call("calculator", "b", expression="15 - 6.5"),
        call("date_time", "c"),
    ]
    job = MemoryJob(tools_item(*calls))

    async def once() -> None:
        async with open_tools(settings) as tools:
            await tools_handler(tools, settings)(job)

    asyncio.run(once())
    first, second, third = job.handed_over.turns[-1].results
    assert "8.5 remaining" in first.content
    assert second.content == "15 - 6.5 = 8.5"
    assert third.ok

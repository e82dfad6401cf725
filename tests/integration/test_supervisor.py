"""The supervisor, on small real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import supervisor as supervisor_module
from services.cli.supervisor import Backoff, Command, GaveUp, Supervisor
from tests.servers.processes import ROOT, eventually, wait_until

pytestmark = pytest.mark.anyio

QUICK = Backoff(waits_s=(0.01, 0.01), healthy_s=60)
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)
OBEDIENT = "import time; print('ready', flush=True); time.sleep(600)"


class Heard:
    """What a supervisor has told."""

    def __init__(self) -> None:
        self.output: list[tuple[str, str]] = []
        self.events: list[tuple[str, str]] = []

    def supervisor(self, logs: Path, backoff: Backoff = QUICK) -> Supervisor:
        return Supervisor(
            logs,
            lambda name, line: self.output.append((name, line)),
            lambda name, line: self.events.append((name, line)),
            backoff,
        )


def python(name: str, code: str, stop_s: float = 5.0) -> Command:
    return Command(name, [sys.executable, "-u", "-c", code], dict(os.environ), stop_s)


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended but is not yet waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_every_line_reaches_the_listener_and_the_log(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.supervisor(tmp_path) as supervisor:
        status, last = await supervisor.run(python("talker", "import sys; print('到'); print('err', file=sys.stderr)"))
    assert status == 0
    assert sorted(last) == ["err", "到"]
    assert sorted(heard.output) == [("talker", "err"), ("talker", "到")]
    assert sorted((tmp_path / "talker.log").read_text().splitlines()) == ["err", "到"]


async def test_long_lines_and_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    heard = Heard()
    code = "import sys; sys.stdout.buffer.write(b'x' * 300_000 + b'\\n\\xff\\xfe\\nend')"
    async with heard.supervisor(tmp_path) as supervisor:
        await supervisor.run(python("talker", code))
    lines = [line for _, line in heard.output]
    assert "".join(lines[:-2]) == "x" * 300_000
    assert max(map(len, lines)) <= 2 * supervisor_module.MAX_LINE_BYTES
    assert lines[-2:] == ["\ufffd\ufffd", "end"]


async def test_a_log_is_bounded_and_the_one_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "MAX_LOG_BYTES", 1000)
    async with Heard().supervisor(tmp_path) as supervisor:
        await supervisor.run(python("talker", "for n in range(200): print(f'line {n:09}')"))
    assert (tmp_path / "talker.log").stat().st_size <= 1100
    assert (tmp_path / "talker.log.1").stat().st_size <= 1100
    assert "line 000000199" in (tmp_path / "talker.log").read_text()


async def test_a_process_that_ends_is_started_again_and_that_is_told(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.supervisor(tmp_path) as supervisor:
        supervisor.start(python("worker", OBEDIENT))
        await eventually(lambda: supervisor.pids(), "started")
        first = supervisor.pids()["worker"]
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: supervisor.pids().get("worker", first) != first, "started again")
        assert heard.events == [("worker", "was killed by SIGKILL; starting it again")]


async def test_a_process_that_keeps_dying_is_given_up_with_its_last_lines(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.supervisor(tmp_path) as supervisor:
        supervisor.start(python("worker", "print('no such file: x'); raise SystemExit(7)"))
        with pytest.raises(GaveUp, match="worker ended with status 7") as caught:
            await asyncio.wait_for(supervisor.failure(), 60)
    assert caught.value.last_lines[-1] == "no such file: x"
    assert caught.value.log == tmp_path / "worker.log"
    assert len(heard.events) == len(QUICK.waits_s)


async def test_wrong_settings_are_not_tried_again(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.supervisor(tmp_path) as supervisor:
        supervisor.start(python("worker", "raise SystemExit(2)"))
        with pytest.raises(GaveUp, match="status 2"):
            await asyncio.wait_for(supervisor.failure(), 60)
    assert heard.events == []


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with Heard().supervisor(tmp_path) as supervisor:
        supervisor.start(Command("nats", [str(tmp_path / "nats-server")]))
        with pytest.raises(GaveUp, match=r"cannot be started: .*nats-server: No such file"):
            await asyncio.wait_for(supervisor.failure(), 60)


async def test_a_process_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.supervisor(tmp_path) as supervisor:
        supervisor.start(python("stubborn", STUBBORN, stop_s=0.2))
        await eventually(lambda: heard.output, "it ignores SIGTERM now")
        pid = supervisor.pids()["stubborn"]
        await asyncio.wait_for(supervisor.stop(["stubborn"]), 30)
        assert not alive(pid)
    assert heard.events == [("stubborn", "did not stop within 0.2 s; killed")]


async def test_kill_all_ends_a_stop_that_waits(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.supervisor(tmp_path) as supervisor:
        supervisor.start(python("stubborn", STUBBORN, stop_s=600))
        await eventually(lambda: heard.output, "it ignores SIGTERM now")
        stopping = asyncio.create_task(supervisor.stop(["stubborn"]))
        await asyncio.sleep(0)
        supervisor.kill_all()
        await asyncio.wait_for(stopping, 30)


async def test_what_a_process_left_behind_is_killed_with_it(tmp_path: Path) -> None:
    heard = Heard()
    leaving = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    leaving += " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)"
    async with heard.supervisor(tmp_path) as supervisor:
        await supervisor.run(python("parent", leaving))
        await eventually(lambda: not alive(int(heard.output[0][1])), "the grandchild has ended")


async def test_one_that_waits_for_its_next_start_can_be_stopped(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.supervisor(tmp_path, Backoff(waits_s=(600,))) as supervisor:
        supervisor.start(python("worker", "raise SystemExit(1)"))
        await eventually(lambda: heard.events, "it waits")
        await asyncio.wait_for(supervisor.stop(["worker"]), 30)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_kill_9_of_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from services.cli.supervisor import Command, Supervisor

async def main():
    async with Supervisor(Path({str(tmp_path)!r}), lambda *_: None, lambda *_: None) as supervisor:
        for name in ("one", "two"):
            supervisor.start(Command(name, [sys.executable, "-c", {STUBBORN!r}]))
        while len(supervisor.pids()) < 2:
            await asyncio.sleep(0.01)
        print(*supervisor.pids().values(), flush=True)
        await supervisor.failure()

asyncio.run(main())
"""
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()]
    assert len(children) == 2
    assert all(alive(pid) for pid in children)
    process.kill()
    process.wait(10)
    process.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in children), "all children are dead")

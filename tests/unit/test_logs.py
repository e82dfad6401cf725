"""Log lines: one line an event, the request's id in every line that belongs to one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from services.common.logs import request_context, set_up_logging


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_a_json_line_carries_the_request_and_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("retriever", "json", "info")
    log = logging.getLogger("some.module")
    with request_context("req_1"):
        try:
            raise ValueError("bad\nthing")
        except ValueError:
            log.exception("it %s", "failed")
    log.info("outside")
    log.debug("not shown")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["service"], first["level"], first["message"]) == ("retriever", "error", "it failed")
    assert first["request_id"] == "req_1"
    assert "ValueError" in first["error"]
    assert first["time"].endswith("+00:00")
    assert "request_id" not in second


def test_a_text_line_names_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("gateway", "text", "warning")
    with request_context("req_2"):
        logging.getLogger("x").warning("slow")
    assert "WARNING [req_2] slow" in capsys.readouterr().err.replace("  ", " ")
    assert sys.stderr is not None

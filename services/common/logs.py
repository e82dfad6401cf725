"""Structured logs: one line an event, the ids of request and trace in every line that belongs to one."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from .tracing import current_ids

_request: contextvars.ContextVar[str] = contextvars.ContextVar("baton_request", default="")


@contextlib.contextmanager
def request_context(request_id: str) -> Iterator[None]:
    """Log lines written inside carry this request id."""
    token = _request.set(request_id)
    try:
        yield
    finally:
        _request.reset(token)


class _Context(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request.get()
        record.trace_id, record.span_id = current_ids()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, request_id, trace_id, span_id, error."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("request_id", "trace_id", "span_id"):
            if value := getattr(record, name, ""):
                line[name] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """For people: time, level, request id where there is one, message."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        request_id = getattr(record, "request_id", "")
        text = f"{time} {record.levelname:<7} {f'[{request_id}] ' if request_id else ''}{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up_logging(service: str, form: str, level: str) -> None:
    """Send all logging to standard error, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if form == "json" else TextFormatter())
    handler.addFilter(_Context())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpx2", "httpcore", "mcp", "pymilvus", "pinecone", "grpc", "asyncio", "jieba"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))

"""Server-sent events from bytes, without I/O: bytes in, the events' data out.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. Only `data` is read; comments, `event`, `id` and
`retry` are passed over. An event that the connection cut off before its blank line is dropped, as the format asks,
unless `finish` is called.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_EVENT_BYTES = 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """A line or an event is longer than anything a model's server has reason to send."""


class SseParser:
    """Feeds on pieces of a body, however they were cut. Broken UTF-8 becomes U+FFFD.

    Args:
        max_bytes: most bytes of one event.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, body: bytes) -> Iterator[str]:
        """The data of the events that are now complete.

        Raises:
            EventTooLarge: an event is over `max_bytes`.
        """
        body = self._rest + body if self._rest else body
        if not self._begun:
            if len(body) < len(_BOM) and _BOM.startswith(body):
                self._rest = body
                return
            self._begun, body = True, body.removeprefix(_BOM)
        lines = body.splitlines(keepends=True)
        # A line that has not ended stays for later; so does one that ends in \r, whose \n may come next.
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            if data := self._line(line.rstrip(b"\r\n")):
                yield data
        self._check(len(self._rest))

    def finish(self) -> Iterator[str]:
        """The data of a last event without its blank line; some servers end like that."""
        for line in (self._rest.rstrip(b"\r\n"), b""):
            if data := self._line(line):
                yield data
        self._rest = b""

    def _line(self, line: bytes) -> str:
        """The event's data, if this line is the blank one that ends it."""
        if line:
            if line.startswith(b"data"):
                name, _, value = line.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
                    self._size += len(value) + 1
                    self._check(0)
            return ""
        if not self._data:
            return ""
        data = b"\n".join(self._data) if len(self._data) > 1 else self._data[0]
        self._data.clear()
        self._size = 0
        return data.decode("utf-8", "replace")

    def _check(self, more: int) -> None:
        if self._size + more > self._max_bytes:
            raise EventTooLarge(f"a server-sent event is over {self._max_bytes} bytes")

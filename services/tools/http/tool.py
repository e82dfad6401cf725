"""One declared HTTP tool: a call is one request, and its outcome a text for the model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from baton_proto.messages import Language, ToolSpec
from services.common.retry_after import retry_after_ms
from services.common.wording import choose, shorten
from services.tools.port import RetryableError, ToolContext, ToolError

from . import result
from .connecting import Connector, Forbidden, Unreachable
from .exchange import Answer, Astray, TooLarge, Undecodable, exchange
from .request import RequestTemplate
from .template import Values

log = logging.getLogger(__name__)

_TRY_AGAIN = frozenset({429, 502, 503, 504})
_TELLING = frozenset({400, 404, 409, 410, 422})
"""Statuses whose body says what is wrong with the arguments; a model can correct itself by it."""
_SHOWN_CHARS = 300
_MIN_REDACTED = 4


@dataclass(frozen=True, slots=True)
class Declared:
    """What an entry of the YAML file says. Seconds and bytes are bounds."""

    spec: ToolSpec
    request: RequestTemplate
    hosts: frozenset[str]
    """Each with its port."""
    total_s: float
    max_bytes: int
    selection: result.Selection | None = None
    progress: Mapping[str, str] = field(default_factory=dict)
    """A line by language."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class HttpTool:
    def __init__(self, declared: Declared, connector: Connector, timeout_s: float) -> None:
        self.spec = declared.spec
        self.timeout_s = timeout_s
        self._declared = declared
        self._connector = connector

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        if line := self._declared.progress.get(context.language):
            context.progress(line)
        asked = self._declared.request.fill(Values(arguments, self._declared.defaults, context))
        answer = await self._exchange(asked, context.language)
        if not 200 <= answer.status < 300:
            raise await self._refused(answer, context.language)
        text = await self._read(answer, self._declared.selection, context.language)
        return self._redacted(text) or _empty(answer.status, context.language)

    async def _exchange(self, asked: Any, language: Language) -> Answer:
        declared, name = self._declared, self.spec.name
        try:
            async with asyncio.timeout(declared.total_s):
                return await exchange(self._connector, asked, declared.hosts, declared.max_bytes)
        except Unreachable:
            raise RetryableError(_unreachable(name, language)) from None
        except (TimeoutError, httpx.TimeoutException):
            raise ToolError(_slow(name, language)) from None
        except TooLarge:
            raise ToolError(_too_large(name, declared.max_bytes, language)) from None
        except (Forbidden, Astray) as error:
            log.error("the tool %s was kept from an address: %s", name, error or "not public")
            raise ToolError(_not_allowed(name, language)) from None
        except (Undecodable, httpx.HTTPError, httpx.StreamError) as error:
            log.warning("the tool %s got no answer that can be used: %s", name, type(error).__name__)
            raise ToolError(_broken_off(name, language)) from None

    async def _refused(self, answer: Answer, language: Language) -> ToolError:
        text = _status(self.spec.name, answer.status, language)
        log.info("the server behind the tool %s answered with status %d", self.spec.name, answer.status)
        if answer.status in _TELLING:
            try:
                said = await self._read(answer, None, language)
            except ToolError:
                said = ""
            text += f" {shorten(self._redacted(said), _SHOWN_CHARS)}" if said else ""
        if answer.status in _TRY_AGAIN:
            after_ms = retry_after_ms(answer.headers, time.time())
            return RetryableError(text, None if after_ms is None else after_ms / 1000)
        return ToolError(text)

    async def _read(self, answer: Answer, selection: result.Selection | None, language: Language) -> str:
        name = self.spec.name
        try:
            # In a thread: a page of a megabyte takes a while, and other requests are being answered.
            return await asyncio.to_thread(result.as_text, answer.body, answer.headers, selection)
        except result.Missing as error:
            raise ToolError(_missing(name, str(error), language)) from None
        except result.Unreadable as error:
            raise ToolError(_unreadable(name, str(error), language)) from None

    def _redacted(self, text: str) -> str:
        """`text` without the secrets that were sent: some servers answer with what they were asked."""
        for secret in self._declared.secrets:
            if len(secret) >= _MIN_REDACTED:
                text = text.replace(secret, "***")
        return text


def _empty(status: int, language: Language) -> str:
    return choose(language, zh=f"已完成（状态 {status}，没有内容）。", en=f"Done (status {status}, no content).")


def _unreachable(name: str, language: Language) -> str:
    return choose(
        language,
        zh=f"目前无法连接工具 {name} 的服务，请稍后再试。",
        en=f"The server behind the tool {name} cannot be reached at the moment; try again later.",
    )


def _slow(name: str, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 的服务没有及时答复，请稍后再试。",
        en=f"The server behind the tool {name} did not answer in time; try again later.",
    )


def _too_large(name: str, limit: int, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 的答复超过 {limit} 字节，已放弃读取；请缩小查询范围。",
        en=f"The answer of the tool {name} has more than {limit} bytes and was not read; ask for less.",
    )


def _not_allowed(name: str, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 不得访问该地址，详情已写入日志。",
        en=f"The tool {name} may not go where it was led; its operator finds the reason in the logs.",
    )


def _broken_off(name: str, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 的服务中断了答复，或答复无法解码。",
        en=f"The answer of the tool {name} broke off or could not be decoded.",
    )


def _status(name: str, status: int, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 的服务返回了状态 {status}。",
        en=f"The server behind the tool {name} answered with status {status}.",
    )


def _missing(name: str, pointer: str, language: Language) -> str:
    place = shorten(pointer, 100)
    return choose(
        language, zh=f"工具 {name} 的答复中没有 {place}。", en=f"The answer of the tool {name} has no {place}."
    )


def _unreadable(name: str, why: str, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 的答复不是可读的文本（{why}）。",
        en=f"The answer of the tool {name} cannot be read as text ({why}).",
    )

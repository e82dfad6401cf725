"""How much leave the asking person has left, from the HR system."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct, field

from baton_proto.messages import Language, ToolSpec
from services.common.wording import choose, shorten

from .port import RetryableError, ToolContext, ToolError

MAX_BODY_BYTES = 256 * 1024
_PASSING = frozenset({429, 502, 503, 504})
_TYPES = ("annual", "sick", "personal")
_ZH = {"annual": "年假", "sick": "病假", "personal": "事假"}
_EN = {"annual": "Annual leave", "sick": "Sick leave", "personal": "Personal leave"}


class Leave(Struct, frozen=True):
    """One kind of leave, in days. `label` is its name by language."""

    type: str
    entitlement: float
    used: float
    remaining: float
    label: dict[str, str] = field(default_factory=dict)


class Balance(Struct, frozen=True):
    """The HR system's answer; fields that are not used here are ignored."""

    year: int
    leave: list[Leave]


class LeaveBalance:
    """Asks `{base_url}/employees/{owner}/leave`. Who is asked about comes from the user's token and is no argument of
    the model.

    Args:
        client: closed by whoever opened it.
        timeout_s: seconds for the whole request.
    """

    spec = ToolSpec(
        name="leave_balance",
        description=(
            "Remaining, used and yearly leave of the person who asks, from the HR system. "
            "查询提问者本人的假期余额：年假、病假、事假还剩多少天。"
        ),
        parameters={
            "type": "object",
            "properties": {
                "leave_type": {
                    "type": "string",
                    "enum": list(_TYPES),
                    "description": "annual = 年假, sick = 病假, personal = 事假; all of them where it is absent",
                }
            },
            "additionalProperties": False,
        },
    )

    GRACE_S = 1.0
    """The request ends first, so that the message names the HR system and not just a tool that took too long."""

    def __init__(self, client: httpx.AsyncClient, base_url: str, timeout_s: float = 10.0) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._request_timeout_s = timeout_s
        self.timeout_s = timeout_s + self.GRACE_S

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        language = context.language
        context.progress(
            choose(language, zh="正在向人事系统查询假期余额…", en="Asking the HR system for your leave balance…")
        )
        balance = self._parse(await self._fetch(context.owner, language), language)
        wanted = arguments.get("leave_type")
        leave = [entry for entry in balance.leave if wanted in (None, entry.type)]
        if not leave:
            raise ToolError(
                choose(language, zh="人事系统中没有这种假期的记录。", en="The HR system has no record of that leave.")
            )
        return _describe(balance.year, leave, language)

    async def _fetch(self, owner: str, language: Language) -> bytes:
        if owner in ("", ".", ".."):
            raise _unknown_employee(language)
        url = f"{self._base_url}/employees/{quote(owner, safe='')}/leave"
        # Identity, because a small compressed body may hide a large one.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            async with (
                asyncio.timeout(self._request_timeout_s),
                self._client.stream("GET", url, headers=headers, follow_redirects=False) as response,
            ):
                if response.status_code == httpx.codes.NOT_FOUND:
                    raise _unknown_employee(language)
                if response.status_code != httpx.codes.OK:
                    raise _bad_status(response.status_code, language)
                return await _read(response, language)
        except (TimeoutError, httpx.TimeoutException):
            seconds = f"{self._request_timeout_s:g}"
            raise ToolError(
                choose(
                    language,
                    zh=f"人事系统在 {seconds} 秒内没有答复，请稍后再试。",
                    en=f"The HR system did not answer within {seconds} seconds; try again later.",
                )
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise RetryableError(
                choose(
                    language,
                    zh="目前无法连接人事系统，请稍后再试。",
                    en="The HR system cannot be reached at the moment; try again later.",
                )
            ) from error

    @staticmethod
    def _parse(body: bytes, language: Language) -> Balance:
        try:
            return msgspec.json.decode(body, type=Balance)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _not_understood(language) from error


async def _read(response: httpx.Response, language: Language) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _not_understood(language)
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise ToolError(
                choose(
                    language,
                    zh="人事系统的答复过大，已放弃读取。",
                    en="The HR system's answer is too large and was not read.",
                )
            )
    return bytes(body)


def _describe(year: int, leave: list[Leave], language: Language) -> str:
    lines = [_line(entry, language) for entry in leave]
    if language == "zh":
        return f"{year} 年假期余额：\n" + "\n".join(lines)
    return f"Leave balance for {year}:\n" + "\n".join(lines)


def _line(entry: Leave, language: Language) -> str:
    own = choose(language, zh=_ZH.get(entry.type, ""), en=_EN.get(entry.type, ""))
    label = shorten(entry.label.get(language) or own or entry.type, 40)
    total, used, left = f"{entry.entitlement:g}", f"{entry.used:g}", f"{entry.remaining:g}"
    return choose(
        language,
        zh=f"- {label}：全年 {total} 天，已用 {used} 天，剩余 {left} 天。",
        en=f"- {label}: {total} days a year, {used} used, {left} remaining.",
    )


def _unknown_employee(language: Language) -> ToolError:
    return ToolError(
        choose(
            language,
            zh="人事系统中没有您的员工记录，请联系人力资源部。",
            en="The HR system has no employee record for you; please contact Human Resources.",
        )
    )


def _bad_status(status: int, language: Language) -> ToolError:
    return (RetryableError if status in _PASSING else ToolError)(
        choose(
            language,
            zh=f"人事系统返回了状态 {status}，请稍后再试。",
            en=f"The HR system answered with status {status}; try again later.",
        )
    )


def _not_understood(language: Language) -> ToolError:
    return ToolError(
        choose(language, zh="看不懂人事系统的答复。", en="The HR system's answer could not be understood.")
    )

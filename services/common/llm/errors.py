"""What a language model's server refuses or breaks, as failures that a user can read.

What the server wrote goes to the log only, without the key: it may name accounts, addresses or the key itself.
"""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from typing import Any

from services.common.errors import ServiceError

RETRYABLE_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

_TOO_LONG = re.compile(
    r"context.{0,20}(?:length|window|size|limit)|maximum (?:context|prompt)|too (?:long|many tokens)|exceed\w*_context|"
    r"prompt is too|reduce the length|input tokens",
    re.IGNORECASE,
)
_UNSUPPORTED = re.compile(
    r"un\w*supported|not (?:\w+ )?support|does not support|unrecogni[sz]ed|unknown|unexpected|extra inputs|"
    r"not permitted|not allowed|invalid (?:parameter|field|argument)|requires --",
    re.IGNORECASE,
)
_OPTIONAL = {
    "stream_options": re.compile(r"stream_options|include_usage"),
    "max_tokens": re.compile(r"max_tokens"),
    "temperature": re.compile(r"temperature"),
    "seed": re.compile(r"\bseed\b"),
    "tools": re.compile(r"\btools?\b|tool choice|tool_choice|function call", re.IGNORECASE),
}
_CONTINUING = re.compile(
    r"continue_final_message|add_generation_prompt|\bprefix|\bpartial\b|prefill|(?:last|final) (?:message|role)|"
    r"(?:end|ends) with (?:a|an) (?:user|assistant)",
    re.IGNORECASE,
)
MAX_RETRY_AFTER_MS = 600_000


def refuses_to_continue(status: int, text: str) -> bool:
    """Whether the server says that it does not continue an assistant message."""
    return status in (400, 404, 422, 500, 501) and bool(_CONTINUING.search(text))


def refused_field(status: int, text: str, sent: dict[str, Any]) -> str | None:
    """The optional field of the request that the server does not know, if that is its complaint."""
    if status not in (400, 404, 422, 500, 501) or not _UNSUPPORTED.search(text):
        return None
    return next((name for name, pattern in _OPTIONAL.items() if name in sent and pattern.search(text)), None)


def http_failure(status: int, text: str, retry_after_ms: int | None) -> ServiceError:
    """The failure for an HTTP status that is not 200, with the body's text."""
    if status in (401, 403):
        return ServiceError(
            "model_failed", f"The language model's server refused access (HTTP {status}); check BATON_LLM_API_KEY."
        )
    if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(text)):
        return too_long()
    if status == 404:
        return ServiceError(
            "model_failed",
            "The language model's server does not know the address or the model (HTTP 404); check BATON_LLM_URL and "
            "BATON_LLM_MODEL.",
        )
    if status == 429:
        if "insufficient_quota" in text:
            return ServiceError("model_failed", "The account at the language model's server has no quota left.")
        return ServiceError(
            "model_failed",
            "The language model's server is asked too much at the moment (HTTP 429).",
            retryable=True,
            retry_after_ms=retry_after_ms,
        )
    return ServiceError(
        "model_failed",
        f"The language model's server failed (HTTP {status}).",
        retryable=status in RETRYABLE_STATUS,
        retry_after_ms=retry_after_ms,
    )


def stream_failure(error: Any) -> ServiceError:
    """The failure for an error object inside a stream that began well."""
    text = json.dumps(error, default=str, ensure_ascii=False)
    if _TOO_LONG.search(text):
        return too_long()
    status = error.get("code") or error.get("status") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 600:
        return http_failure(status, text, None)
    return ServiceError("model_failed", "The language model reported an error while it answered.", retryable=True)


def too_long() -> ServiceError:
    return ServiceError(
        "model_failed",
        "The question and its passages are longer than the language model can read; ask for fewer passages (top_k).",
    )


def unreachable() -> ServiceError:
    return ServiceError("model_failed", "The language model's server cannot be reached.", retryable=True)


def cut_off() -> ServiceError:
    return ServiceError("model_failed", "The connection to the language model broke off in its answer.", retryable=True)


def not_understood() -> ServiceError:
    return ServiceError("model_failed", "The language model's server sent what is no chat completion.", retryable=True)


def stalled(seconds: float, *, first: bool) -> ServiceError:
    what = "did not begin to answer" if first else "stopped in its answer"
    return ServiceError("model_stalled", f"The language model {what} for {seconds:g} seconds.", retryable=True)


def retry_after_ms(header: str | None, now_s: float) -> int | None:
    """`Retry-After` in milliseconds: seconds or a date; None where it is absent or makes no sense."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    if not 0 <= seconds < float("inf"):
        return None
    return min(round(seconds * 1000), MAX_RETRY_AFTER_MS)

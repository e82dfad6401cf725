"""What a language model's server refuses or breaks, as failures that a user can read.

What the server wrote goes to the log only, without the key: it may name accounts, addresses or the key itself.
"""

from __future__ import annotations

import json
import re
from typing import Any

from services.common.errors import ServiceError

RETRYABLE_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

_TOO_LONG = re.compile(
    r"context.{0,20}(?:length|window|size|limit)|maximum (?:context|prompt)|too (?:long|many tokens)|exceed\w*_context|"
    r"prompt is too|reduce the length|input tokens?\b|range of input length|maximum model length|"
    r"max_tokens must be at least 1, got -|inputs?`? (?:tokens .{0,30}must be|must have less)|input token count",
    re.IGNORECASE,
)
"""What servers say when a prompt is too long: OpenAI, Azure, vLLM, SGLang, TGI, llama.cpp and llama-cpp-python,
DashScope, DeepSeek, Mistral, Anthropic and Gemini behind LiteLLM, Ollama where it does not cut the prompt silently."""
_LIMITS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r'"n_ctx"\s*:\s*(\d+)',
        r"maximum (?:context|model|prompt)(?: length)? (?:is|of) (\d+)",
        r"context (?:length|window|size) \(?(?:of |is )?(\d+)",
        r"input length should be \[\d+, ?(\d+)\]",
        r"with (\d+) maximum context",
        r"> (\d+) maximum",
        r"must be (?:<=|`<=`) (\d+)",
        r"must have less than (\d+)",
        r"limit of (\d+) tokens",
        r"tokens allowed \((\d+)\)",
    )
)
_PROMPTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r'"n_prompt_tokens"\s*:\s*(\d+)',
        r"\((\d+) in the messages",
        r"messages resulted in (\d+) tokens",
        r"requested tokens \((\d+)\)",
        r"(?:input|prompt) \((?:length )?(\d+)",
        r"(?:contains?|has|contains at least) (\d+) (?:input )?tokens",
        r"too long: (\d+) tokens",
        r"token count \((\d+)\)",
    )
)
_ANSWER_LIMIT = re.compile(
    r"supports at most (\d{1,9}) completion tokens|"
    r"max_(?:completion_)?tokens (?:value, the valid range of max_tokens is|should be|must be)"
    r"[^\d\]]{0,30}\[\d+, ?(\d{1,9})\]",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"data_?inspection_?failed|inappropriate content|content_filter|responsible ?ai ?policy|content management policy|"
    r"content exists risk",
    re.IGNORECASE,
)
_NO_MONEY = re.compile(r"insufficient[_ ](?:quota|balance)|arrearage|account is in good standing", re.IGNORECASE)
_THROTTLED = re.compile(r"throttl|limit_requests|limit_burst_rate|#token-limit|allocated quota", re.IGNORECASE)
"""DashScope says `insufficient_quota` also for a limit per minute."""
_UNSUPPORTED = re.compile(
    r"un\w*supported|not (?:\w+ )?support|does not support|unrecogni[sz]ed|unknown|unexpected|extra inputs|"
    r"not permitted|not allowed|invalid (?:parameter|field|argument)|requires --",
    re.IGNORECASE,
)
_OPTIONAL = {
    "stream_options": re.compile(r"stream_options|include_usage"),
    "max_tokens": re.compile(r"max_tokens"),
    "stop": re.compile(
        r"[\"'`]stop[\"'`]|\bstop (?:sequence|parameter|word)|(?:field|parameter|argument):? stop\b", re.IGNORECASE
    ),
    "parallel_tool_calls": re.compile(r"parallel_tool_calls"),
    "tools": re.compile(r"\btools?\b|tool choice|tool_choice|function call", re.IGNORECASE),
}
"""Where a field's name alone would say too little, or not enough. `tools` comes last: others hold that word."""
_NEEDED = frozenset({"model", "messages", "stream"})
_CONTINUING = re.compile(
    r"continue_final_message|add_generation_prompt|\bprefix|\bpartial\b|prefill|(?:last|final) (?:message|role)|"
    r"(?:end|ends) with (?:a|an) (?:user|assistant)",
    re.IGNORECASE,
)


def refuses_to_continue(status: int, text: str) -> bool:
    """Whether the server says that it does not continue an assistant message."""
    return status in (400, 404, 422, 500, 501) and bool(_CONTINUING.search(text))


def refused_field(status: int, text: str, sent: dict[str, Any]) -> str | None:
    """The optional field of the request that the server does not know, if that is its complaint."""
    if status not in (400, 404, 422, 500, 501) or not _UNSUPPORTED.search(text):
        return None
    optional = sorted(sent.keys() - _NEEDED, key=lambda name: (name == "tools", name))
    return next((name for name in optional if _pattern(name).search(text)), None)


def answer_limit(status: int, text: str, sent: dict[str, Any]) -> int | None:
    """The longest answer that the server gives, in tokens, if its complaint is that a longer one is asked for."""
    asked = sent.get("max_tokens") or sent.get("max_completion_tokens")
    if status not in (400, 422) or asked is None:
        return None
    found = _ANSWER_LIMIT.search(text)
    limit = int(found[1] or found[2]) if found else 0
    return limit if 0 < limit < asked else None


def _pattern(name: str) -> re.Pattern[str]:
    return _OPTIONAL.get(name) or re.compile(rf"\b{re.escape(name)}\b")


class ContextOverflow(ServiceError):
    """The prompt is longer than the model can read. `limit` is what the server says it can read, answer included,
    `prompt` how many tokens it has counted; each where it is told."""

    def __init__(self, limit: int | None = None, prompt: int | None = None) -> None:
        super().__init__(
            "model_failed",
            "The question and its passages are longer than the language model can read; ask a shorter question.",
        )
        self.limit = limit
        self.prompt = prompt


class ContentFiltered(ServiceError):
    """The server's content filter refuses the question, its passages, or the answer."""

    def __init__(self) -> None:
        super().__init__("model_failed", "The content filter of the language model's server refuses this question.")


def overflow(status: int, text: str) -> ContextOverflow | None:
    """The failure of a prompt that is too long, if that is the server's complaint."""
    if status != 413 and not (status in (400, 422, 500) and _TOO_LONG.search(text)):
        return None
    return ContextOverflow(_first_number(_LIMITS, text), _first_number(_PROMPTS, text))


def _first_number(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    found = next((match for pattern in patterns if (match := pattern.search(text))), None)
    return int(found[1]) if found and len(found[1]) <= 9 else None


def http_failure(status: int, text: str, retry_after_ms: int | None) -> ServiceError:
    """The failure for an HTTP status that is not 200, with the body's text."""
    if status in (401, 403):
        return ServiceError(
            "model_failed", f"The language model's server refused access (HTTP {status}); check BATON_LLM_API_KEY."
        )
    if status in (400, 422, 500) and _FILTERED.search(text):
        return ContentFiltered()
    if too_long := overflow(status, text):
        return too_long
    if status in (400, 422) and "reasoning_content" in text:
        return ServiceError(
            "model_failed",
            "The language model's server wants the model's earlier thoughts back, which are not kept; turn thinking "
            "off (BATON_LLM_PRESET, BATON_LLM_BODY).",
        )
    if status == 402 or (status in (400, 429) and _NO_MONEY.search(text) and not _THROTTLED.search(text)):
        return ServiceError("model_failed", "The account at the language model's server has no quota left.")
    if status == 404:
        return ServiceError(
            "model_failed",
            "The language model's server does not know the address or the model (HTTP 404); check BATON_LLM_URL and "
            "BATON_LLM_MODEL.",
        )
    if status == 429:
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
    if _FILTERED.search(text):
        return ContentFiltered()
    if too_long := overflow(400, text):
        return too_long
    status = error.get("code") or error.get("status") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 600:
        return http_failure(status, text, None)
    return ServiceError("model_failed", "The language model reported an error while it answered.", retryable=True)


def unreachable() -> ServiceError:
    return ServiceError("model_failed", "The language model's server cannot be reached.", retryable=True)


def cut_off() -> ServiceError:
    return ServiceError("model_failed", "The connection to the language model broke off in its answer.", retryable=True)


def not_understood() -> ServiceError:
    return ServiceError("model_failed", "The language model's server sent what is no chat completion.", retryable=True)


def stalled(seconds: float, *, first: bool) -> ServiceError:
    what = "did not begin to answer" if first else "stopped in its answer"
    return ServiceError("model_stalled", f"The language model {what} for {seconds:g} seconds.", retryable=True)

"""What a class of models wants, so that one setting is enough. docs/models.md says where each figure comes from.

A setting that is set wins over the preset, and a request's own sampling over both. What a preset leaves open is not
sent, so the server decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from baton_proto.messages import Sampling
from services.common.config import LlmSettings
from services.common.settings import SettingsError

DEFAULT_PROMPT_TOKENS = 8_000
_OWN_FIELDS = frozenset({"model", "messages", "stream", "tools"})


def _nothing(_: str) -> Mapping[str, Any]:
    return {}


def _no_continuing(_: str) -> str:
    return "off"


@dataclass(frozen=True, slots=True)
class Preset:
    """`window` is what the class's smallest member reads, answer included; `prompt_tokens` what Baton uses of it.
    `body` gives further fields of each request and `continuing` a value of `BATON_LLM_CONTINUE`, both by the server's
    address. `parallel_tool_calls` is sent together with tools."""

    window: int = 0
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS
    sampling: Sampling = field(default_factory=Sampling)
    body: Callable[[str], Mapping[str, Any]] = _nothing
    continuing: Callable[[str], str] = _no_continuing
    parallel_tool_calls: bool | None = None


def _dashscope(url: str) -> bool:
    return "dashscope" in url or "aliyuncs.com" in url


def _ollama(url: str) -> bool:
    return ":11434" in url


def _qwen_body(url: str) -> Mapping[str, Any]:
    """How the server is told that Qwen 3 shall not think: each has a way of its own."""
    if _dashscope(url):
        return {"enable_thinking": False}
    if _ollama(url):
        return {"reasoning_effort": "none"}
    return {"chat_template_kwargs": {"enable_thinking": False}}


def _deepseek_body(_: str) -> Mapping[str, Any]:
    return {"thinking": {"type": "disabled"}}


PRESETS: dict[str, Preset] = {
    "none": Preset(),
    "llama3": Preset(
        window=8_192,
        prompt_tokens=6_000,
        sampling=Sampling(temperature=0.6, top_p=0.9, max_tokens=1_024),
        parallel_tool_calls=False,
    ),
    "qwen": Preset(
        window=32_768,
        prompt_tokens=16_000,
        sampling=Sampling(temperature=0.7, top_p=0.8, max_tokens=2_048),
        body=_qwen_body,
        continuing=lambda url: "partial" if _dashscope(url) else "off",
    ),
    "gpt4": Preset(window=128_000, prompt_tokens=16_000, sampling=Sampling(temperature=0.2, max_tokens=2_048)),
    "deepseek": Preset(
        window=128_000,
        prompt_tokens=16_000,
        sampling=Sampling(temperature=1.0, max_tokens=2_048),
        body=_deepseek_body,
        continuing=lambda url: "prefix" if url.rstrip("/").endswith("/beta") else "off",
    ),
}


def preset_of(settings: LlmSettings) -> Preset:
    return PRESETS[settings.llm_preset]


def further_fields(settings: LlmSettings) -> dict[str, Any]:
    """What each request holds beside what Baton makes: the preset's fields, and over them those of `BATON_LLM_BODY`.

    Raises:
        SettingsError: the setting is no JSON object, or names a field that is Baton's own.
    """
    fields = dict(preset_of(settings).body(settings.llm_url))
    if not settings.llm_body:
        return fields
    try:
        own = json.loads(settings.llm_body)
    except ValueError as error:
        raise SettingsError([f"BATON_LLM_BODY: it is not JSON ({error})"]) from None
    if not isinstance(own, dict):
        raise SettingsError(['BATON_LLM_BODY: expected a JSON object, as in {"top_k": 20}'])
    if taken := sorted(own.keys() & _OWN_FIELDS):
        raise SettingsError([f"BATON_LLM_BODY: {', '.join(taken)} cannot be set here"])
    fields |= own
    # null takes away a field of the preset.
    return {name: value for name, value in fields.items() if value is not None}

"""What an answer came from, as one line that can be compared part by part; no I/O.

    corpus=3f2a9c1d7e604b58 retriever=milvus#1b2c3d4e5f60 prompt=9f8e7d6c5b4a model=openai:qwen2.5-7b#0a1b2c3d4e5f
    settings=seed:7,temperature:0#a1b2c3d4e5f6 tools=2#6f5e4d3c2b1a

What stands before a `#` is for people, the digest behind it says whether all of it is the same. Two answers to the same
question with the same history and the same fingerprint were made from the same things. `variant=b` is there where
workers of a variant made it: they may be other code with the same settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from baton_proto.messages import Sampling, WorkItem
from services.common.cache import digest
from services.common.config import GeneratorSettings

from .port import Generator, Identified, Prompt

UNKNOWN = "unknown"
DIGEST_CHARS = 12
_MAX_NAME = 80
_NO_MATTER = frozenset(
    {"llm_api_key", "first_token_timeout_s", "token_timeout_s", "llm_continue", "chunk_delay_ms", "prompts"}
)
"""Settings that do not change what an answer says. Every other one counts, also those that are yet to come. (Of the
prompts it is their text that counts, not where they lie.)"""


class Fingerprints:
    """The fingerprints of one generator's answers."""

    def __init__(self, generator: Generator, settings: GeneratorSettings) -> None:
        said = dict(generator.identity()) if isinstance(generator, Identified) else {}
        self._prompt = said.pop("prompt", UNKNOWN)
        model = said.pop("model", settings.llm_model)
        name = f"{settings.generator}:{model}" if model else settings.generator
        self._model = _named(name, {"name": name, "url": settings.llm_url, **said})
        self._settings = {
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(settings)
            if field.name not in _NO_MATTER
        }

    def of(self, item: WorkItem, prompt: Prompt) -> str:
        """The fingerprint of the answer to this prompt, which was made from `item`."""
        tools = list(prompt.tools)
        parts = {
            "corpus": item.corpus or UNKNOWN,
            "retriever": item.retriever or UNKNOWN,
            "prompt": self._prompt,
            "model": self._model,
            "settings": _named(
                sampling_text(prompt.sampling),
                [self._settings, prompt.sampling, item.top_k, item.filters or None, item.language],
            ),
            "tools": _named(str(len(tools)), tools) if tools else "none",
        }
        if item.variant:
            parts["variant"] = item.variant
        return " ".join(f"{name}={_word(value)}" for name, value in parts.items())


def sampling_text(sampling: Sampling) -> str:
    """The sampling by name; `default` where the model's server decides."""
    said: Mapping[str, Any] = msgspec.to_builtins(sampling)
    parts = [
        f"{name}:{value:g}" if isinstance(value, (int, float)) else f"{name}:{digest(value)[:4]}"
        for name, value in sorted(said.items())
    ]
    return ",".join(parts) or "default"


def _named(name: str, of: Any) -> str:
    return f"{name[:_MAX_NAME]}#{digest(of)[:DIGEST_CHARS]}"


def _word(text: str) -> str:
    return "_".join(text.split()) or UNKNOWN

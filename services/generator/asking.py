"""How a model is asked, whatever the question is: what settings and preset say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.common.config import GeneratorSettings
from services.common.llm.presets import further_fields, preset_of

from .budget import Budget
from .continuing import WAYS, Way


@dataclass(frozen=True, slots=True)
class Asking:
    """`fields` go into every request as they are; `way` is how the server continues a message (None: it does not)."""

    model: str
    budget: Budget
    fields: Mapping[str, Any] = field(default_factory=dict)
    parallel_tool_calls: bool | None = None
    way: Way | None = None


def asking_of(settings: GeneratorSettings) -> Asking:
    """
    Raises:
        SettingsError: `BATON_LLM_BODY` cannot be used.
    """
    preset = preset_of(settings)
    return Asking(
        model=settings.llm_model,
        budget=Budget(settings.prompt_tokens or preset.prompt_tokens, settings.history_tokens),
        fields=further_fields(settings),
        parallel_tool_calls=preset.parallel_tool_calls,
        way=WAYS.get(settings.llm_continue or preset.continuing(settings.llm_url)),
    )

"""How an answer is sampled: the request's wishes, then the settings', then the preset's, within the server's limits."""

from __future__ import annotations

import msgspec

from baton_proto.messages import Sampling
from services.common.config import GeneratorSettings
from services.common.llm.presets import preset_of


def effective_sampling(asked: Sampling, settings: GeneratorSettings) -> Sampling:
    """All that is sent to a model. `max_tokens` is never over `BATON_MAX_TOKENS`, whoever names it."""
    preset = preset_of(settings).sampling
    own = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens)
    fields = {
        name: next((value for one in (asked, own, preset) if (value := getattr(one, name)) is not None), None)
        for name in Sampling.__struct_fields__
    }
    if settings.max_tokens is not None and fields["max_tokens"] is not None:
        fields["max_tokens"] = min(fields["max_tokens"], settings.max_tokens)
    return msgspec.structs.replace(Sampling(), **fields)

"""Sampling and presets: what a request asks for, what the settings say, and what a class of models wants."""

from __future__ import annotations

import pytest

from baton_proto.messages import Sampling
from services.common.config import ALL_SETTINGS, GeneratorSettings
from services.common.llm.presets import PRESETS, further_fields
from services.common.settings import SettingsError, describe
from services.generator.asking import asking_of
from services.generator.budget import Budget
from services.generator.continuing import WAYS
from services.generator.sampling import effective_sampling

DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
VLLM = "http://localhost:8000/v1"


def settings(**fields: object) -> GeneratorSettings:
    return GeneratorSettings(llm_url=VLLM, llm_model="m", **fields)  # type: ignore[arg-type]


def test_a_request_wins_over_the_settings_and_these_over_the_preset() -> None:
    asked = Sampling(temperature=0.0, seed=7, stop=["\n\n"], presence_penalty=1.0)
    own = settings(llm_preset="qwen", top_p=0.5)
    assert effective_sampling(asked, own) == Sampling(
        temperature=0.0, seed=7, stop=["\n\n"], presence_penalty=1.0, top_p=0.5, max_tokens=2_048
    )
    assert effective_sampling(Sampling(), settings(temperature=0.3)) == Sampling(temperature=0.3)
    assert effective_sampling(Sampling(), settings()) == Sampling()


@pytest.mark.parametrize(
    ("asked", "most", "sent"), [(5_000, 1_000, 1_000), (500, 1_000, 500), (None, 1_000, 1_000), (500, None, 500)]
)
def test_no_answer_is_longer_than_the_server_allows(asked: int | None, most: int | None, sent: int) -> None:
    assert effective_sampling(Sampling(max_tokens=asked), settings(max_tokens=most)).max_tokens == sent
    assert effective_sampling(Sampling(), settings(llm_preset="llama3", max_tokens=100)).max_tokens == 100


def test_every_preset_leaves_room_for_its_answer_and_can_be_chosen() -> None:
    choices = next(info.choices for info in describe(GeneratorSettings) if info.env == "BATON_LLM_PRESET")
    assert set(choices) == set(PRESETS)
    for name, preset in PRESETS.items():
        for url in (VLLM, DASHSCOPE, "https://api.deepseek.com/beta"):
            assert preset.continuing(url) in {"off", *WAYS}
        if name != "none":
            assert preset.prompt_tokens + (preset.sampling.max_tokens or 0) <= preset.window
    assert any(cls is GeneratorSettings for cls in ALL_SETTINGS)


def test_qwen_is_told_not_to_think_as_its_server_understands() -> None:
    def fields(url: str) -> dict[str, object]:
        return further_fields(GeneratorSettings(llm_url=url, llm_preset="qwen"))

    assert fields(VLLM) == {"chat_template_kwargs": {"enable_thinking": False}}
    assert fields(DASHSCOPE) == {"enable_thinking": False}
    assert fields("http://localhost:11434/v1") == {"reasoning_effort": "none"}


def test_further_fields_of_the_settings_win_and_null_takes_one_away() -> None:
    own = '{"top_k": 20, "chat_template_kwargs": null}'
    assert further_fields(settings(llm_preset="qwen", llm_body=own)) == {"top_k": 20}


@pytest.mark.parametrize("body", ["{", "[1]", "3", '{"messages": []}', '{"model": "x"}'])
def test_further_fields_that_cannot_be_used_are_refused_at_start(body: str) -> None:
    with pytest.raises(SettingsError, match="BATON_LLM_BODY"):
        asking_of(settings(llm_body=body))


def test_what_is_set_wins_over_the_preset() -> None:
    assert asking_of(settings()).budget == Budget(8_000, 1_500)
    assert asking_of(settings(llm_preset="llama3")).budget == Budget(6_000, 1_500)
    assert asking_of(settings(llm_preset="llama3", prompt_tokens=900, history_tokens=0)).budget == Budget(900, 0)
    beta = GeneratorSettings(llm_url="https://api.deepseek.com/beta", llm_preset="deepseek")
    assert asking_of(beta).way == WAYS["prefix"]
    off = GeneratorSettings(llm_url="https://api.deepseek.com/beta", llm_preset="deepseek", llm_continue="off")
    assert asking_of(off).way is None
    assert asking_of(settings(llm_continue="vllm")).way == WAYS["vllm"]

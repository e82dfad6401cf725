"""Settings from the environment: what is accepted, and how a mistake is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.config import ALL_SETTINGS, GatewaySettings, NatsSettings
from services.common.settings import SettingsError, describe, load, markdown_table, setting
from services.common.settings_doc import settings_page

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class ExampleSettings:
    name: str = setting("BATON_NAME", "baton", "A name.")
    colour: str = setting("BATON_COLOUR", "red", "A colour.", choices=("red", "blue"))
    count: int = setting("BATON_COUNT", 3, "A count.", minimum=1, maximum=10)
    share: float = setting("BATON_SHARE", 0.5, "A share.", minimum=0, maximum=1)
    loud: bool = setting("BATON_LOUD", False, "Whether loud.")
    places: tuple[str, ...] = setting("BATON_PLACES", (), "Places.")
    limit: int | None = setting("BATON_LIMIT", None, "A limit, or none.")
    key: str = setting("BATON_KEY", "", "A key.", secret=True, choices=("", "right"))


def read(**environ: str) -> ExampleSettings:
    return load([ExampleSettings], [ExampleSettings], environ)[0]


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(**environ)
    return caught.value.problems


def test_without_an_environment_the_defaults_hold() -> None:
    assert read() == ExampleSettings()


def test_an_empty_value_counts_as_unset() -> None:
    assert read(BATON_COUNT="", BATON_NAME="") == ExampleSettings()


def test_values_get_the_type_of_their_field() -> None:
    found = read(BATON_COUNT="7", BATON_SHARE="1", BATON_LOUD="Yes", BATON_PLACES=" a, ,b ", BATON_LIMIT="5")
    assert found == ExampleSettings(count=7, share=1.0, loud=True, places=("a", "b"), limit=5)


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(BATON_COLOUR="green", BATON_COUNT="x", BATON_LOUD="perhaps", BATON_NMAE="y")
    assert len(found) == 4
    assert "BATON_NMAE: there is no such setting; did you mean BATON_NAME?" in found
    assert "BATON_COLOUR='green': expected one of red, blue" in found
    assert "BATON_COUNT='x': expected a whole number" in found
    assert "BATON_LOUD='perhaps': expected true or false" in found


def test_an_unknown_setting_like_no_other_is_told_without_a_guess() -> None:
    assert problems(BATON_QQQQQQQQ="1") == ["BATON_QQQQQQQQ: there is no such setting"]


def test_settings_of_other_services_and_programs_are_fine() -> None:
    (gateway,) = load([GatewaySettings], ALL_SETTINGS, {"BATON_LLM_MODEL": "m", "HOME": "/", "BATONX": "1"})
    assert gateway == GatewaySettings()


def test_a_secret_is_not_printed() -> None:
    (told,) = problems(BATON_KEY="hunter2")
    assert "hunter2" not in told
    assert told.startswith("BATON_KEY='***'")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_number_must_be_finite(text: str) -> None:
    assert problems(BATON_SHARE=text) == [f"BATON_SHARE={text!r}: expected a finite number"]


@given(st.integers())
def test_a_whole_number_is_taken_within_its_bounds_only(number: int) -> None:
    if 1 <= number <= 10:
        assert read(BATON_COUNT=str(number)).count == number
    else:
        (told,) = problems(BATON_COUNT=str(number))
        assert "must be at least 1" in told or "must be at most 10" in told


@given(st.text())
def test_any_text_is_taken_or_told_about(text: str) -> None:
    for name in ("BATON_COLOUR", "BATON_COUNT", "BATON_SHARE", "BATON_LOUD", "BATON_PLACES", "BATON_LIMIT"):
        told: list[str] = []
        try:
            read(**{name: text})
        except SettingsError as error:
            told = error.problems
        assert all(problem.startswith(f"{name}=") for problem in told)
        assert len(told) <= 1


def test_no_two_settings_share_a_name() -> None:
    names = [info.env for group in ALL_SETTINGS for info in describe(group) if info.field in group.__annotations__]
    assert len(names) == len(set(names))


def test_every_setting_is_a_baton_setting_with_a_sentence() -> None:
    for info in (info for group in ALL_SETTINGS for info in describe(group)):
        assert info.env.startswith("BATON_")
        assert info.help.endswith("."), info.env


def test_every_default_would_be_accepted_if_it_were_set() -> None:
    for group in ALL_SETTINGS:
        for info in describe(group):
            default = (
                ",".join(info.default)
                if isinstance(info.default, tuple)
                else ""
                if info.default is None
                else str(info.default)
            )
            assert load([group], ALL_SETTINGS, {info.env: default})[0] == group(), info.env


def test_what_holds_a_key_or_a_password_is_marked_as_secret() -> None:
    for info in (info for group in ALL_SETTINGS for info in describe(group)):
        if any(word in info.env for word in ("SECRET", "API_KEY", "TOKEN")) and info.kind is str:
            assert info.secret, info.env


def test_the_table_shows_default_choices_and_bounds() -> None:
    lines = markdown_table([NatsSettings]).splitlines()
    assert "| `BATON_LOG_STORAGE` | `file` | Where logs and work are kept. One of `file`, `memory`. |" in lines
    assert "| `BATON_REPLICAS` | `1` | JetStream replicas of every stream. From 1 to 5. |" in lines
    assert any(line.startswith("| `BATON_WORK_MAX_ITEMS`") and line.endswith("At least 1. |") for line in lines)


def test_the_page_in_the_docs_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page(), "run `make docs`"

"""Settings from the environment: declared as dataclass fields, read once in a `__main__`, all errors told at once."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

S = TypeVar("S")
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class SettingsError(Exception):
    """One or more settings are wrong; `problems` has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def setting(
    env: str,
    default: Any,
    help: str,
    *,
    choices: Iterable[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
    read: Callable[[str], Any] | None = None,
) -> Any:
    """A dataclass field that is read from the environment variable `env`. `choices`, `minimum` and `maximum` are
    checked; a `secret` is never printed. `read` makes the value of a text that has a form of its own,
    or raises ValueError."""
    metadata = {
        "env": env,
        "help": help,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "secret": secret,
        "read": read,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class SettingInfo:
    """One setting, for the docs, `--help` and messages."""

    env: str
    group: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    secret: bool
    read: Callable[[str], Any] | None
    field: str


def describe(cls: type) -> list[SettingInfo]:
    """The settings of the dataclass `cls`, in order, those that it inherits first."""
    hints = typing.get_type_hints(cls)
    return [
        SettingInfo(
            group=cls.__name__.removesuffix("Settings"),
            kind=_plain(hints[field.name]),
            default=field.default,
            field=field.name,
            **field.metadata,
        )
        for field in dataclasses.fields(cls)
    ]


def load(groups: Iterable[type], known: Iterable[type], environ: Mapping[str, str] | None = None) -> list[Any]:
    """An instance of each of `groups`, read from the environment.

    Args:
        known: every settings class there is; a `BATON_*` variable that none of them declares is an error, because it is
            most often a typing error that would otherwise go unnoticed.

    Raises:
        SettingsError: with all that is wrong, not only the first.
    """
    environ = os.environ if environ is None else environ
    names = {info.env for cls in known for info in describe(cls)}
    problems = [_unknown(name, names) for name in sorted(environ) if name.startswith("BATON_") and name not in names]
    loaded = []
    for cls in groups:
        values: dict[str, Any] = {}
        for info in describe(cls):
            raw = environ.get(info.env, "")
            if raw == "":
                continue
            try:
                values[info.field] = _parse(info, raw)
            except ValueError as error:
                problems.append(f"{info.env}={'***' if info.secret else raw!r}: {error}")
        loaded.append(cls(**values))
    if problems:
        raise SettingsError(problems)
    return loaded


def markdown_table(groups: Iterable[type]) -> str:
    """The settings table of the docs: what each group declares itself."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for cls in groups:
        for info in describe(cls):
            if info.field not in cls.__annotations__:
                continue
            default = "" if info.default in (None, "", ()) else f"`{_shown(info.default)}`"
            allowed = f" One of {', '.join(f'`{choice}`' for choice in info.choices)}." if info.choices else ""
            lines.append(f"| `{info.env}` | {default} | {info.help}{allowed}{_bounds(info)} |")
    return "\n".join(lines) + "\n"


def _bounds(info: SettingInfo) -> str:
    if info.minimum is None:
        return ""
    return f" At least {info.minimum}." if info.maximum is None else f" From {info.minimum} to {info.maximum}."


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(hint: Any) -> type:
    """`int` for `int | None`, `tuple` for `tuple[str, ...]`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    plain: type = typing.get_origin(hint) or hint
    return plain


def _parse(info: SettingInfo, raw: str) -> Any:
    value: Any = raw
    if info.read is not None:
        return info.read(raw)
    if info.kind is bool:
        if raw.lower() not in _TRUE | _FALSE:
            raise ValueError("expected true or false")
        return raw.lower() in _TRUE
    if info.kind in (int, float):
        try:
            value = info.kind(raw)
        except ValueError:
            raise ValueError(f"expected {'a whole number' if info.kind is int else 'a number'}") from None
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("expected a finite number")
        if info.minimum is not None and value < info.minimum:
            raise ValueError(f"must be at least {info.minimum:g}")
        if info.maximum is not None and value > info.maximum:
            raise ValueError(f"must be at most {info.maximum:g}")
    elif info.kind is tuple:
        value = tuple(part.strip() for part in raw.split(",") if part.strip())
    if info.choices and value not in info.choices:
        raise ValueError(f"expected one of {', '.join(info.choices)}")
    return value


def _unknown(name: str, names: set[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"{name}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")

"""Checks a call's arguments against its tool's JSON Schema, in words from which a model can correct itself."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry

from baton_proto.messages import Language, ToolSpec

from .wording import choose, shorten

_SHOWN_CHARS = 80
_TYPES_ZH = {
    "string": "字符串",
    "integer": "整数",
    "number": "数字",
    "boolean": "布尔值",
    "object": "对象",
    "array": "数组",
    "null": "空值",
}


class ArgumentChecker:
    """The checks of one tool. A schema that points to another document is an error: nothing is fetched."""

    def __init__(self, spec: ToolSpec) -> None:
        self._validator = Draft202012Validator(spec.parameters, registry=Registry())
        self._names = sorted(spec.parameters.get("properties", {}))

    def problem(self, arguments: dict[str, Any], language: Language) -> str | None:
        """What is wrong, naming the argument; None when nothing is."""
        error = best_match(self._validator.iter_errors(arguments))
        if error is None:
            return None
        path = ".".join(str(part) for part in error.absolute_path)
        return _missing(error, path, language) or self._extra(error, path, language) or _wrong(error, path, language)

    def _extra(self, error: ValidationError, path: str, language: Language) -> str | None:
        if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
            return None
        schema: Any = error.schema
        known = self._names if not path else sorted(schema.get("properties", {}))
        extra = shorten(", ".join(sorted(set(map(str, error.instance)) - set(known))), _SHOWN_CHARS)
        allowed = ", ".join(known)
        return choose(
            language,
            zh=f"没有参数 {extra}；可用的参数：{allowed or '无'}。",
            en=f"There is no argument {extra}; known arguments: {allowed or 'none'}.",
        )


def _missing(error: ValidationError, path: str, language: Language) -> str | None:
    if error.validator != "required":
        return None
    wanted, found = _rule(error), error.instance
    absent = [name for name in wanted if not isinstance(found, dict) or name not in found]
    names = ", ".join(f"{path}.{name}" if path else name for name in absent)
    return choose(language, zh=f"缺少参数 {names}。", en=f"The argument {names} is missing.")


def _wrong(error: ValidationError, path: str, language: Language) -> str:
    where = path or choose(language, zh="（全部）", en="(all)")
    reason = _reason(error, language) or shorten(error.message, 2 * _SHOWN_CHARS)
    found = shorten(repr(error.instance)[: 2 * _SHOWN_CHARS], _SHOWN_CHARS)
    return choose(
        language,
        zh=f"参数 {where} 有误：{reason}；收到的是 {found}。",
        en=f"The argument {where} is wrong: {reason}; it was {found}.",
    )


def _rule(error: ValidationError) -> Any:
    """What the schema says at the place that was broken; its form depends on the keyword."""
    return error.validator_value


def _reason(error: ValidationError, language: Language) -> str | None:
    """The rule that was broken, for the rules that tools use most."""
    wanted = _rule(error)
    match error.validator:
        case "type":
            kinds: list[str] = wanted if isinstance(wanted, list) else [wanted]
            zh = "或".join(_TYPES_ZH.get(kind, kind) for kind in kinds)
            return choose(language, zh=f"应为{zh}", en=f"expected {' or '.join(kinds)}")
        case "enum":
            allowed = ", ".join(map(str, wanted))
            return choose(language, zh=f"应为其中之一：{allowed}", en=f"expected one of {allowed}")
        case "maxLength":
            return choose(language, zh=f"最多 {wanted} 个字符", en=f"at most {wanted} characters are allowed")
        case "minLength":
            return choose(language, zh=f"至少 {wanted} 个字符", en=f"at least {wanted} characters are needed")
        case "minimum":
            return choose(language, zh=f"不得小于 {wanted}", en=f"must be at least {wanted}")
        case "maximum":
            return choose(language, zh=f"不得大于 {wanted}", en=f"must be at most {wanted}")
        case "pattern":
            return choose(language, zh=f"格式应符合 {wanted}", en=f"must match {wanted}")
        case _:
            return None

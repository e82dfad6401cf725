"""Texts with `{placeholders}`, and what stands in for them: arguments of the model, and who asks.

`{user.sub}` and `{claims.name}` are the user's, from the token; every other name is a parameter of the tool. `{{` and
`}}` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from baton_proto.messages import Language
from services.common.wording import choose, shorten
from services.tools.port import ToolContext, ToolError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Placeholder:
    name: str

    @property
    def is_identity(self) -> bool:
        return is_identity(self.name)


@dataclass(frozen=True, slots=True)
class Template:
    """Literal text and placeholders, in order."""

    parts: tuple[str | Placeholder, ...]

    @property
    def names(self) -> list[str]:
        return [part.name for part in self.parts if isinstance(part, Placeholder)]

    @property
    def only(self) -> str | None:
        """The placeholder's name where the text is nothing but one."""
        return self.names[0] if len(self.parts) == 1 and self.names else None


def is_identity(name: str) -> bool:
    return name == "user" or name.startswith(("user.", "claims.")) or name == "claims"


def parse(text: str) -> Template:
    """Raises ValueError where braces do not match, or hold no name."""
    parts: list[str | Placeholder] = []
    for match in _PIECE.finditer(text):
        piece, name = match[0], match[1]
        if piece in ("{", "}"):
            raise ValueError(f"a brace stands alone in {shorten(text, 80)!r}; write it twice for a literal one")
        if name is None:
            literal = piece[0] if piece in ("{{", "}}") else piece
            if parts and isinstance(parts[-1], str):
                parts[-1] += literal
            else:
                parts.append(literal)
            continue
        if not _NAME.fullmatch(name):
            raise ValueError(f"{{{shorten(name, 60)}}} is no placeholder: its name has letters, digits, _, - and dots")
        parts.append(Placeholder(name))
    return Template(tuple(parts))


class Values:
    """What stands in for placeholders in one call.

    Args:
        defaults: for arguments that the model left out.
    """

    def __init__(self, arguments: Mapping[str, Any], defaults: Mapping[str, Any], context: ToolContext) -> None:
        self._arguments = {**defaults, **arguments}
        self._context = context
        self.language: Language = context.language

    def value(self, name: str) -> Any:
        """None where an argument is absent. Raises ToolError where the token does not say what is asked for."""
        if not is_identity(name):
            return self._arguments.get(name)
        found: Any = self._context.owner if name == "user.sub" else self._context.claims
        for key in name.split(".")[1:] if name != "user.sub" else ():
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is None or found == "":
            raise ToolError(
                choose(
                    self.language,
                    zh=f"您的登录信息中没有 {name}，该工具需要它。",
                    en=f"Your sign-in does not say {name}, which this tool needs.",
                )
            )
        return found

    def text(self, name: str) -> str | None:
        """The value as text; None where it is absent. Raises ToolError where it is a list or a mapping."""
        value = self.value(name)
        return None if value is None else self.as_text(name, value)

    def as_text(self, name: str, value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_EXACT:
            return str(int(value))
        if isinstance(value, int | float):
            return str(value)
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self.unusable(name) from None
            return value
        raise self.unusable(name)

    def fill(self, template: Template) -> str | None:
        """The template's text; None where one of its placeholders is absent."""
        texts = list(self._texts(template))
        return None if None in texts else "".join(text for text in texts if text is not None)

    def _texts(self, template: Template) -> Iterator[str | None]:
        for part in template.parts:
            yield self.text(part.name) if isinstance(part, Placeholder) else part

    def unusable(self, name: str) -> ToolError:
        """The value of `name` cannot stand where it belongs."""
        return ToolError(
            choose(
                self.language,
                zh=f"{name} 的值不能用在这里：不得为空，也不得包含斜杠、控制字符或列表。",
                en=f"The value of {name} cannot be used here: it must not be empty, nor hold slashes, "
                "control characters or lists.",
            )
        )

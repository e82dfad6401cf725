"""Who may call a tool. The generator asks before it offers a tool, and whoever runs the call asks again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baton_proto.messages import ToolSpec


def may_call(spec: ToolSpec, claims: Mapping[str, Any]) -> bool:
    """Whether a user with these claims, which come from the token and never from a model, may call the tool.

    The claim `groups` is a list of names or one name; anything else names no group.
    """
    if not spec.groups:
        return True
    claimed = claims.get("groups")
    names = [claimed] if isinstance(claimed, str) else claimed if isinstance(claimed, list | tuple) else []
    return any(isinstance(name, str) and name in spec.groups for name in names)

"""Who may call a tool. The generator asks before it offers a tool, and whoever runs the call asks again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baton_proto.messages import ToolSpec
from baton_proto.readers import groups_of


def may_call(spec: ToolSpec, claims: Mapping[str, Any]) -> bool:
    """Whether a user with these claims, which come from the token and never from a model, may call the tool."""
    return not spec.groups or not groups_of(claims).isdisjoint(spec.groups)

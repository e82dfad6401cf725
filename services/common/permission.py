"""Who may call a tool. The generator offers by it, and whoever runs a call checks it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baton_proto.messages import ToolSpec


def may_call(spec: ToolSpec, claims: Mapping[str, Any]) -> bool:
    """Whether a user with these token claims may call the tool: its `groups` are for those whose claim `groups`, a list
    of text or one text, names one of them. A tool without `groups` is for everybody."""
    if not spec.groups:
        return True
    groups = claims.get("groups")
    if isinstance(groups, str):
        groups = [groups]
    return isinstance(groups, list | tuple) and any(isinstance(one, str) and one in spec.groups for one in groups)

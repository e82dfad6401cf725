"""Who may call a tool."""

from __future__ import annotations

from typing import Any

import pytest

from baton_proto.messages import ToolSpec
from services.common.permission import may_call

HR = ToolSpec(name="salaries", description="", parameters={"type": "object"}, groups=["hr", "board"])


@pytest.mark.parametrize(
    ("claims", "allowed"),
    [
        ({"groups": ["hr"]}, True),
        ({"groups": ["staff", "board"]}, True),
        ({"groups": "hr"}, True),
        ({"groups": ["staff"]}, False),
        ({"groups": "hr board"}, False),
        ({"groups": []}, False),
        ({"groups": None}, False),
        ({"groups": {"hr": True}}, False),
        ({"groups": [["hr"], 1]}, False),
        ({"group": "hr", "sub": "hr"}, False),
        ({}, False),
    ],
)
def test_a_tool_with_groups_is_for_users_whose_token_names_one(claims: dict[str, Any], allowed: bool) -> None:
    assert may_call(HR, claims) is allowed
    assert may_call(ToolSpec(name="clock", description="", parameters={}), claims) is True

"""Golden vectors of principals, and of what they may read."""

from __future__ import annotations

from typing import Any

from baton_proto.readers import EVERYBODY, MAX_PRINCIPAL_CHARS, MAX_PRINCIPALS, may_read, principals

from .samples import Case

_DOCUMENTS = {
    "everybody's": [EVERYBODY],
    "ann's": ["user:ann"],
    "of hr": ["group:hr"],
    "ann's and of hr": ["group:hr", "user:ann"],
    "nobody's": [],
}
_TOKEN = {"sub": "ann", "exp": 1_800_000_000}
_LONGEST_GROUP = "g" * (MAX_PRINCIPAL_CHARS - len("group:"))
_MANY = [f"g{number}" for number in range(MAX_PRINCIPALS + 50, 0, -1)]

_REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("nobody is known without claims", "ann", {}),
    ("a user", "ann", _TOKEN),
    ("the owner counts, not the claim sub", "ann", {**_TOKEN, "sub": "bob"}),
    ("a member", "carol", {"groups": ["hr", "sales"]}),
    ("one group as a text", "carol", {"groups": "hr"}),
    ("a text is one name, not a list of them", "carol", {"groups": "hr,sales"}),
    ("a group twice", "carol", {"groups": ["hr", "hr"]}),
    ("no groups", "ann", {"groups": []}),
    ("nil for groups", "ann", {"groups": None}),
    ("a number for groups", "ann", {"groups": 7}),
    ("a map for groups", "ann", {"groups": {"hr": True}}),
    ("what is no text names no group", "ann", {"groups": [1, 1.5, True, None, ["hr"], {"name": "hr"}, "ok"]}),
    ("other claims name no groups", "ann", {"group": ["hr"], "roles": ["hr"], "readers": ["group:hr"], "scope": "hr"}),
    ("a group named like a user", "mallory", {"groups": ["user:ann"]}),
    ("a group named like a group", "mallory", {"groups": ["group:hr"]}),
    ("a group named everybody", "mallory", {"groups": ["everybody"]}),
    ("a user named like a user", "user:ann", _TOKEN),
    ("a user named everybody", "everybody", _TOKEN),
    ("case counts", "Ann", {"groups": ["HR"]}),
    ("blanks count", " ann", {"groups": ["hr ", " hr", " "]}),
    ("another Unicode form is another name", "a\u0301nn", {"groups": ["\u0435ngineering", "\uff48\uff52", "h\u200br"]}),
    ("names of any script", "张三", {"groups": ["人事部", "Личный состав"]}),
    ("an empty name is none", "", {"groups": ["", "hr"]}),
    ("control characters make no name", "ann\n", {"groups": ["hr\x00", "hr\r\n", "h\tr", "hr\x7f", "hr\u2028", "ok"]}),
    ("the longest name", "ann", {"groups": [_LONGEST_GROUP]}),
    ("one character too long", "ann", {"groups": [_LONGEST_GROUP + "g"]}),
    ("length is in characters", "ann", {"groups": ["部" * len(_LONGEST_GROUP), "部" * (len(_LONGEST_GROUP) + 1)]}),
    ("too many groups", "ann", {"groups": _MANY}),
    ("too many groups, the user has no name", "", {"groups": _MANY}),
]


def reader_cases() -> list[Case]:
    """Who a request stands for, and which documents that may read; principals in the order of their code points."""
    cases: list[Case] = []
    for name, owner, claims in _REQUESTS:
        who = principals(owner, claims)
        cases.append(
            {
                "name": name,
                "owner": owner,
                "claims": claims,
                "principals": sorted(who),
                "documents": [
                    {"readers": readers, "may_read": may_read(readers, who)} for readers in _DOCUMENTS.values()
                ],
            }
        )
    return cases

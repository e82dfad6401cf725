"""From a setting to what it names: one of ours, or `module:attribute` of anybody's."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TypeVar

from services.common.settings import SettingsError

T = TypeVar("T")


def named(setting: str, name: str, shipped: Mapping[str, T]) -> T:
    """What a setting names.

    Raises:
        SettingsError: it leads nowhere.
    """
    if name in shipped:
        return shipped[name]
    module, _, attribute = name.partition(":")
    try:
        found: T = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        known = ", ".join(shipped)
        raise SettingsError([f"{setting}={name!r}: expected none, {known} or module:attribute ({error})"]) from None
    return found

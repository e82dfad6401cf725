"""Prometheus's own checker."""

from __future__ import annotations

import shutil


def promtool() -> str:
    """Where promtool is. Fails plainly where it is not: `make test` installs it where it may."""
    found = shutil.which("promtool")
    if found is None:
        raise AssertionError("promtool is missing: install Debian's package 'prometheus', or Prometheus's own archive")
    return found

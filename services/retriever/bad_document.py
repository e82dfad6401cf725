"""The one error of extraction."""

from __future__ import annotations


class BadDocument(Exception):
    """A file that cannot be ingested; the text says why, and what to do about it where that is known."""

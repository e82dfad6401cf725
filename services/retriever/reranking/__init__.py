"""Rerankers: the port, what implements it, and what the settings name, opened."""

from __future__ import annotations

from .opening import open_reranker
from .port import Reranker

__all__ = ["Reranker", "open_reranker"]

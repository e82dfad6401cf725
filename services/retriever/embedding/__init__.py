"""Embeddings: the port, what implements it, and what the settings name, opened."""

from __future__ import annotations

from .opening import open_embedder
from .port import Embedder, Embedding

__all__ = ["Embedder", "Embedding", "open_embedder"]

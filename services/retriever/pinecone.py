"""The retriever on Pinecone, under the name that `BATON_RETRIEVER` gives it."""

from __future__ import annotations

from .store_retriever import open_retriever

__all__ = ["open_retriever"]

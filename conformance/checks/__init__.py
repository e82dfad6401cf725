"""The promises of proto/README.md, each a function that finds out whether a worker keeps it; its docstring says it."""

from . import endings, generator, items, presence, process, references, retriever, succession, tools, variants

__all__ = [
    "endings",
    "generator",
    "items",
    "presence",
    "process",
    "references",
    "retriever",
    "succession",
    "tools",
    "variants",
]

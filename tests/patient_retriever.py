"""The retriever as a process, for tests of a whole system: it waits for the corpus version. By itself it gives up after
a fifth of a second, which a busy machine takes now and then, and what it finds is nobody's version and is not kept."""

from __future__ import annotations

import runpy

from services.retriever import corpus

corpus.WAIT_S = corpus.FIRST_WAIT_S = 5.0

if __name__ == "__main__":
    runpy.run_module("services.retriever", run_name="__main__")

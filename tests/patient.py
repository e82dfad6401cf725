"""A service as a process, for tests of a whole system: `python -m tests.patient services.retriever`. It waits for the
corpus version and for the cache. By itself it gives up after a fifth of a second and less, which a busy machine takes
now and then: what it finds then is nobody's version and is not kept, and what was kept is worked out again."""

from __future__ import annotations

import runpy
import sys

from services.common import cache
from services.retriever import corpus

corpus.WAIT_S = corpus.FIRST_WAIT_S = 5.0
cache.GET_TIMEOUT_S = 5.0

if __name__ == "__main__":
    service = sys.argv.pop(1)
    runpy.run_module(service, run_name="__main__")

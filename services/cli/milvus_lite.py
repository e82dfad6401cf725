"""Milvus Lite's server, with small and large segments of a collection merged alike.

Lite knows for each segment alone how rare a word is, so what lies in a small one is ranked far too low: a document
about a person, say, where every passage of its segment has the name. By itself Lite merges files of like size only, and
a few late documents stay beside a large segment. With one size for all, the flushes of `MilvusStore.settle` merge
everything (up to Lite's 100,000 rows in a segment).
"""

from __future__ import annotations

import sys

from milvus_lite.cmdline import main
from milvus_lite.engine import compaction

if __name__ == "__main__":
    compaction.COMPACTION_BUCKET_BOUNDARIES = []
    sys.exit(main())

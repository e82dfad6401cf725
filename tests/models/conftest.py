"""These tests need servers that take minutes to build: `make test-models` names their folder; others leave them out."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TEST_MODELS") else ["test_*.py"]

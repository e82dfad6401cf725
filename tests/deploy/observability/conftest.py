"""These tests need a Prometheus and the SDK of the dashboards, and take a minute: `make test-deploy` runs them."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TEST_DEPLOY") else ["test_*.py"]

"""These tests need tools of their own: `make test-deploy` names their folder; others leave them out."""

from __future__ import annotations

import os

import pytest

from tests.deploy.manifests import Manifests, render

collect_ignore_glob = [] if os.environ.get("TEST_DEPLOY") else ["test_*.py"]


@pytest.fixture(scope="session", params=["dev", "dev+canary", "prod", "prod+canary-autoscaling"])
def overlay(request: pytest.FixtureRequest) -> Manifests:
    """Each overlay, as a cluster would be given it, without and with a canary."""
    return render(request.param)


@pytest.fixture(scope="session", params=["prod", "prod+canary-autoscaling"])
def prod(request: pytest.FixtureRequest) -> Manifests:
    return render(request.param)

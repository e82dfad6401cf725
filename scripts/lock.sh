#!/usr/bin/env bash
# Resolves pyproject.toml, and what `make test-deploy` uses, into lock files: every version pinned, every file by hash, for
# every platform and every supported Python. Versions that are already locked stay; --upgrade moves them to the newest ones.
#
# The resolver is uv, in a place of its own (.make/lock): Baton itself installs with plain pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tool=.make/lock
[ -x $tool/bin/uv ] || { "${PYTHON:-python3}" -m venv $tool && $tool/bin/python -m pip install --quiet 'uv>=0.8'; }

resolve() {
    # No index address may stand in a lock: the reader's own pip settings decide where files come from, the hashes what
    # they are.
    $tool/bin/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header --no-annotate "$@"
}

resolve "$@" --group pyproject.toml:build -o requirements-build.lock
resolve "$@" pyproject.toml -c requirements-build.lock -o requirements.lock
resolve "$@" pyproject.toml --extra dev -c requirements-build.lock -c requirements.lock -o requirements-dev.lock
resolve "$@" tests/deploy/requirements.in -o tests/deploy/requirements.lock

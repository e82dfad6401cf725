#!/usr/bin/env bash
# Makes Grafana's dashboards anew from deploy/grafana, with the SDK for them in .make/grafana/venv.
#
#   scripts/dashboards.sh         the dashboards
#   scripts/dashboards.sh tools   only the SDK, for the tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$PWD/.make/grafana/venv
lock=deploy/grafana/requirements.lock
stamp=$(printf '%s\n' "$PWD"; cksum "$lock")

if [ "$(cat "$venv/.made" 2>/dev/null)" != "$stamp" ]; then
    echo "Installing Grafana's SDK in .make/grafana (once; a few seconds) …" >&2
    rm -rf "$venv"
    .venv/bin/python -m venv --without-pip "$venv"
    .venv/bin/python -m pip --python "$venv/bin/python" install -qq --disable-pip-version-check --no-input --no-deps \
        --require-hashes -r "$lock"
    printf '%s\n' "$stamp" >"$venv/.made"
fi

if [ "${1:-}" != tools ]; then
    (cd deploy/grafana && ../../.venv/bin/mypy --config-file= --cache-dir=../../.mypy_cache --strict \
        --python-executable "$venv/bin/python" ./*.py)
    "$venv/bin/python" deploy/grafana/make.py deploy/grafana/dashboards
fi

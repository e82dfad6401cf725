#!/usr/bin/env bash
# Makes Grafana's dashboards anew from deploy/grafana, with the SDK for them in .make/grafana/venv.
#
#   scripts/dashboards.sh         the dashboards
#   scripts/dashboards.sh tools   only the SDK, for the tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD/.make/grafana
venv=$root/venv
lock=deploy/grafana/requirements.lock
. scripts/made.sh

if ! is_made venv "$lock"; then
    say "Installing Grafana's SDK in .make/grafana (once; a few seconds) …"
    rm -rf "$venv"
    .venv/bin/python -m venv --without-pip "$venv"
    again .venv/bin/python -m pip --python "$venv/bin/python" install -qq --disable-pip-version-check --no-input --no-deps \
        --require-hashes --only-binary :all: -r "$lock"
    made venv "$lock"
fi

if [ "${1:-}" != tools ]; then
    (cd deploy/grafana && ../../.venv/bin/mypy --config-file= --cache-dir=../../.mypy_cache --strict \
        --python-executable "$venv/bin/python" ./*.py)
    "$venv/bin/python" deploy/grafana/make.py deploy/grafana/dashboards
fi

#!/usr/bin/env bash
# Makes .venv, or brings it up to date, with exactly what the lock files name.
#
#   scripts/setup.sh run     what Baton needs to run
#   scripts/setup.sh dev     that, and what its checks and tests need
#
# A second call returns at once. A .venv that was interrupted half-way, that belongs to another checkout or whose Python
# has gone is made anew. PYTHON=… chooses the Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

set_name=${1:-run}
venv=.venv
unfinished=$venv/.unfinished

. scripts/made.sh
die() { say "$@"; exit 1; }

case $set_name in
    run) lock=requirements.lock ;;
    dev) lock=requirements-dev.lock ;;
    *) die "usage: scripts/setup.sh run|dev" ;;
esac

# What a finished .venv was made from. The path is part of it, because scripts in a .venv name their own place.
fingerprint() {
    printf '%s\n' "$PWD"
    cksum pyproject.toml requirements-build.lock "$1"
}

is_current() {
    [ ! -e "$unfinished" ] && [ -x $venv/bin/python ] && [ -x $venv/bin/baton ] &&
        [ "$(cat "$venv/.made-$set_name" 2>/dev/null)" = "$(fingerprint "$lock")" ]
}

is_usable() {
    [ ! -e "$unfinished" ] && [ "$(cat $venv/.made-for 2>/dev/null)" = "$PWD" ] &&
        $venv/bin/python -m pip --version >/dev/null 2>&1
}

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the Python to use. A name on the PATH is not enough: it has to run, be new enough and be complete.
find_python() {
    local candidate version seen="" incomplete=""
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python python3.14}; do
        version=$(version_of "$candidate") || continue
        if ! is_new_enough "$candidate"; then
            seen="$seen $candidate ($version)"
        elif can_make_venv "$candidate"; then
            printf '%s\n' "$candidate"
            return
        else
            incomplete=${incomplete:-$candidate}
        fi
    done
    if [ -n "$incomplete" ]; then
        version=$(version_of "$incomplete")
        die "$incomplete cannot make a virtual environment: its venv or ensurepip module is missing." \
            "Debian, Ubuntu: apt install python${version%.*}-venv"
    fi
    if [ -n "${PYTHON:-}" ]; then
        die "PYTHON=$PYTHON is not a Python 3.11 or newer${seen:+: found$seen}."
    fi
    die "Baton needs Python 3.11 or newer.${seen:+ Found only:$seen.}" \
        "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13)," \
        "or name yours: make run PYTHON=/path/to/python3"
}

pip_install() {
    if ! again $venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@"; then
        die "Installing the Python packages failed; the reason is above." "Put it right and run the same command again."
    fi
}

is_current && exit 0

if ! is_usable; then
    python=$(find_python)
    say "Making .venv with $python ($(version_of "$python")) …"
    rm -rf $venv
    mkdir $venv
    touch "$unfinished"
    "$python" -m venv $venv
    printf '%s\n' "$PWD" >$venv/.made-for
fi

say "Installing the packages of $lock (once; about 150 MB, a minute or two) …"
touch "$unfinished"
pip_install --require-hashes -r requirements-build.lock
# --use-pep517 and --no-build-isolation: what has to be built is built with the locked tools above.
# --no-compile: compiling every module ahead takes longer than all the rest, and Python compiles what it uses.
pip_install --require-hashes --no-deps --use-pep517 --no-build-isolation --no-compile -r "$lock"
pip_install --no-deps --no-build-isolation --editable .
fingerprint "$lock" >"$venv/.made-$set_name"
if [ "$set_name" = dev ]; then fingerprint requirements.lock >$venv/.made-run; fi # it holds all of that
rm "$unfinished"

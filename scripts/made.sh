# To be sourced. With the variable `root` set: parts of that folder, each made once and again only when the files that it is
# made from have changed, or when it was made for another place.

say() { printf '%s\n' "$@" >&2; }

# again COMMAND…: runs it, and where it fails up to twice more: an index or a network that stumbles is no reason to stop.
again() {
    local pause
    for pause in 5 20; do
        "$@" && return
        say "That failed; once more in $pause s …"
        sleep "$pause"
    done
    "$@"
}

# is_made PART FILES…: whether a part is there and was made from these files, in this place.
stamp_of() { printf '%s\n' "$PWD"; cksum "$@"; }
is_made() { [ "$(cat "$root/.made-$1" 2>/dev/null)" = "$(stamp_of "${@:2}")" ]; }
made() { stamp_of "${@:2}" >"$root/.made-$1"; }

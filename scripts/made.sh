# To be sourced, with the variable `root` set: parts of that folder, each made once and again only when the files that it is
# made from have changed, or when it was made for another place.

say() { printf '%s\n' "$@" >&2; }

# is_made PART FILES…: whether a part is there and was made from these files, in this place.
stamp_of() { printf '%s\n' "$PWD"; cksum "$@"; }
is_made() { [ "$(cat "$root/.made-$1" 2>/dev/null)" = "$(stamp_of "${@:2}")" ]; }
made() { stamp_of "${@:2}" >"$root/.made-$1"; }

#!/usr/bin/env bash
# Compares our graph with hnswlib on the same rows in one run, one thread each.
#
#   benches/peers/search/run.sh [--rows N] [--dim D] [--queries N] [--rounds N]
#                               [--json FILE] [--busy-ok]
#
# Needs Rust, Python 3.11 or later with venv, and a C++ compiler. Figures mean little on a busy
# machine: above a load of 1.5 it refuses, unless told --busy-ok.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
venv="$target/peers/search-venv"

# Before anything is built, since building is load, too.
python3 "$here/compare.py" --check "$@"

if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi
(cd "$root" && CARGO_TARGET_DIR="$target" cargo build --release --package benches --bin search_rows)
exec "$venv/bin/python" "$here/compare.py" --binary "$target/release/search_rows" "$@"

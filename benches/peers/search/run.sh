#!/usr/bin/env bash
# Compares our graph with hnswlib, faiss, usearch and ScaNN on the same rows in one run, one thread
# each.
#
#   benches/peers/search/run.sh [--rows N] [--dim D] [--queries N] [--rounds N] [--peers A,B]
#                               [--json FILE] [--plot FILE.svg] [--markdown FILE] [--busy-ok]
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

wanted="$(cat "$here/requirements.txt" "$here/requirements-scann.txt")"
if [ "$wanted" != "$(cat "$venv/installed.txt" 2>/dev/null)" ]; then
    python3 -m venv --clear "$venv"
    pip() { "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
    pip -r "$here/requirements.txt"
    # Where it has no wheel the others are compared, and the figures say why it is missing.
    if ! failed="$(pip --only-binary :all: -r "$here/requirements-scann.txt" 2>&1)"; then
        grep -m 1 '^ERROR' <<<"$failed" >"$venv/scann.txt" || echo "$failed" >"$venv/scann.txt"
    fi
    echo "$wanted" >"$venv/installed.txt"
fi
(cd "$root" && CARGO_TARGET_DIR="$target" cargo build --release --package benches --bin search_rows)
exec "$venv/bin/python" "$here/compare.py" \
    --binary "$target/release/search_rows" --cache "$target/peers" "$@"

#!/usr/bin/env bash
# Exports and imports with the real libraries, in a virtual environment of their own:
#
#     tests/reference/exchange/run.sh [PROGRAM]     the `diptych` to check [default: built here]
#
# CI does not run it; it reads the files that `fixtures` wrote, see exchange/tests/foreign.rs.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$here/../../.."
venv="${DIPTYCH_EXCHANGE_VENV:-$here/.venv}"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
if [ $# = 0 ]; then
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --package diptych
    set -- "${CARGO_TARGET_DIR:-$root/target}/release/diptych"
fi
"$venv/bin/python" "$here/check.py" check "$1"

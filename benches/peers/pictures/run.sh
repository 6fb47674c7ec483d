#!/usr/bin/env bash
# Compares how fast we and transformers bring picture files to what CLIP sees, one thread each.
#
#   benches/peers/pictures/run.sh FOLDER [--rounds N] [--json FILE] [--busy-ok]
#
# Needs Rust, and Python 3.11 or later with venv. Figures mean little on a busy machine: above a load of
# 1.5 it refuses, unless told --busy-ok. DIPTYCH_PEERS_PYTHON names a Python that has the packages of
# requirements.txt already.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
venv="$target/peers/pictures-venv"
python="${DIPTYCH_PEERS_PYTHON:-$venv/bin/python}"

python3 "$here/compare.py" --check "$@"
if [ -z "${DIPTYCH_PEERS_PYTHON:-}" ] \
    && ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi
binary="$(cd "$root" && CARGO_TARGET_DIR="$target" cargo bench --no-run --message-format json \
    --package benches --bench ingest_photos \
    | grep -o '"executable":"[^"]*ingest_photos[^"]*"' | tail -n 1 | cut -d '"' -f 4)"
exec "$python" "$here/compare.py" --binary "$binary" "$@"

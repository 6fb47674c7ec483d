#!/usr/bin/env bash
# Compares the steps of our trainer with those of PyTorch: the same two towers, batch and threads.
#
#   benches/peers/training/run.sh [--threads 1,2] [--batch 256] [--rounds N] [--steps N]
#                                 [--json FILE] [--markdown FILE] [--busy-ok]
#
# Needs Rust, Python 3.11 or later with venv, and 6 GB of disk. torch comes with the libraries of GPUs
# unless pip is told of an index of its CPU builds (PIP_EXTRA_INDEX_URL). Figures mean little on a busy
# machine: above a load of 1.5 it refuses, unless told --busy-ok. DIPTYCH_PEERS_PYTHON names a Python
# that has the packages of requirements.txt already.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
venv="$target/peers/training-venv"
python="${DIPTYCH_PEERS_PYTHON:-$venv/bin/python}"

python3 "$here/compare.py" --check "$@"
if [ -z "${DIPTYCH_PEERS_PYTHON:-}" ] \
    && ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi
(cd "$root" && CARGO_TARGET_DIR="$target" cargo build --release --package training)
exec "$python" "$here/compare.py" --binary "$target/release/diptych-train" "$@"

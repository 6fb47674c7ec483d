#!/usr/bin/env bash
# Compares our towers with those of ONNX Runtime, OpenVINO and torch on the same random CLIP and
# SigLIP checkpoints in one run: speed, processor time and accuracy.
#
#   benches/peers/encoders/run.sh [--models clip,siglip] [--threads 1,2] [--batches 1,8,32]
#                                 [--rounds N] [--engines A,B] [--json FILE] [--markdown FILE]
#                                 [--mark WORD] [--quick] [--busy-ok]
#   benches/peers/encoders/run.sh --startup [--json FILE]
#
# Needs Rust, Python 3.11 or later with venv, 12 GB of disk and 8 GB of memory. torch comes with the
# libraries of GPUs unless pip is told of an index of its CPU builds (PIP_EXTRA_INDEX_URL). Figures
# mean little on a busy machine: above a load of 1.5 it refuses, unless told --busy-ok.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
venv="$target/peers/encoders-venv"

# Before anything is built, since building is load, too.
python3 "$here/compare.py" --check "$@"

wanted="$(cat "$here/requirements.txt")"
if [ "$wanted" != "$(cat "$venv/installed.txt" 2>/dev/null)" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    echo "$wanted" >"$venv/installed.txt"
fi
(cd "$root" && CARGO_TARGET_DIR="$target" \
    cargo build --release --package benches --features encoders --bin encode_rows)
exec "$venv/bin/python" "$here/compare.py" \
    --binary "$target/release/encode_rows" --cache "$target/peers/encoders" "$@"

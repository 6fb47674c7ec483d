#!/usr/bin/env bash
# Compares `diptych serve` with what people build of transformers, FastAPI and hnswlib: the same model,
# pictures and queries, over HTTP.
#
#   benches/peers/service/run.sh [--pictures FOLDER] [--model FOLDER] [--precision auto,f32] [--rounds N]
#                                [--json FILE] [--markdown FILE] [--busy-ok]
#
# Without --model it is a random CLIP ViT-B/32 (made by benches/peers/encoders/models.py), without --pictures
# the gallery of `diptych demo`, 3,944 drawings. Needs Rust, Python 3.11 or later with venv, and 6 GB of
# disk. Figures mean little on a busy machine: above a load of 1.5 it refuses, unless told --busy-ok.
# DIPTYCH_PEERS_PYTHON names a Python that has the packages of requirements.txt already.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
venv="$target/peers/service-venv"
python="${DIPTYCH_PEERS_PYTHON:-$venv/bin/python}"

python3 "$here/compare.py" --check "$@"
if [ -z "${DIPTYCH_PEERS_PYTHON:-}" ] \
    && ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi
(cd "$root" && CARGO_TARGET_DIR="$target" cargo build --release --package diptych)
exec "$python" "$here/compare.py" --binary "$target/release/diptych" "$@"

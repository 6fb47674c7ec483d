#!/usr/bin/env bash
# Loads `diptych serve` with searches among 100,000 items of the built-in model: by embedding, by text, by text
# while items are added, and with three times what it can do.
#
#   benches/load/run.sh [--items N] [--seconds N] [--clients N] [--json FILE] [--markdown FILE] [--busy-ok]
#
# Needs Rust and Python 3.11 or later. The load generator, oha, is built into the target folder. It runs on the same cores
# as the service. Figures mean little on a busy machine: above a load of 1.5 it refuses, unless told --busy-ok.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac

python3 "$here/load.py" --check "$@"
[ -x "$target/load/bin/oha" ] \
    || cargo install --quiet --locked --version 1.16.0 oha --root "$target/load" --target-dir "$target/load/build"
(cd "$root" && CARGO_TARGET_DIR="$target" cargo build --release --package diptych)
exec python3 "$here/load.py" --binary "$target/release/diptych" --oha "$target/load/bin/oha" "$@"

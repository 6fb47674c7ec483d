#!/usr/bin/env bash
# Makes the built-in model from nothing: fetch, prepare, train three times, export. Three to four hours on two cores.
# Run it from the root of the repository; it goes on where it was stopped. Needs npm, tar and
# sha256sum besides the Rust toolchain.
set -euo pipefail

# The configurations name it, too.
work=target/mini
recipe=training/recipes/mini

[ -f "$work/raw/complete" ] || bash "$recipe/fetch.sh" "$work/raw"
# The trainer runs on the machine that builds it: let it use all of its instructions.
RUSTFLAGS="-C target-cpu=native" cargo build --release -p training --target-dir target/native
trainer=target/native/release/diptych-train

[ -f "$work/pictures/manifest.jsonl" ] || "$trainer" prepare --raw "$work/raw" --out "$work/pictures"

# Every step frees and takes a gigabyte: kept by the process, it need not be cleared again each time.
export GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1
# Idle workers sleep instead of taking the core from busy ones.
export CANDLE_BARRIER_POOL_SPIN_LIMIT=1
"$trainer" fit --config "$recipe/mini.toml" --run "$work/run"

# CC BY 4.0 asks for attribution (EmojiOne); the other sources are MIT and Apache 2.0.
model() {
    "$trainer" export --license "CC-BY-4.0" --description "$recipe/description.txt" "$@"
}
# kept CONFIG RUN OUT: the model that the next part begins with.
kept() {
    if [ ! -d "$3" ]; then
        rm -rf "$3.partial"
        model --config "$1" --run "$2" --out "$3.partial"
        mv "$3.partial" "$3"
    fi
}
kept "$recipe/mini.toml" "$work/run" "$work/first"
"$trainer" fit --config "$recipe/again.toml" --run "$work/again"
kept "$recipe/again.toml" "$work/again" "$work/second"
"$trainer" fit --config "$recipe/more.toml" --run "$work/more"
model --config "$recipe/more.toml" --run "$work/more" --out encoders/builtin --whiten .03 --specific-dim 384

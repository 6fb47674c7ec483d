#!/usr/bin/env bash
# What is written for 64-bit ARM, tested on any Linux in an emulator: every kernel against plain code and
# against the reference networks, on emulated CPUs with and without the newer instructions.
#
#     tests/aarch64/run.sh [MORE ARGUMENTS OF CARGO TEST]
#
# Without arguments the kernels of `encoders` and `engine` and the pictures are tested; with arguments
# those tests, such as `-p encoders --test parity`. It says nothing about speed. On Debian or Ubuntu:
#
#     apt-get install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user-static
#     rustup target add aarch64-unknown-linux-gnu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=aarch64-unknown-linux-gnu
libraries=/usr/aarch64-linux-gnu

missing=()
for tool in aarch64-linux-gnu-gcc aarch64-linux-gnu-g++ qemu-aarch64-static; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
sysroot="$("${RUSTC:-rustc}" --print sysroot)"
[ -d "$sysroot/lib/rustlib/$target" ] || missing+=("the standard library for $target in $sysroot")
if [ "${#missing[@]}" -gt 0 ]; then
    printf 'missing: %s\n' "${missing[@]}" >&2
    exit 1
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
# A folder of its own: what runs on this machine at build time would be built again and again otherwise.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/aarch64"
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=false

# NEON alone; with products of bytes; with products of bfloat16, too.
for cpu in cortex-a72 neoverse-n1 max; do
    echo "== $cpu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $cpu -L $libraries"
    if [ "$#" -gt 0 ]; then
        cargo test --target "$target" "$@"
    else
        cargo test --target "$target" -p encoders -p engine --lib -- cpu:: kernel:: codes:: short:: picture::
    fi
done

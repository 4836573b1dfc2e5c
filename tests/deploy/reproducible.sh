#!/usr/bin/env bash
# deploy/build.sh gives the same bytes twice: from two clean checkouts in different places, with nothing built before. How much
# is optimised decides how long it takes and nothing else, so it is little.
set -eu -o pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset SOURCE_DATE_EPOCH
for place in one another/place; do
    git clone --quiet --no-hardlinks . "$work/$place"
    CARGO_TARGET_DIR=$work/$place-target HAFT_BUILD_QUICKLY=1 bash "$work/$place/deploy/build.sh" "$work/$place-out"
done
diff "$work/one-out/SHA256SUMS" "$work/another/place-out/SHA256SUMS" || { echo "they differ" && exit 1; }

#!/usr/bin/env bash
# The program that deploy/build.sh makes: small, static, and at work on a root that has nothing else, not as root; with /proc
# and /dev/null its guardian works as well.
#
#     bash tests/deploy/static.sh FOLDER
set -eu -o pipefail
source "$(dirname "$0")/lib.sh"
readonly LARGEST=$((12 << 20))
program=$(echo "$1"/haft-*-linux-x64)
work=$(mktemp -d)
haft=
trap '[[ -z $haft ]] || kill -KILL $haft 2>/dev/null; umount "$work/root/proc" 2>/dev/null; rm -rf --one-file-system "$work"' EXIT
die() { echo "$*" && exit 1; }

size=$(stat -c %s "$program")
echo "figure: size of the program: $((size / 1024)) KiB"
((size <= LARGEST)) || die "it is larger than $LARGEST bytes"
! readelf -ldW "$program" | grep -E 'INTERP|NEEDED' || die "it is not static"
! grep -aqF "$PWD" "$program" || die "it holds the path that it was built at"
(cd "$1" && sha256sum --check --quiet SHA256SUMS)

# Starts haft on the root, asks it for a page, and stops it.
serve() {
    local page port
    port=$(free_port)
    chroot --userspec=65532:65532 "$work/root" /haft -w 2 -l "127.0.0.1:$port" 2>"$work/log" &
    haft=$!
    page=$(page "http://127.0.0.1:$port/" $haft "$work/log")
    [[ $page == *socket.io* ]] || { cat "$work/log" && die "no page is served"; }
    served=$(date +%s.%N)
    kill $haft && wait $haft || { cat "$work/log" && die "it did not stop well"; }
    haft=
}

began=$(date +%s.%N)
mkdir "$work/root" && cp "$program" "$work/root/haft" && chmod 755 "$work" "$work/root" "$work/root/haft"
serve
echo "figure: from the static program to a served page, on an empty root: $(awk "BEGIN { printf \"%.1f\", $served - $began }") s"
mkdir "$work/root/proc" "$work/root/dev" && mount -t proc proc "$work/root/proc" && mknod -m 666 "$work/root/dev/null" c 1 3
serve
! grep 'guardian process cannot be started' "$work/log" || die "the guardian lacks something"

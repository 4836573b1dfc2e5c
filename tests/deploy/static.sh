#!/usr/bin/env bash
# The program that deploy/build.sh makes: small, static, and at work on a root that has nothing else, not as root; with /proc
# and /dev/null its guardian works as well, and with --user its workers are another user's, whatever nsswitch.conf names.
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

# Starts haft on the root as a user, asks it for a page, and stops it. `workers`: the users of the processes that it starts.
serve() {
    local page port user=$1
    port=$(free_port)
    chroot --userspec="$user" "$work/root" /haft -w 2 -l "127.0.0.1:$port" "${@:2}" 2>"$work/log" &
    haft=$!
    page=$(page "http://127.0.0.1:$port/" $haft "$work/log")
    [[ $page == *socket.io* ]] || { cat "$work/log" && die "no page is served"; }
    workers=$(ps -o uid= --ppid $haft | tr -s ' \n' ' ')
    served=$(date +%s.%N)
    kill $haft && wait $haft || { cat "$work/log" && die "it did not stop well"; }
    haft=
}

began=$(date +%s.%N)
mkdir "$work/root" && cp "$program" "$work/root/haft" && chmod 755 "$work" "$work/root" "$work/root/haft"
serve 65532:65532
echo "figure: from the static program to a served page, on an empty root: $(awk "BEGIN { printf \"%.1f\", $served - $began }") s"
mkdir "$work/root/proc" "$work/root/dev" && mount -t proc proc "$work/root/proc" && mknod -m 666 "$work/root/dev/null" c 1 3
serve 65532:65532
! grep 'guardian process cannot be started' "$work/log" || die "the guardian lacks something"

# What nsswitch.conf names beside files would be loaded from the host, and end the program: here by exit code 99.
mkdir "$work/root/etc" "$work/root/lib"
printf '%s: trap files\n' passwd group initgroups hosts >"$work/root/etc/nsswitch.conf"
echo 'app:x:7070:7070::/:/none' >"$work/root/etc/passwd"
printf '%s\n' app:x:7070: more:x:7071:app >"$work/root/etc/group"
echo '__attribute__((constructor)) static void end(void) { __asm__ volatile("syscall" : : "a"(231), "D"(99)); }' |
    cc -shared -fPIC -nostdlib -x c -o "$work/root/lib/libnss_trap.so.2" -
serve 0:0 --user app
[[ $workers == *7070*7070* ]] || { cat "$work/log" && die "the workers are those of users $workers"; }
code=0
chroot "$work/root" /haft --user nosuch -l 127.0.0.1:0 2>"$work/log" || code=$?
[[ $code == 2 ]] && grep -q 'nosuch: this host has no such user; see /etc/passwd (a static program' "$work/log" ||
    { cat "$work/log" && die "exit code $code"; }

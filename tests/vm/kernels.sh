#!/usr/bin/env bash
# haft on Debian 12's kernel (6.1) and on the newest one that Debian has: hand-over, kernel dispatch against its model, redelivery after
# a worker's death, session affinity with Node.
#
#     bash tests/vm/kernels.sh HAFT

set -eu -o pipefail
here=$(dirname "$0")
source "$here/vm.sh"
target=${TARGET:-${CARGO_TARGET_DIR:-$PWD/target}}
work=$(mktemp -d "${TMPDIR:-/tmp}/haft-vm.XXXXXX")
root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT

# The integration tests as one program, which wants haft and its own folder where they were when it was built.
program=$(cargo test --locked --test it --no-run --message-format=json 2>"$work/cargo" | sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p') ||
    { cat "$work/cargo" && exit 1; }
vm_root "$root"
install -D -s "$program" "$root/tests/it"
install -D -s "$target/debug/haft" "$root$target/debug/haft"
install -D "$1" "$root/usr/bin/haft"
mkdir -p "$root$PWD/tests" "$root/srv/chat"
cp -r tests/it "$root$PWD/tests/it"
cp -r examples "$root$PWD/examples"
cp "$here"/inside/*.py "$root/tests"
cp "$here/inside/program.cjs" "$root/srv/chat/server.cjs"
vm_socket_io "$root/srv/chat"
printf '#!/bin/sh\nexport NO_COLOR=1; mount -t tmpfs run /run; ip link set lo up; sysctl -qw net.core.optmem_max=131072; cd /srv/chat\npython3 /tests/kernels.py </dev/null\npoweroff -f\n' >"$root/tests/init"
chmod +x "$root/tests/init"
vm_image "$root" "$work/image"
rm -rf --one-file-system "$root"

failed=0
for release in bookworm sid; do
    kernel=$(vm_kernel "$release")
    vm_boot "$kernel" "$work/image" /tests/init 240 || failed=1
done
exit "$failed"

#!/usr/bin/env bash
# The Debian package below a real systemd: a Debian 13 in a virtual machine, with its kernel.
#
#     bash tests/vm/systemd.sh FOLDER             the folder that deploy/build.sh has filled

set -eu -o pipefail
here=$(dirname "$0")
source "$here/vm.sh"
deb=$(echo "$1"/haft_*_amd64.deb)
work=$(mktemp -d "${TMPDIR:-/tmp}/haft-vm.XXXXXX")
root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT

kernel=$(vm_kernel trixie)
vm_root "$root"
cp "$deb" "$root/haft.deb"
LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot "$root" dpkg --install /haft.deb
rm "$root/haft.deb"
printf 'workers: 2\ndrain-timeout: 20s\n' >"$root/etc/haft/haft.yaml"
mkdir -p "$root/srv/chat" "$root/tests"
cp "$here/inside/program.cjs" "$root/srv/chat/server.cjs"
vm_socket_io "$root/srv/chat"
cp "$here"/inside/*.py "$root/tests"
cat >"$root/etc/systemd/system/tests.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
ExecStart=/usr/bin/python3 /tests/systemd.py
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable tests.service
# Nothing is to be asked for, and no time is spent on what a test does not need.
chroot "$root" systemctl --quiet mask systemd-firstboot.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer serial-getty@ttyS0.service getty@tty1.service
echo haft >"$root/etc/hostname"
echo '127.0.0.1 localhost haft' >"$root/etc/hosts"
: >"$root/etc/fstab"

vm_image "$root" "$work/image"
rm -rf --one-file-system "$root"
vm_boot "$kernel" "$work/image" /lib/systemd/systemd 420 "systemd.show_status=false systemd.journald.forward_to_console=false"

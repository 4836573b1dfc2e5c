#!/usr/bin/env bash
# The Debian package: checked by lintian, and in a bare Debian root of its own installed, run, upgraded and purged.
#
#     bash tests/deploy/debian.sh FOLDER          the folder that deploy/build.sh has filled
#
# The root comes from Debian's mirror by mmdebstrap and is kept for the next time.

set -eu -o pipefail
source "$(dirname "$0")/lib.sh"
deb=$(echo "$1"/haft_*_amd64.deb)
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/haft-tests
work=$(mktemp -d)
root=$work/root
haft=
trap '[[ -z $haft ]] || kill -KILL $haft 2>/dev/null; umount "$root/proc" 2>/dev/null; rm -rf --one-file-system "$work"' EXIT

die() { echo "$*" && exit 1; }
in_root() { LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
apt() { in_root apt-get -qq -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root -y --no-install-recommends "$@"; }
seconds() { awk "BEGIN { printf \"%.1f\", $(date +%s.%N) - $1 }"; }

echo "lintian"
lintian --fail-on error --allow-root "$deb"

tar="$cache/debian-12.tar"
[[ -f $tar ]] || { mkdir -p "$cache" && mmdebstrap --mode=root --variant=apt --quiet bookworm "$tar.new" && mv "$tar.new" "$tar"; }
mkdir "$root" && tar -C "$root" -xf "$tar"
mount -t proc proc "$root/proc"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && chmod +x "$root/usr/sbin/policy-rc.d"

apt update
echo "install"
cp "$deb" "$root/haft.deb"
began=$(date +%s.%N)
apt install /haft.deb
port=$(free_port)
HAFT_FLAG_LISTEN=127.0.0.1:$port chroot --userspec=haft:haft "$root" haft --config /etc/haft/haft.yaml 2>"$work/log" &
haft=$!
page=$(page "http://127.0.0.1:$port/" $haft "$work/log")
[[ $page == *socket.io* ]] || die "no page is served"
echo "figure: apt install of the package to a served page: $(seconds "$began") s"
kill $haft && wait $haft || { cat "$work/log" && die "haft did not stop well"; }
haft=

for file in usr/bin/haft usr/share/man/man1/haft.1.gz usr/share/bash-completion/completions/haft \
    usr/share/zsh/vendor-completions/_haft usr/share/fish/vendor_completions.d/haft.fish lib/systemd/system/haft.service \
    usr/lib/sysusers.d/haft.conf usr/lib/tmpfiles.d/haft.conf etc/logrotate.d/haft; do
    [[ -s $root/$file ]] || die "/$file is missing"
done
[[ $(in_root stat -c %U:%a /var/lib/haft) == haft:750 ]] || die "/var/lib/haft is not haft's"
[[ $(in_root id -un haft) == haft ]] || die "there is no user haft"
in_root haft --config /etc/haft/haft.yaml --check >/dev/null
# Each line that is commented out is right, too; those that name other files or another program are left out.
sed -n 's/^#\([a-z-]*: .*\)/\1/p' "$root/etc/haft/haft.yaml" | grep -v '^command' >"$root/all.yaml"
(($(wc -l <"$root/all.yaml") >= 7)) || die "haft.yaml does not show its keys"
in_root haft --config /all.yaml --check >/dev/null

echo "upgrade"
mkdir "$work/new" && dpkg-deb -R "$deb" "$work/new"
sed -i 's/^Version: .*/Version: 9.9.9-1/' "$work/new/DEBIAN/control"
echo '# a new line of the package' >>"$work/new/etc/haft/haft.yaml"
echo '# a new line of the package' >>"$work/new/etc/logrotate.d/haft"
dpkg-deb --root-owner-group -b "$work/new" "$root/new.deb" >/dev/null
echo 'workers: 3' >>"$root/etc/haft/haft.yaml"
echo kept >"$root/var/lib/haft/state"
apt -o Dpkg::Options::=--force-confold install /new.deb
in_root dpkg -s haft | grep -q '^Version: 9.9.9-1' || die "it is not upgraded"
in_root haft --config /etc/haft/haft.yaml --check | grep -q '^workers: 3 # /etc/haft/haft.yaml' || die "the configuration was overwritten"
grep -q 'a new line' "$root/etc/logrotate.d/haft" || die "a file that nobody has changed stays the old one"
[[ $(<"$root/var/lib/haft/state") == kept ]] || die "its state is lost"

echo "remove and purge"
apt remove haft
[[ ! -e $root/usr/bin/haft && -e $root/etc/haft/haft.yaml && -e $root/var/lib/haft/state ]] || die "remove leaves what it should not, or too little"
apt purge haft
left=$(find "$root" -xdev -name '*haft*' -not -path "$root/proc/*" -not -path "$root/var/log/*" -not -path "$root/tmp/*" -not -name haft.deb)
[[ -z $left ]] || die "purge leaves: $left"

echo "where systemd is"
apt install systemd
apt install /haft.deb
[[ $(in_root id -un haft) == haft && $(in_root stat -c %U:%G:%a /var/log/haft) == haft:adm:750 ]] || die "user and folders are not made"
[[ $(in_root systemctl is-enabled haft.service || true) == disabled ]] || die "it is enabled without being asked for"
in_root systemctl enable haft.service
[[ $(in_root systemctl is-enabled haft.service) == enabled ]] || die "it cannot be enabled"
apt purge haft
[[ -z $(find "$root/etc/systemd" -name '*haft*') ]] || die "purge leaves it enabled"

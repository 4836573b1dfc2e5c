# Virtual machines for tests: Debian's kernels, a Debian root with systemd, QEMU by software emulation (never KVM: it hangs on some
# hosts that have /dev/kvm). Needs root, and the network for the first run: kernels and root are kept for the next one. `work` is the
# caller's folder for what is not kept.

readonly SKIPPED=77
vm_cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/haft-tests/vm
vm_mirror=http://deb.debian.org/debian
mkdir -p "$vm_cache"

vm_apt() { # COMMAND...: apt with lists of its own, beside what this machine has
    local tool=$1 dir=$vm_cache/apt
    "$tool" -qq -o Dir::Etc::SourceList="$dir/sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$dir" \
        -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" -o Acquire::Check-Valid-Until=false \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "${@:2}"
}

# The newest cloud kernel of a release (a Debian release, or "sid"), unpacked; prints its folder.
vm_kernel() { # RELEASE
    local release=$1 folder=$vm_cache/kernel-$1 new=$work/kernel-$1 name deb
    if [[ ! -d $folder ]]; then
        mkdir "$new"
        mkdir -p "$vm_cache/apt"/{lists/partial,cache/archives/partial}
        : >"$vm_cache/apt/status"
        echo "deb $vm_mirror $release main" >"$vm_cache/apt/sources"
        vm_apt apt-get update >&2 || return
        name=$(vm_apt apt-cache search --names-only '^linux-image-[0-9].*-cloud-amd64$' | cut -d' ' -f1 | sort -V | tail -n 1)
        (cd "$new" && vm_apt apt-get download "$name" >&2) || return
        # From 7.x on the kernel and its modules are packages of their own.
        for name in $(dpkg-deb -f "$new"/linux-image-*.deb Depends | tr ',' '\n' | sed 's/(.*//' | grep -E '^ *linux-(binary|modules)-'); do
            (cd "$new" && vm_apt apt-get download "$name" >&2) || return
        done
        for deb in "$new"/*.deb; do dpkg-deb -x "$deb" "$new/root" && rm "$deb" || return; done
        cp -r "$new/root" "$folder.$$" && mv -T "$folder.$$" "$folder" || return
    fi
    echo "$folder"
}

# An initial file system that mounts the first disk and goes on there: FOLDER has a kernel.
vm_initrd() { # FOLDER FILE
    local modules root name file library
    modules=$(dirname "$(find "$1" -type d -path '*/lib/modules/*/kernel' -prune -print)")
    root=$work/initrd-root
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,new} "$root/lib/modules/$(basename "$modules")"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for library in $(ldd "$(command -v busybox)" 2>/dev/null | grep -oE '/[^ ]+'); do
        install -D "$(readlink -f "$library")" "$root$library"
    done
    ln -s /bin/busybox "$root/sbin/modprobe"
    for name in virtio virtio_ring virtio_pci virtio_pci_legacy_dev virtio_pci_modern_dev virtio_blk; do
        for file in $(find "$modules" -name "$name.ko" -o -name "$name.ko.xz"); do
            cp "$file" "$root/lib/modules/$(basename "$modules")/"
        done
    done
    find "$root" -name '*.ko.xz' -exec xz -d {} +
    busybox depmod -b "$root" "$(basename "$modules")"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
$b modprobe virtio_pci 2>/dev/null; $b modprobe virtio_blk
n=0; while [ ! -b /dev/vda ] && [ $n -lt 500 ]; do $b usleep 20000; n=$((n + 1)); done
$b mount -t ext4 /dev/vda /new || { echo "@@ no disk"; $b poweroff -f; }
for d in proc sys dev; do $b mount --move /$d /new/$d; done
exec $b switch_root /new "$($b sed -n 's/.*haft\.init=\([^ ]*\).*/\1/p' /new/proc/cmdline)"
INIT
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$2"
    rm -rf "$root"
}

# Unpacks a Debian 13 root with systemd, Python and curl, and this machine's Node.
vm_root() { # FOLDER
    local tar=$vm_cache/debian-13.tar library
    if [[ ! -f $tar ]]; then
        mmdebstrap --mode=root --variant=minbase --quiet trixie "$tar.$$" "$vm_mirror" --include=systemd,systemd-sysv \
            --include=python3,curl,procps,iproute2,libstdc++6 && mv "$tar.$$" "$tar" || return
    fi
    mkdir -p "$1" && tar -C "$1" -xf "$tar" || return
    install -m 755 "$(readlink -f "$(command -v node)")" "$1/usr/bin/node"
    for library in $(ldd "$(command -v node)" | grep -oE '/[^ ]+'); do
        # Debian 13 has the usual ones, newer than this machine's.
        [[ -e $1/usr/lib/x86_64-linux-gnu/$(basename "$library") || -e $1$library ]] || install -D "$(readlink -f "$library")" "$1$library"
    done
}

vm_image() { # FOLDER FILE
    rm -f "$2"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$1" "$2" "$(($(du -sm "$1" | cut -f1) * 12 / 10 + 200))M"
}

# Boots an image until the machine turns itself off; its console is this one's output. The test within prints "@@rc CODE" at its end.
vm_boot() { # KERNEL-FOLDER IMAGE INIT SECONDS [BOOT-PARAMETERS]
    local initrd log
    initrd=$work/initrd log=$work/log
    vm_initrd "$1" "$initrd"
    timeout "$4" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu max -m 1024 -nodefaults -display none -serial stdio -no-reboot \
        -kernel "$(find "$1" -name 'vmlinuz*' | head -n 1)" -initrd "$initrd" \
        -append "console=ttyS0 quiet panic=-1 loglevel=3 mitigations=off random.trust_cpu=on haft.init=$3 ${5:-}" \
        -drive "file=$2,format=raw,if=virtio,snapshot=on" </dev/null | tr -d '\r' | tee "$log"
    ((PIPESTATUS[0] != 124)) || echo "the machine ran for more than $4 seconds and was ended"
    grep -q '^@@rc 0' "$log"
}

# The packages of Socket.IO's server, from those of the end-to-end tests.
vm_socket_io() { # FOLDER
    local name
    mkdir -p "$1/node_modules"
    for name in socket.io socket.io-adapter socket.io-parser @socket.io/component-emitter engine.io engine.io-parser ws accepts base64id \
        cors debug ms cookie mime-types mime-db negotiator object-assign vary; do
        mkdir -p "$1/node_modules/$(dirname "$name")"
        cp -r "tests/e2e/node_modules/$name" "$1/node_modules/$name" || return
    done
}

#!/usr/bin/env bash
# Makes everything that is installed from, out of this checkout:
#
#     bash deploy/build.sh [FOLDER]          target/deploy if none is named
#
#     haft-VERSION-linux-x64                 the program: static, for any Linux with this processor
#     haft-VERSION.tgz, haft-linux-x64-VERSION.tgz            the npm packages
#     haft_VERSION-1_amd64.deb               the Debian package
#     haft-VERSION.cdx.json                  what is in it (SBOM, CycloneDX)
#     SHA256SUMS
#
# The same checkout gives the same bytes, wherever it lies: dates are that of the commit (SOURCE_DATE_EPOCH), and paths are
# written as if it were /haft. Needs Rust, gcc, npm, and cargo-deb and cargo-cyclonedx in the versions below. For a processor
# whose standard library is not there (`rustup target add`) nothing is built, which is reported.
#
# HAFT_BUILD_QUICKLY=1 does not optimise: for tests of how it is built.

set -eu -o pipefail
cd "$(dirname "$0")/.."

readonly CARGO_DEB_VERSION=3.8.0 CARGO_CYCLONEDX_VERSION=0.5.9
# The names that Rust, Node and Debian have for a processor.
readonly PROCESSORS="x86_64-unknown-linux-gnu:x64:amd64 aarch64-unknown-linux-gnu:arm64:arm64"

if [[ ${1:-} == --tools ]]; then
    echo "cargo-deb@$CARGO_DEB_VERSION cargo-cyclonedx@$CARGO_CYCLONEDX_VERSION"
    exit
fi

export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
out=${1:-$CARGO_TARGET_DIR/deploy}
mkdir -p "$out"
out=$(cd "$out" && pwd)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022

for tool in cargo-deb cargo-cyclonedx npm cc; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: see docs/install.md, \"Building the packages\"" && exit 1; }
done

programs=()
for processor in $PROCESSORS; do
    IFS=: read -r target cpu debian <<<"$processor"
    if [[ ! -d $(rustc --print target-libdir --target "$target") ]]; then
        echo "nothing for $cpu: Rust's standard library for it is missing (rustup target add $target)"
        continue
    fi
    remap="--remap-path-prefix=$CARGO_TARGET_DIR=/target --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    remap+=" --remap-path-prefix=$(rustc --print sysroot)/lib/rustlib/src/rust=/rust --remap-path-prefix=$PWD=/haft"
    # Relocations in 5 KB instead of 390 KB. The program's own C library reads them at its start: glibc 2.36 and newer.
    # Random numbers are asked of the kernel: without this a static program opens /dev/urandom, which a root may lack.
    static="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs --cfg getrandom_backend=\"linux_getrandom\""
    profile=(CARGO_PROFILE_RELEASE_STRIP=symbols)
    [[ -z ${HAFT_BUILD_QUICKLY:-} ]] || profile+=(CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16)
    env "${profile[@]}" RUSTFLAGS="$static $remap" \
        cargo build --locked --release --bin haft --target "$target"
    built=$CARGO_TARGET_DIR/$target/release
    cp "$built/haft" "$out/haft-$version-linux-$cpu"
    programs+=("$cpu=$built/haft")
    if [[ $target == "$(rustc -vV | sed -n 's/^host: //p')" ]]; then
        # Where Cargo.toml names them: cargo-deb has target/release for the folder of the target.
        mkdir -p "$built/deploy"
        "$built/haft" man | gzip -9n >"$built/deploy/haft.1.gz"
        for shell in bash zsh fish; do "$built/haft" completions "$shell" >"$built/deploy/haft.$shell"; done
        cargo deb --quiet --no-build --no-strip --locked --target "$target" --output "$out/haft_$version-1_$debian.deb"
    fi
done
((${#programs[@]})) || { echo "no program was made" && exit 1; }

node deploy/npm/pack.mjs "$out" "$version" "${programs[@]}"

# It writes beside Cargo.toml, for each crate of the workspace.
cargo cyclonedx --quiet --format json --target all --override-filename haft.cdx
rm -f src/*/haft.cdx.json
sed "s|path+file://$PWD|path+file:///haft|g" haft.cdx.json >"$out/haft-$version.cdx.json"
rm haft.cdx.json

(cd "$out" && rm -f SHA256SUMS && sha256sum -- *"$version"* >SHA256SUMS)
echo "made in $out:"
(cd "$out" && stat -c '%10s  %n' -- *)

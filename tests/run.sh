#!/usr/bin/env bash
# All checks and tests of haft, from a fresh clone, in one command:
#
#     bash tests/run.sh                  everything
#     bash tests/run.sh clippy e2e/page  only the steps whose names begin like this, with all that they need
#     bash tests/run.sh it/reload        only the tests in tests/it whose names contain this
#     bash tests/run.sh lib/flags        only the unit tests whose names contain this
#     bash tests/run.sh --list           the names of all steps
#
# Needs Rust, Node 20 with npm, and, for what is missing beyond that, apt and root. A step runs even if another has
# failed, unless it needs that one's result. Each says when it begins and how it ended; every half minute there is a line
# for each step that still runs. What a step leaves running is ended. The last line is "N passed, N failed"; the exit
# code is 0 only if something ran and nothing failed. HAFT=PATH tests that binary instead of a release build of this tree.

set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
exec </dev/null

export TOOLS="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/haft-tests"
export PATH="$PATH:$TOOLS/bin"
export CARGO_TERM_COLOR=never NO_COLOR=1
# Every crate is built once or twice only; and a registry that does not answer for a moment fails nothing.
export CARGO_INCREMENTAL=0 CARGO_NET_RETRY=10
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$PWD/$target
export ARTEFACTS=$target/deploy
export TARGET=$target GIVEN_HAFT=${HAFT:-}
export HAFT=${HAFT:-$TARGET/release/haft} EXAMPLES=$TARGET/debug/examples

source tests/steps.sh

# --- What steps need ------------------------------------------------------------------------------------------------
#
# prepare NAME MINUTES NEEDS: `bash tests/prepare.sh NAME` runs before the first step that needs it, in this order.

prepare tools         1  ""
prepare npm           10 "tools"
prepare haft          20 "tools cc=gcc+libc6-dev"
prepare rust_examples 20 "tools cc=gcc+libc6-dev"
prepare deny          30 "tools cc=gcc+libc6-dev"
prepare artefacts     30 "tools cc=gcc+libc6-dev git=git"

# --- The steps ------------------------------------------------------------------------------------------------------
#
# step NAME COUNTS MINUTES NEEDS COMMAND...
# beside ...: the same, for what mostly waits: several such steps run at a time.
#
# COUNTS is how its tests are counted: one (a check), cargo, node. It is ended after MINUTES. NEEDS are names of the list
# above, and COMMAND=PACKAGE+PACKAGE: the Debian packages that are installed if there is no such command.

readonly CARGO="tools cc=gcc+libc6-dev"

step rustfmt       one   2  "$CARGO" cargo fmt --all --check
step clippy        one   20 "$CARGO" cargo clippy --locked --workspace --all-targets -- -D warnings
step rustdoc       one   10 "$CARGO" env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
# Most of the tests wait for other processes: more at a time than there are CPUs.
step cargo-test    cargo 30 "$CARGO python3=python3 ip=iproute2 puma=puma go=golang-go" \
    env RUST_TEST_THREADS=8 cargo test --locked --workspace --no-fail-fast
for name in "$@"; do
    [[ $name != it/* ]] || step "$name" cargo 30 "$CARGO python3=python3 ip=iproute2 puma=puma go=golang-go" \
        env RUST_TEST_THREADS=8 cargo test --locked --test it -- "${name#it/}"
    [[ $name != lib/* ]] || step "$name" cargo 30 "$CARGO" cargo test --locked --workspace --lib -- "${name#lib/}"
done
step worker-crate  one   10 "$CARGO haft curl=curl python3=python3" bash tests/prepare.sh check_worker_crate
step cargo-package one   20 "$CARGO" bash tests/prepare.sh check_package
step cargo-install one   10 "$CARGO" bash tests/prepare.sh check_install

# Each program in tests/e2e is a step. Here is what one needs beyond haft and npm, and which run alone since they measure or load
# the machine.
declare -A more=(
    [page]="chromium=chromium"
    [admin-page]="chromium=chromium"
    [library]="rust_examples"
    [behind-proxies]="nginx=nginx+libnginx-mod-stream haproxy=haproxy"
    [builtin-rooms]="redis-server=redis-server"
    [emitter]="redis-server=redis-server"
    [node-adapter]="redis-server=redis-server"
    [node-rooms-hosts]="redis-server=redis-server redis-cli=redis-tools openssl=openssl"
    [own-adapters]="redis-server=redis-server pg_lsclusters=postgresql"
    [several-hosts]="nginx=nginx+libnginx-mod-stream haproxy=haproxy ip=iproute2 redis-server=redis-server"
    [deploy-npm]="artefacts"
    [deploy-proxies]="nginx=nginx+libnginx-mod-stream haproxy=haproxy caddy=caddy"
    [node-wrappers]="go=golang-go"
    [listen-fds]="gunicorn=gunicorn uvicorn=uvicorn+python3-socketio"
)
# It starts nine haft behind two proxies, and waits for pings to be missed.
declare -A minutes=([several-hosts]=20)
declare -A alone=([memory]=1 [reload]=1 [first-request]=1 [several-hosts]=1)
for program in tests/e2e/*.mjs; do
    name=$(basename "$program" .mjs)
    needs="npm haft ${more[$name]:-}"
    # It shows what Node does without haft.
    [[ $name != reference ]] || needs=npm
    how=${alone[$name]:+step}
    "${how:-beside}" "e2e/$name" node "${minutes[$name]:-10}" "$needs" node --test-reporter=spec "$program"
done

step chaos            node 10 "npm haft python3=python3" node --test-reporter=spec tests/chaos/run.mjs

# What deploy/build.sh makes, each used as its users do.
step deploy/reproducible one 30 "artefacts" bash tests/deploy/reproducible.sh
beside deploy/static     one 2  "artefacts curl=curl python3=python3 readelf=binutils ps=procps cc=gcc" bash tests/deploy/static.sh "$ARTEFACTS"
beside deploy/manual     one 2  "haft man=man-db mandoc=mandoc zsh=zsh fish=fish" bash tests/deploy/manual.sh "$HAFT"
beside deploy/kubernetes one 5  "haft python3=python3+python3-venv" bash tests/deploy/kubernetes.sh "$HAFT"
beside deploy/logrotate  one 2  "haft logrotate=logrotate" bash tests/deploy/logrotate.sh "$HAFT"
beside deploy/pm2        one 5  "haft curl=curl python3=python3" bash tests/deploy/pm2.sh "$HAFT"
beside deploy/image      one 10 "artefacts curl=curl python3=python3 buildah=buildah runc=runc" bash tests/deploy/image.sh "$ARTEFACTS"
beside deploy/debian     one 15 "artefacts curl=curl python3=python3 lintian=lintian mmdebstrap=mmdebstrap" \
    bash tests/deploy/debian.sh "$ARTEFACTS"
# haft on other kernels and below systemd, in virtual machines.
readonly VM="qemu-system-x86_64=qemu-system-x86 busybox=busybox-static cpio=cpio xz=xz-utils mke2fs=e2fsprogs mmdebstrap=mmdebstrap"
step vm/kernels    cargo 15 "$CARGO npm haft $VM" bash tests/vm/kernels.sh "$HAFT"
step vm/systemd    cargo 12 "npm artefacts $VM" bash tests/vm/systemd.sh "$ARTEFACTS"

step prometheus       one   2  "promtool=prometheus" promtool test rules deploy/prometheus/haft.tests.yml
beside deploy/metrics    one 3  "haft curl=curl python3=python3 promtool=prometheus" bash tests/deploy/metrics.sh "$HAFT"

step deny/policy      one  5  "deny" cargo deny check bans licenses sources
# The advisories are a database of their own, which a machine without the open Internet cannot fetch.
step deny/advisories  one  5  "deny" bash tests/prepare.sh check_advisories

run_steps "$@"

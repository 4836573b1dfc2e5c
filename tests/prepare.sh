#!/usr/bin/env bash
# What tests/run.sh does before its steps, and checks that are more than one command: `bash tests/prepare.sh NAME`.

set -u -o pipefail

readonly CARGO_DENY_VERSION=0.20.2
# A step that cannot run on this machine ends with this, and its last line says why.
readonly SKIPPED=77

# The machine has what cannot be installed by apt alone.
tools() {
    local tool ok=0
    for tool in cargo rustfmt cargo-clippy rustdoc; do
        command -v "$tool" >/dev/null && continue
        echo "$tool is missing: install Rust with rustup, then: rustup component add rustfmt clippy"
        ok=1
    done
    if ! command -v npm >/dev/null || ! node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)'; then
        echo "Node 20 or newer with npm is missing; found: node $(node --version 2>/dev/null || echo none)"
        ok=1
    fi
    return "$ok"
}

# Installs Debian packages; the arguments are COMMAND=PACKAGE+PACKAGE for each command that is missing.
packages() {
    local packages
    packages=$(printf '%s\n' "${@#*=}" | tr + '\n' | sort -u | tr '\n' ' ')
    echo "missing: ${*%%=*}"
    if ! command -v apt-get >/dev/null || (($(id -u) != 0)); then
        echo "cannot install them here (that needs apt and root). Run as root: apt-get install $packages"
        return 1
    fi
    # In runlevel 1 no service is started: they are wanted as programs only.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    local quiet=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
    # shellcheck disable=SC2086 # they are words
    apt-get "${quiet[@]}" update && apt-get "${quiet[@]}" install -y --no-install-recommends $packages
}

# The packages of the end-to-end tests.
npm_packages() {
    cd tests/e2e || return 1
    local now
    now=$(cat package.json package-lock.json .npmrc | sha256sum) || return 1
    [[ -f node_modules/.installed && $(<node_modules/.installed) == "$now" ]] && return 0
    npm ci --ignore-scripts --no-audit --no-fund && echo "$now" >node_modules/.installed
}

# The binary that the end-to-end tests run.
haft() {
    if [[ -n $GIVEN_HAFT ]]; then
        echo "HAFT names it: $HAFT"
        "$HAFT" --version
        return
    fi
    cargo build --locked --release
}

# The Rust examples, as $EXAMPLES has them.
rust_examples() { cargo build --locked --examples; }

deny() { cargo_tools "cargo-deny@$CARGO_DENY_VERSION"; }

# What deploy/build.sh makes, in $ARTEFACTS.
artefacts() {
    # shellcheck disable=SC2046 # they are words
    cargo_tools $(bash deploy/build.sh --tools) && rm -rf "$ARTEFACTS" && bash deploy/build.sh "$ARTEFACTS"
}

# Installs commands of cargo that are missing: NAME@VERSION...
cargo_tools() {
    local tool missing=()
    for tool in "$@"; do command -v "${tool%@*}" >/dev/null || missing+=("$tool"); done
    ((${#missing[@]})) || return 0
    # They run for a second: a quick build matters more than quick code.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_DEBUG=0 cargo install "${missing[@]}" --locked --root "$TOOLS"
}

check_advisories() {
    local said
    if ! said=$(timeout 120 cargo deny fetch db 2>&1); then
        echo "the advisory database cannot be fetched here: $(grep -vE '^\s*$' <<<"$said" | tail -n 1)"
        return "$SKIPPED"
    fi
    cargo deny check --disable-fetch advisories
}

# Installs haft as the README says and runs it, but with --debug: half a minute, where another release build takes minutes.
check_install() {
    local root
    root=$(mktemp -d) || return 1
    trap 'rm -rf "$root"' EXIT
    cargo install --debug --locked --path . --target-dir "$TARGET" --root "$root" || return 1
    "$root/bin/haft" -w 1 -l 127.0.0.1:0 >"$root/log" 2>&1 &
    for _ in {1..600}; do
        ! grep -q 'worker is ready' "$root/log" || break
        kill -0 $! || break
        sleep 0.1
    done
    kill $!
    wait $!
    local code=$?
    cat "$root/log"
    grep -q 'worker is ready' "$root/log" && return "$code"
}

case $1 in
    npm) npm_packages ;;
    *) "$@" ;;
esac

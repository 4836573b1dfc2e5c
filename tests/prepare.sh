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

# Each crate can be published, and builds from what would be.
check_package() {
    # cargo unpacks and builds each crate for the next one. What it has unpacked and built of the same version before, it takes
    # for the same, in whatever state that was.
    rm -rf "${CARGO_HOME:-$HOME/.cargo}"/registry/{src,cache}/*/haft-{sys,worker}-[0-9]* "$TARGET"/package
    rm -rf "$TARGET"/debug/.fingerprint/haft-{sys,worker}-*
    cargo package --workspace --locked --allow-dirty
}

# Installs haft as the README says and runs it, but with --debug: half a minute, where another release build takes minutes.
check_install() {
    local root
    root=$(mktemp -d) || return 1
    trap "rm -rf '$root'" EXIT
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

# What a user of haft-worker gets: the smallest worker of docs/rust-workers.md builds, serves below haft, and compiles few
# packages; the crate has few public items (without features).
check_worker_crate() {
    local root packages items code=0
    root=$(mktemp -d) || return 1
    trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf '"'$root'" EXIT
    mkdir "$root/src"
    block() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" docs/rust-workers.md | sed '/^```$/q' | grep -v '^```'; }
    manifest() {
        printf '[package]\nname = "hello"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n'
        printf '[patch.crates-io]\nhaft-worker = { path = "%s/src/worker" }\n\n' "$PWD"
    }
    count() { cargo tree --manifest-path "$root/Cargo.toml" -e normal --prefix none --no-dedupe | sort -u | wc -l; }

    block rust >"$root/src/main.rs"
    { manifest; printf '[dependencies]\nhaft-worker = "0.1"\n'; } >"$root/Cargo.toml"
    cp Cargo.lock "$root" && packages=$(count) || return 1
    echo "ℹ packages of a worker without axum: $packages"
    ((packages > 1 && packages <= 40)) || code=1
    { manifest; block toml; } >"$root/Cargo.toml"
    packages=$(count) || return 1
    echo "ℹ packages of a worker with axum: $packages"
    ((packages > 1 && packages <= 65)) || code=1

    RUSTC_BOOTSTRAP=1 cargo rustdoc -q -p haft-worker --lib -- -Z unstable-options --output-format json || return 1
    items=$(python3 tests/public_items.py "$TARGET/doc/haft_worker.json") || return 1
    echo "$items"
    items=${items##*$'\n'}
    ((${items%% *} <= 70)) || code=1

    cargo build --manifest-path "$root/Cargo.toml" --target-dir "$TARGET" || return 1
    "$HAFT" -w 2 -l "unix:$root/listener" -- "$TARGET/debug/hello" >"$root/log" 2>&1 &
    for _ in {1..600}; do
        [[ $(grep -sc "worker is ready" "$root/log") != 2 ]] || break
        sleep 0.1
    done
    [[ $(curl -sS --unix-socket "$root/listener" http://haft/) == hello ]] || { cat "$root/log"; code=1; }
    return "$code"
}

case $1 in
    npm) npm_packages ;;
    *) "$@" ;;
esac

#!/usr/bin/env bash
# All checks and tests of haft, from a fresh clone, in one command:
#
#     bash tests/run.sh                  everything
#     bash tests/run.sh clippy e2e/page  only the steps whose names begin so (their preparation is up to you)
#     bash tests/run.sh it/reload        only the tests in tests/it whose names contain this
#
# Needs Rust, Node 20 with npm, and, for what is missing beyond that, apt and root. Every step goes on after the failure
# of another unless it needs its result; one that takes long says every half minute what it is at. What a step leaves
# running is ended. The last line is "N passed, N failed"; the exit code is 0 only if something ran and nothing failed.

set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
exec </dev/null

readonly CARGO_DENY_VERSION=0.20.2
readonly TOOLS="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/haft-tests"
readonly WANTED=("$@")
readonly SHOWN=250    # lines of output that a failed step shows
readonly HEARTBEAT=30 # seconds after which a step that still runs says what it is at

export PATH="$PATH:$TOOLS/bin"
export CARGO_TERM_COLOR=never NO_COLOR=1
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$PWD/$target
readonly TARGET=$target
export HAFT=$TARGET/release/haft EXAMPLES=$TARGET/debug/examples

log=$(mktemp "${TMPDIR:-/tmp}/haft-tests.XXXXXX") || exit 1
readonly MARK=${log##*.}.$$ # what a step starts has it in its environment
running=
trap 'rm -f "$log"' EXIT
trap '[[ -z $running ]] || { kill "$running" 2>/dev/null; sweep; }; exit 130' INT TERM HUP

passed=0 failed=0 skipped=0
broken=() # names of the steps that failed

wanted() { # NAME
    ((${#WANTED[@]})) || return 0
    local prefix
    for prefix in "${WANTED[@]}"; do [[ $1 == "$prefix"* ]] && return 0; done
    return 1
}

# Adds up what the tool's own closing lines in $log say; sets p, f and s. A step without tests of its own leaves them 0.
count_none() { p=0 f=0 s=0; }
count_cargo() {
    read -r p f s < <(awk '/^test result: / { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$log")
}
count_node() {
    read -r p f s < <(awk '$2 == "pass" { p += $3 } $2 == "fail" || $2 == "cancelled" { f += $3 }
        $2 == "skipped" || $2 == "todo" { s += $3 } END { print p + 0, f + 0, s + 0 }' <(grep -E '^ℹ [a-z]+ [0-9]+$' "$log"))
}

watch_step() { # BEGAN: waits for the step's end, and says now and then what it is at
    local next=$(($1 + HEARTBEAT))
    while kill -0 "$running" 2>/dev/null; do
        sleep 0.2
        ((SECONDS >= next)) || continue
        next=$((next + HEARTBEAT))
        printf '\n   %4s s  %s' "$((SECONDS - $1))" "$(grep -v '^\s*$' "$log" | tail -n 1 | tr -d '[:cntrl:]' | cut -c 1-100)"
    done
}

marked() { # the processes that steps have started and that still run
    local file
    for file in $(grep -lzx "HAFT_TESTS_MARK=$MARK" /proc/[0-9]*/environ 2>/dev/null); do
        file=${file#/proc/}
        echo "${file%/environ}"
    done
}

# A program that was ended early cannot end what it started, and a stopped worker or a long drain time would keep that
# for an hour.
sweep() {
    local round pid left said=()
    for round in {1..100}; do
        left=$(marked)
        [[ -n $left ]] || break
        sleep 0.1
        # What is ending already gets two seconds.
        ((round > 20)) || continue
        for pid in $left; do
            ((round > 21)) || said+=("$pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c 1-60))")
            kill -KILL "$pid" 2>/dev/null
        done
    done
    ((${#said[@]} == 0)) || printf '   left running, and ended now: %s\n' "${said[@]}"
}

step() { # KIND NAME MINUTES COMMAND...: runs one step and counts it
    local kind=$1 name=$2 minutes=$3 began=$SECONDS code p f s
    shift 3
    wanted "$name" || return 0
    printf '== %-24s ' "$name"
    HAFT_TESTS_MARK=$MARK timeout --kill-after=20 "$((minutes * 60))" "$@" >"$log" 2>&1 &
    running=$!
    watch_step "$began"
    wait "$running"
    code=$?
    running=
    # Behind lines of progress the result has a line of its own.
    ((SECONDS - began < HEARTBEAT)) || printf '\n== %-24s ' "$name"
    "count_$kind"
    # What failed without saying which test did (it did not compile, hung, crashed) is one failure all the same; so is a
    # test program that ran no test. A plain check is one test.
    if ((code != 0 && f == 0)); then f=1; fi
    if ((code == 0 && p + f + s == 0)); then if [[ $kind == none ]]; then p=1; else f=1; fi; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    local took="$((SECONDS - began)) s"
    if ((f == 0)); then
        printf 'ok    %s passed%s, %s\n' "$p" "$( ((s == 0)) || echo ", $s skipped")" "$took"
        grep -E '^ℹ ' "$log" | grep -vE '^ℹ [a-z_]+ [0-9.]+$' | sed 's/^ℹ /   /'
        sweep
        return 0
    fi
    broken+=("$name")
    printf 'FAILED %s passed, %s failed, %s\n' "$p" "$f" "$took"
    ((code != 124)) || echo "   it took longer than $minutes minutes and was ended"
    echo "   --- its last lines"
    sed '/^✖ failing tests:/,$d; / \.\.\. ok$/d' "$log" | tail -n "$SHOWN" | sed 's/^/   | /'
    sweep
    return 1
}

skip() { # NAME REASON
    wanted "$1" || return 0
    skipped=$((skipped + 1))
    printf '== %-24s skipped: %s\n' "$1" "$2"
}

# --- What the machine must have -------------------------------------------------------------------------------------

# command that shows whether it is there : Debian packages that bring it
readonly NEEDED=("cc:gcc libc6-dev" "python3:python3" "chromium:chromium" "ip:iproute2" "gunicorn:gunicorn"
    "uvicorn:uvicorn python3-socketio" "puma:puma" "nginx:nginx libnginx-mod-stream" "haproxy:haproxy")

install_packages() {
    local need missing=() packages=() said
    for need in "${NEEDED[@]}"; do
        command -v "${need%%:*}" >/dev/null && continue
        missing+=("${need%%:*}")
        read -ra said <<<"${need#*:}"
        packages+=("${said[@]}")
    done
    ((${#packages[@]})) || return 0
    echo "missing: ${missing[*]}"
    if ! command -v apt-get >/dev/null || (($(id -u) != 0)); then
        echo "cannot install them here (that needs apt and root). Run as root: apt-get install ${packages[*]}"
        return 1
    fi
    # In runlevel 1 no service is started: they are wanted as programs only.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    local quiet=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
    apt-get "${quiet[@]}" update && apt-get "${quiet[@]}" install -y --no-install-recommends "${packages[@]}"
}

check_tools() {
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

install_npm() {
    cd tests/e2e || return 1
    local now
    now=$(cat package.json package-lock.json .npmrc | sha256sum) || return 1
    [[ -f node_modules/.installed && $(<node_modules/.installed) == "$now" ]] && return 0
    npm ci --ignore-scripts --no-audit --no-fund && echo "$now" >node_modules/.installed
}

install_deny() {
    command -v cargo-deny >/dev/null && return 0
    # It is run for a second: better quickly built than quick.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_DEBUG=0 cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --root "$TOOLS"
}

# As the README has it, but for --debug: that needs half a minute where another release build takes minutes.
install_haft() {
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

# `timeout` starts programs only: this makes a function of this file one.
self() { step none "$1" "$2" bash -c "$(declare -p NEEDED TOOLS TARGET CARGO_DENY_VERSION); $(declare -f "$3"); $3"; }

# --- The steps ------------------------------------------------------------------------------------------------------

self tools 1 check_tools
self packages 15 install_packages
self npm 10 install_npm

step none rustfmt 2 cargo fmt --all --check
step none clippy 20 cargo clippy --locked --all-targets -- -D warnings
step none rustdoc 10 env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
step none build 20 cargo build --locked --release
built=$?
# Most of the tests wait for other processes: more at a time than there are CPUs.
step cargo cargo-test 30 env RUST_TEST_THREADS=8 cargo test --locked --no-fail-fast
for name in "$@"; do
    [[ $name == it/* ]] && step cargo "$name" 30 env RUST_TEST_THREADS=8 cargo test --locked --test it -- "${name#it/}"
done

self cargo-install 10 install_haft

for program in tests/e2e/*.mjs; do
    name=e2e/$(basename "$program" .mjs)
    if ((built != 0)) && [[ $name != e2e/reference ]]; then
        skip "$name" "the release build failed"
    else
        step node "$name" 10 node --test-reporter=spec "$program"
    fi
done

if ((built != 0)); then
    skip chaos "the release build failed"
else
    step node chaos 10 node --test-reporter=spec tests/chaos/run.mjs
fi

if self deny/install 30 install_deny; then
    step none deny/policy 5 cargo deny check bans licenses sources
    # The advisories are a database of their own, which a machine without the open Internet cannot fetch.
    if wanted deny/advisories; then
        if timeout 120 cargo deny fetch db >"$log" 2>&1; then
            step none deny/advisories 5 cargo deny check --disable-fetch advisories
        else
            skip deny/advisories "the advisory database cannot be fetched here: $(grep -vE '^\s*$' "$log" | tail -n 1)"
        fi
    fi
fi

# --- The result -----------------------------------------------------------------------------------------------------

echo
((${#broken[@]} == 0)) || echo "failed: ${broken[*]}"
result="$passed passed, $failed failed"
((skipped == 0)) || result+=", $skipped skipped"
echo "$result"
((failed == 0 && passed > 0))

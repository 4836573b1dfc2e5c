#!/usr/bin/env bash
# haft beside everything that people use in its place, measured in turns in one run:
#
#     bash tests/bench/run.sh            the comparison (about 25 minutes): results/latest.md, charts/*.svg
#     bash tests/bench/run.sh --quick    the same in less than a minute: shows that all can be measured
#     bash tests/bench/run.sh --only node-haft,node-clients    rows by their keys: those that contain one of these words
#     bash tests/bench/run.sh growth     the master's cost by number of workers and of held connections
#     bash tests/bench/run.sh goals --rounds 3    only what the goals need (ten minutes): results/goals.md, goals-growth.md
#     bash tests/bench/run.sh build      only installs and builds
#
# Other words go to the measuring program (--rounds N, --workers N, --only KEY,KEY; --help lists all). An =KEY after --only
# means the row of just that key. Results of a part or of a quick run stay in results/. Installs what is missing of nginx, HAProxy and Node's packages (that needs apt and
# root). It loads the machine as much as it can: leave it alone meanwhile.

set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1
exec </dev/null

readonly BENCH=tests/bench
export CARGO_TERM_COLOR=never
target=${CARGO_TARGET_DIR:-target}

fail() {
    echo "$BENCH/run.sh: $*" >&2
    exit 1
}

install_packages() {
    local packages=()
    command -v nginx >/dev/null || packages+=(nginx)
    compgen -G '/usr/lib*/nginx/modules/ngx_stream_module.so' >/dev/null || packages+=(libnginx-mod-stream)
    command -v haproxy >/dev/null || packages+=(haproxy)
    command -v perf >/dev/null || command -v strace >/dev/null || packages+=(strace)
    ((${#packages[@]})) || return 0
    if ! command -v apt-get >/dev/null || (($(id -u) != 0)); then
        fail "run as root: apt-get install --no-install-recommends ${packages[*]}"
    fi
    local quiet=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
    # In runlevel 1 no service is started: they are wanted as programs only.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get "${quiet[@]}" update && apt-get "${quiet[@]}" install -y --no-install-recommends "${packages[@]}"
}

# The path of the measuring program goes to standard output.
build() { # PROFILE
    cargo build --locked --profile "$1" --bench compare --message-format json-render-diagnostics |
        node -e '
            const lines = require("fs").readFileSync(0, "utf8").split("\n").filter((line) => line.startsWith("{"));
            const built = lines.map(JSON.parse).find(({ target, executable }) => executable && target.name === "compare");
            if (!built) process.exit(1);
            console.log(built.executable);
        ' || return 1
    # Not the haft that was built with it, which has the features that only tests want: the one that people run.
    cargo build --locked --release >&2
}

order=compare
case ${1:-} in
compare | growth | goals | build)
    order=$1
    shift
    ;;
esac

install_packages || fail "not all packages could be installed"
bash tests/prepare.sh npm || fail "Node's packages could not be installed"

# What the documentation shows comes of a whole run only.
results=$BENCH/results
name=latest charts=$BENCH/charts profile=release
for word in "$@"; do
    case $word in
    # It shows only that it works: what cargo test has built is good enough.
    --quick) name=quick charts=$results/quick profile=dev ;;
    --only*) name=part charts=$results/part ;;
    esac
done
[[ $order != goals ]] || name=goals charts=$results/goals
program=$(build "$profile") || fail "it does not compile"
export HAFT=$target/release/haft

measure() { # compare|growth NAME WORD...
    local order=$1 name=$2 code
    shift 2
    rm -f "$results/$name.json"
    "$program" "$order" "$@" --json "$results/$name.json"
    code=$?
    [[ -f $results/$name.json ]] && node "$BENCH/report.mjs" "$results/$name.json" "$results/$name.md" "$charts" || fail "no report"
    echo "$results/$name.md, $charts"
    return "$code"
}

# What the goals compare.
readonly GOALS==minimal-haft,=minimal-reuseport,=minimal-haproxy,=builtin-haft,=node-haft,=node-haft-session,=node-clients,=node-nginx-stream

case $order in
build) ;;
compare) measure compare "$name" "$@" ;;
growth) measure growth "$name-growth" "$@" ;;
goals)
    measure compare goals --only "$GOALS" "$@"
    code=$?
    measure growth goals-growth "$@" && exit "$code"
    ;;
esac

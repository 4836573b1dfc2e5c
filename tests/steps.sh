# Steps: what they are called, what they need, how they run and how they are counted. tests/run.sh lists them.

readonly SHOWN=250    # lines of output that a failed step shows
readonly REPEATED=40  # lines about it that are shown again at the end
readonly HEARTBEAT=30 # seconds between the lines that say what still runs
readonly SKIPPED=77   # the exit code of a step that cannot run on this machine
# Steps that mostly wait, at a time.
readonly AT_ONCE=${HAFT_TESTS_AT_ONCE:-$(($(nproc) + 1))}

work=$(mktemp -d "${TMPDIR:-/tmp}/haft-tests.XXXXXX") || exit 1
readonly MARK=${work##*.}.$$ # what a step starts has it in its environment
trap 'rm -rf "$work"' EXIT
trap 'trap - INT TERM HUP; end_all; exit 130' INT TERM HUP

steps=() preparations=()
declare -A lane=() counts=() minutes=() needs=() command=() # by name
declare -A ended=()                                          # by name: ok, failed or skipped
running=()                                                   # names
declare -A began=()
passed=0 failed=0 skipped=0
broken=() # names of the steps that failed

prepare() { # NAME MINUTES NEEDS
    preparations+=("$1")
    describe alone "$1" one "$2" "$3" bash tests/prepare.sh "$1"
}
step() { steps+=("$1") && describe alone "$@"; }
beside() { steps+=("$1") && describe beside "$@"; }

describe() { # LANE NAME COUNTS MINUTES NEEDS COMMAND...
    lane[$2]=$1 counts[$2]=$3 minutes[$2]=$4 needs[$2]=$5
    command[$2]=$(printf '%q ' "${@:6}")
}

run_steps() { # NAME...: those whose names begin so; all if there is none
    local name wanted=()
    if [[ ${1:-} == --list ]]; then
        printf '%s\n' "${steps[@]}"
        exit 0
    fi
    for name in "${steps[@]}"; do
        (($# > 0)) && ! begins_with "$name" "$@" || wanted+=("$name")
    done
    for name in "$@"; do
        [[ " ${wanted[*]-}" == *" $name"* ]] || { echo "no step begins with $name: tests/run.sh --list shows all" && exit 1; }
    done
    prepare_all "${wanted[@]}"
    for name in "${wanted[@]}"; do
        if lacks "$name"; then
            report_skipped "$name" "it needs $lacking, which failed"
            continue
        fi
        if [[ ${lane[$name]} == alone ]]; then wait_until_at_most 0; else wait_until_at_most "$((AT_ONCE - 1))"; fi
        begin "$name"
        [[ ${lane[$name]} != alone ]] || wait_until_at_most 0
    done
    wait_until_at_most 0
    echo
    if ((${#broken[@]} > 0)); then
        # The end of the output alone shows why.
        for name in "${broken[@]}"; do
            echo "--- why $name failed"
            summary_of "$name"
        done
        echo "failed: ${broken[*]}"
    fi
    local result="$passed passed, $failed failed"
    ((skipped == 0)) || result+=", $skipped skipped"
    echo "$result"
    ((failed == 0 && passed > 0))
}

begins_with() { # NAME PREFIX...
    local prefix
    for prefix in "${@:2}"; do [[ $1 == "$prefix"* ]] && return 0; done
    return 1
}

# Whether something that the step needs has failed: sets `lacking`.
lacks() { # NAME
    for lacking in ${needs[$1]}; do
        [[ ${ended[$lacking]:-} != failed ]] || return 0
    done
    return 1
}

# What these steps need: packages, and then what is built from sources.
prepare_all() { # NAME...
    local name need wanted=" " missing=()
    for name in "$@"; do wanted+="${needs[$name]} "; done
    for name in "${preparations[@]}"; do [[ $wanted != *" $name "* ]] || wanted+="${needs[$name]} "; done
    for need in $(tr ' ' '\n' <<<"$wanted" | grep = | sort -u); do
        command -v "${need%%=*}" >/dev/null || missing+=("$need")
    done
    if ((${#missing[@]})); then
        describe alone packages one 15 "" bash tests/prepare.sh packages "${missing[@]}"
        begin packages
        wait_until_at_most 0
        for need in "${missing[@]}"; do
            command -v "${need%%=*}" >/dev/null || ended[$need]=failed
        done
    fi
    for name in "${preparations[@]}"; do
        [[ $wanted == *" $name "* ]] || continue
        if lacks "$name"; then ended[$name]=failed && report_skipped "$name" "it needs $lacking, which failed" && continue; fi
        begin "$name"
        wait_until_at_most 0
    done
}

# --- Running --------------------------------------------------------------------------------------------------------

file_of() { echo "$work/${1//\//.}"; }

begin() { # NAME: starts it in the background
    local file mark
    file=$(file_of "$1")
    mark=$MARK.${1//\//.}
    printf -- '-- %s\n' "$1"
    began[$1]=$SECONDS
    running+=("$1")
    : >"$file.log"
    {
        HAFT_TESTS_MARK=$mark timeout --kill-after=20 "$((minutes[$1] * 60))" bash -c "${command[$1]}" >"$file.log" 2>&1
        echo $? >"$file.code"
        sweep "$mark" 20 >"$file.swept"
        mv "$file.code" "$file.done"
    } &
}

wait_until_at_most() { # COUNT: waits until no more steps than this run, and reports each that ends
    local name left beat=$((SECONDS + HEARTBEAT))
    while ((${#running[@]} > $1)); do
        left=()
        for name in "${running[@]}"; do
            if [[ -f $(file_of "$name").done ]]; then report "$name"; else left+=("$name"); fi
        done
        running=("${left[@]+"${left[@]}"}")
        ((${#running[@]} > $1)) || break
        sleep 0.2
        ((SECONDS >= beat)) || continue
        beat=$((SECONDS + HEARTBEAT))
        for name in "${running[@]}"; do
            printf '   %-24s %4s s  %s\n' "$name" "$((SECONDS - began[$name]))" "$(last_line "$(file_of "$name").log")"
        done
    done
}

last_line() { grep -v '^\s*$' "$1" | tail -n 1 | tr -d '[:cntrl:]' | cut -c 1-90; }

marked() { # MARK: the processes that a step has started and that still run
    local file
    for file in $(grep -lzE "^HAFT_TESTS_MARK=${1//./\\.}(\.|\$)" /proc/[0-9]*/environ 2>/dev/null); do
        file=${file#/proc/}
        echo "${file%/environ}"
    done
}

end_all() { # what has a handler for SIGTERM removes its folders
    local pid
    for pid in $(marked "$MARK"); do kill "$pid" 2>/dev/null; done
    sweep "$MARK" 30
}

# A program that was ended early cannot end what it started, and a stopped worker or a long drain time would keep that
# for an hour. What is ending already gets PATIENCE tenths of a second.
sweep() { # MARK PATIENCE
    local round pid left
    for ((round = 1; round <= $2 + 80; round++)); do
        left=$(marked "$1")
        [[ -n $left ]] || return 0
        sleep 0.1
        ((round > $2)) || continue
        for pid in $left; do
            ((round > $2 + 1)) ||
                echo "   left running, and ended now: $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c 1-60))"
            kill -KILL "$pid" 2>/dev/null
        done
    done
}

# --- Counting -------------------------------------------------------------------------------------------------------

# Adds up what the tool's own closing lines say; sets p, f and s. A check has no tests of its own and leaves them 0.
count_one() { p=0 f=0 s=0; }
count_cargo() { # LOG
    read -r p f s < <(awk '/^test result: / { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$1")
}
count_node() { # LOG
    read -r p f s < <(awk '$2 == "pass" { p += $3 } $2 == "fail" || $2 == "cancelled" { f += $3 }
        $2 == "skipped" || $2 == "todo" { s += $3 } END { print p + 0, f + 0, s + 0 }' <(grep -E '^ℹ [a-z]+ [0-9]+$' "$1"))
}

# The last lines of a step's output that are about what failed.
lines_of() { # NAME COUNT
    sed '/^✖ failing tests:/,$d; / \.\.\. ok$/d' "$(file_of "$1").log" | tail -n "$2" | sed 's/^/   | /'
}

# What the tool itself says at its end about what failed.
summary_of() { # NAME
    sed -n '/^\(✖ failing tests\|failures\):$/,$p' "$(file_of "$1").log" | head -n "$REPEATED" | grep . | sed 's/^/   | /' ||
        lines_of "$1" "$REPEATED"
}

report() { # NAME: counts a step that has ended
    local name=$1 log code p f s took
    log=$(file_of "$name").log
    code=$(<"$(file_of "$name").done")
    took="$((SECONDS - began[$name])) s"
    if ((code == SKIPPED)); then
        report_skipped "$name" "$(last_line "$log")"
        return
    fi
    "count_${counts[$name]}" "$log"
    # What failed without saying which test did (it did not compile, hung, crashed) is one failure all the same; so is a
    # test program that ran no test. A check is one test.
    if ((code != 0 && f == 0)); then f=1; fi
    if ((code == 0 && p + f + s == 0)); then if [[ ${counts[$name]} == one ]]; then p=1; else f=1; fi; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if ((f == 0)); then
        ended[$name]=ok
        printf '== %-24s ok    %s passed%s, %s\n' "$name" "$p" "$( ((s == 0)) || echo ", $s skipped")" "$took"
        grep -E '^ℹ ' "$log" | grep -vE '^ℹ [a-z_]+ [0-9.]+$' | sed 's/^ℹ /   /'
        sed -n 's/^figure: /   /p' "$log"
    else
        ended[$name]=failed
        broken+=("$name")
        printf '== %-24s FAILED %s passed, %s failed, %s\n' "$name" "$p" "$f" "$took"
        ((code != 124)) || echo "   it took longer than ${minutes[$name]} minutes and was ended"
        echo "   --- the last lines of $name"
        lines_of "$name" "$SHOWN"
        echo "   --- the end of $name"
    fi
    cat "$(file_of "$name").swept"
}

report_skipped() { # NAME REASON
    skipped=$((skipped + 1))
    ended[$1]=${ended[$1]:-skipped}
    printf '== %-24s skipped: %s\n' "$1" "$2"
}

#!/usr/bin/env bash
# The manual page and the completions of a haft: no complaint of what reads them, and the completions complete.
#
#     bash tests/deploy/manual.sh HAFT

set -eu -o pipefail
haft=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
die() { echo "$*" && exit 1; }

"$haft" man >"$work/haft.1"
complaints=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$work/haft.1" 2>&1 >/dev/null)
[[ -z $complaints ]] || die "man: $complaints"
# Style is the generator's; what a reader would miss is not.
mandoc -T lint -W warning "$work/haft.1" >"$work/lint" || die "mandoc: $(head -n 20 "$work/lint")"
MANWIDTH=100 man -l "$work/haft.1" | col -b >"$work/text"
for part in '--affinity' '--log-file' 'HAFT_FLAG_WORKERS' 'SIGNALS\|Signals:' 'completions'; do
    grep -qe "$part" "$work/text" || die "the manual page lacks $part"
done

"$haft" completions bash >"$work/bash"
bash -c '
    source "$1"
    COMP_WORDS=(haft --affi) COMP_CWORD=1 COMP_LINE="haft --affi"
    _haft haft --affi haft
    [[ " ${COMPREPLY[*]} " == *" --affinity "* ]]' bash "$work/bash" || die "bash completes no flag"
"$haft" completions zsh >"$work/_haft" && zsh -n "$work/_haft"
"$haft" completions fish >"$work/haft.fish"
fish --no-config -c "source $work/haft.fish; complete -C 'haft --affi'" | grep -q -- --affinity || die "fish completes no flag"

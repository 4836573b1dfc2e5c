#!/usr/bin/env bash
# deploy/logrotate/haft as logrotate reads it, and one rotation with a running haft: no line is lost.
#
#     bash tests/deploy/logrotate.sh HAFT
set -eu -o pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
chmod 755 "$work"
haft=
trap '[[ -z $haft ]] || kill -KILL $haft 2>/dev/null; rm -rf "$work"' EXIT
die() { echo "$*" && exit 1; }
wait_for() { # FILE TEXT
    for _ in {1..600}; do
        ! grep -qs "$2" "$1" || return 0
        sleep 0.05
    done
    die "$1 lacks: $2"
}

# The same file, for a log of this test's own and a haft that no service manager runs.
sed -e "s#/var/log/haft/#$work/#" -e "s#systemctl kill.*#kill -USR1 \$(cat $work/pid)#" deploy/logrotate/haft >"$work/rotate.conf"
chmod 644 "$work/rotate.conf"
grep -q 'kill -USR1' "$work/rotate.conf" || die "deploy/logrotate/haft sends no signal"
"$1" -w 1 -l 127.0.0.1:0 --log-file "$work/haft.log" &
haft=$!
echo $haft >"$work/pid"
wait_for "$work/haft.log" 'worker is ready'
logrotate --debug deploy/logrotate/haft 2>&1 | tee "$work/debug" >/dev/null
! grep -i '^error' "$work/debug" || die "logrotate finds mistakes"
logrotate --force --state "$work/state" "$work/rotate.conf"
wait_for "$work/haft.log" 'opened anew'
grep -q 'worker is ready' "$work/haft.log.1" || die "what came before is not in the rotated file"
kill -USR2 $haft
wait_for "$work/haft.log" 'SIGUSR2 does nothing'
kill $haft && wait $haft
haft=
wait_for "$work/haft.log" 'SIGTERM: accepting stops'

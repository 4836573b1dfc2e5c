#!/usr/bin/env bash
# The metrics of a running haft, as Prometheus' own tool judges them; and each metric that the dashboard of deploy/grafana and
# the alerts of deploy/prometheus name is one of them, in queries that Prometheus understands.
#
#     bash tests/deploy/metrics.sh HAFT
set -eu -o pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
haft=
trap '[[ -z $haft ]] || kill -KILL $haft 2>/dev/null; rm -rf "$work"' EXIT
die() { echo "$*" && exit 1; }

"$1" -w 2 -l 127.0.0.1:0 --admin "unix:$work/admin" 2>"$work/haft.log" &
haft=$!
ask() { curl -s --unix-socket "$work/admin" "$@"; }
for ((tries = 0; ; tries++)); do
    # The workers have told of themselves, too.
    ! ask http://haft/metrics 2>/dev/null | grep -q '^haft_worker_event_loop_delay_seconds{slot="1"' || break
    ((tries < 1200)) || die "haft has no metrics: $(cat "$work/haft.log")"
    sleep 0.05
done
ask http://haft/metrics >"$work/metrics"
ask -H 'Accept: application/openmetrics-text; version=1.0.0' http://haft/metrics >"$work/openmetrics"
promtool check metrics <"$work/metrics"
[[ $(tail -n 1 "$work/openmetrics") == '# EOF' ]] || die "the OpenMetrics form has no end"
python3 tests/deploy/dashboard.py "$work/metrics" "$work/queries.yml"
promtool check rules deploy/prometheus/haft.rules.yml "$work/queries.yml"
kill -TERM $haft
wait $haft
haft=
echo "metrics: ok"

#!/usr/bin/env bash
# deploy/pm2/ecosystem.config.js with pm2 itself: pm2 runs haft as one process, haft serves by its workers, and `pm2 stop` ends
# all of them in order.
#
#     bash tests/deploy/pm2.sh HAFT
set -eu -o pipefail
cd "$(dirname "$0")/../.."
source tests/deploy/lib.sh
readonly PM2_VERSION=7.0.4
haft=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
pm2="$TOOLS/pm2-$PM2_VERSION/node_modules/.bin/pm2"
trap '"$pm2" kill >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
die() { echo "$*" && cat "$work"/home/logs/* && exit 1; }

[[ -x $pm2 ]] || npm install --silent --no-audit --no-fund --prefix "$TOOLS/pm2-$PM2_VERSION" "pm2@$PM2_VERSION"
export PM2_HOME=$work/home PATH=$work/bin:$PATH
mkdir "$work/bin" && ln -s "$haft" "$work/bin/haft" && cp deploy/pm2/ecosystem.config.js "$work"
PORT=$(free_port)
export PORT
cat >"$work/server.js" <<'JS'
require('http').createServer((_, response) => response.end(`${process.ppid} of ${process.env.NODE_ENV}`)).listen(process.env.PORT, '127.0.0.1');
JS
cd "$work"
"$pm2" start ecosystem.config.js >/dev/null
for _ in {1..600}; do
    ! page=$(curl -sf "http://127.0.0.1:$PORT/") || break
    sleep 0.05
done
[[ $page == *' of production' ]] || die "no page is served: $page"
master=$("$pm2" pid app)
[[ $page == "$master of production" ]] || die "the workers' parent is not what pm2 has started: $page, $master"
"$pm2" stop app >/dev/null
grep -q 'SIGINT: accepting stops' home/logs/app-error*.log || die "haft did not stop in order"
[[ ! -e /proc/$master ]] || die "haft runs on"

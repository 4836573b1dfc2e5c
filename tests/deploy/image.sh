#!/usr/bin/env bash
# The container images of deploy/docker, built by buildah and run by runc, without a daemon and without pulling: what a
# Dockerfile builds on is made here of this host's files.
#
#     bash tests/deploy/image.sh FOLDER           the folder that deploy/build.sh has filled

set -eu -o pipefail
source "$(dirname "$0")/lib.sh"
artefacts=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
export STORAGE_DRIVER=vfs TMPDIR=$work
storage=(--root "$work/storage" --runroot "$work/run")
readonly SKIPPED=77
running=
trap 'end' EXIT

end() {
    [[ -z $running ]] || kill -KILL "$running" 2>/dev/null || true
    buildah "${storage[@]}" rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
die() { echo "$*" && exit 1; }
# Only this format has health checks.
build() { buildah "${storage[@]}" build --format docker --isolation chroot --pull=never --quiet "$@"; }

echo "the image of haft alone"
began=$(date +%s.%N)
build --build-arg PROGRAM=given -t localhost/haft:test -f deploy/docker/Dockerfile "$artefacts" >/dev/null
config=$(buildah "${storage[@]}" inspect --type image localhost/haft:test)
python3 - "$config" <<'PYTHON'
import json, sys
image = json.loads(sys.argv[1])["Docker"]["config"]
assert image["Healthcheck"]["Test"] == ["CMD", "/usr/bin/haft", "health"], image
assert image["User"] == "65532:65532", image
assert image["StopSignal"] == "SIGTERM", image
assert image["Entrypoint"] == ["/usr/bin/haft"], image
PYTHON
buildah "${storage[@]}" push --quiet localhost/haft:test "docker-archive:$work/haft.tar"
echo "figure: size of haft's image, compressed: $(($(gzip -c "$work/haft.tar" | wc -c) / 1024)) KiB"

# Starts a container of an image; what it writes is in $work/log. Its network is the host's.
container=
start() { # IMAGE FLAGS...
    container=$(buildah "${storage[@]}" from --pull-never "$1")
    buildah "${storage[@]}" run --isolation oci --runtime runc --network host --user 65532:65532 "${@:2}" "$container" -- \
        $command >"$work/log" 2>&1 &
    running=$!
}
# What the engine runs to see whether the container is healthy.
health() { buildah "${storage[@]}" run --isolation oci --runtime runc --network host --user 65532:65532 "$container" -- /usr/bin/haft health; }
# The process of a container is the child of the runtime's: the one that runs as this user.
master() { pgrep -u 65532 -f "^$1" | head -n 1; }
stop() { # COMMAND: SIGTERM to its process 1, which must end it in order
    kill -TERM "$(master "$1")"
    wait "$running" || { cat "$work/log" && die "it did not stop well"; }
    running=
}

port=$(free_port)
command="/usr/bin/haft"
start localhost/haft:test --env HAFT_FLAG_LISTEN="127.0.0.1:$port" --env HAFT_FLAG_WORKERS=1
if grep -q 'error running container' <(sleep 1; cat "$work/log"); then
    cat "$work/log"
    echo "containers cannot be run on this machine"
    exit "$SKIPPED"
fi
[[ $(page "http://127.0.0.1:$port/" "$running" "$work/log") == *socket.io* ]] || die "no page is served"
echo "figure: from the static program to a page served by a container: $(awk "BEGIN { printf \"%.1f\", $(date +%s.%N) - $began }") s"
health || die "a healthy container is not told to be"
grep -q 'haft is process 1 and --drain-timeout is 25s' "$work/log" || { cat "$work/log" && die "it does not hint at the time to stop"; }
stop /usr/bin/haft
! health >/dev/null 2>&1 || die "a container in which haft has ended is told to be healthy"

echo "the image of a Node application"
mkdir -p "$work/node/root" "$work/app"
node=$(readlink -f "$(command -v node)")
for file in "$node" $(ldd "$node" | grep -o '/[^ )]*') /bin/sh $(ldd /bin/sh | grep -o '/[^ )]*'); do
    mkdir -p "$work/node/root$(dirname "$file")" && cp -L "$file" "$work/node/root$file"
done
mkdir -p "$work/node/root/usr/local/bin" "$work/node/root/tmp" && chmod 1777 "$work/node/root/tmp"
[[ -e $work/node/root/usr/local/bin/node ]] || ln -s "$node" "$work/node/root/usr/local/bin/node"
printf 'FROM scratch\nCOPY root /\nENV PATH=/usr/local/bin:/usr/bin:/bin\n' >"$work/node/Dockerfile"
build -t localhost/node:test "$work/node" >/dev/null
cat >"$work/app/server.js" <<'JS'
require('http').createServer((_, response) => response.end(`worker ${process.env.HAFT_SLOT}`)).listen(process.env.PORT, '127.0.0.1');
JS
build --build-arg HAFT=localhost/haft:test --build-arg NODE=localhost/node:test -t localhost/app:test \
    -f deploy/docker/node.Dockerfile "$work/app" >/dev/null
port=$(free_port)
command="/usr/bin/haft -- node server.js"
start localhost/app:test --env PORT="$port" --env HAFT_FLAG_WORKERS=2 --env HAFT_FLAG_DRAIN_TIMEOUT=5s
[[ $(page "http://127.0.0.1:$port/" "$running" "$work/log") == 'worker '[01] ]] || die "no page is served"
health || die "a healthy application is not told to be"
! grep -q 'haft is process 1' "$work/log" || die "it hints at the time to stop though that is long enough"
stop "/usr/bin/haft -- node"

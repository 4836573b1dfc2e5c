#!/usr/bin/env bash
# The files of deploy/kubernetes and deploy/docker/compose.yaml: each fits its schema, and what they say of haft is so.
#
#     bash tests/deploy/kubernetes.sh HAFT
set -eu -o pipefail
cd "$(dirname "$0")/../.."
haft=$1
python=$TOOLS/kubernetes/bin/python3
[[ -x $python ]] || { python3 -m venv "$TOOLS/kubernetes" && "$TOOLS/kubernetes/bin/pip" install --quiet kubernetes-validate==1.37.0 pyyaml==6.0.3; }
"$python" tests/deploy/kubernetes.py "$haft"

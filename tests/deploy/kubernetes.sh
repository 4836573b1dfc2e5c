#!/usr/bin/env bash
# The files of deploy/kubernetes and deploy/docker/compose.yaml: each fits its schema, and what they say of haft is so.
#
#     bash tests/deploy/kubernetes.sh HAFT
set -eu -o pipefail
cd "$(dirname "$0")/../.."
haft=$1
python=$TOOLS/kubernetes/bin/python3
[[ -x $python ]] || { python3 -m venv "$TOOLS/kubernetes" && "$TOOLS/kubernetes/bin/pip" install --quiet kubernetes-validate==1.37.0 pyyaml==6.0.3; }
gateway=$TOOLS/gateway-api-2.0.0
# It asks for Node 22 or newer; what is used of it runs on 20, too.
[[ -e $gateway/installed ]] || { npm install --prefix "$gateway" --silent --no-audit --no-fund --ignore-scripts \
    @kubernetes-models/gateway-api@2.0.0 && touch "$gateway/installed"; }
"$python" tests/deploy/kubernetes.py "$haft" "$gateway"

#!/usr/bin/env bash
# Brings up the test cluster with the current images and operator chart, then runs the cluster tests against it.
# The cluster is its own (never the one of `make up`) and is kept between runs; KEEP=0 deletes it afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

name=${TEST_CLUSTER:-novacore-test}
port=${TEST_PORT:-5055}
bin=$PWD/.tools/bin
kubeconfig=$PWD/.tools/kubeconfig-$name

python3 -m hack.cluster tools
python3 -m hack.cluster faketime
python3 -m hack.cluster up --name "$name" --port "$port" --replace
python3 -m hack.cluster images
python3 -m hack.cluster load --name "$name"

code=0
NOVACORE_URL=http://127.0.0.1:$port "$bin/uv" run --frozen pytest tests/cluster \
  --cluster-name "$name" --kubeconfig "$kubeconfig" --kind-bin "$bin/kind" --kind-kubectl-bin "$bin/kubectl" \
  --keep-cluster --durations=15 "$@" || code=$?

if [ "${KEEP:-1}" = 0 ]; then python3 -m hack.cluster down --name "$name"; fi
exit $code

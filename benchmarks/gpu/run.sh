#!/usr/bin/env bash
# GPU tests and benchmarks in one command, under ten minutes, on a machine without a package registry.
#
#   benchmarks/gpu/run.sh [folder for the results, default runs/gpu]
#
# PYTHON: interpreter that has torch, transformers, lightning, torchmetrics, peft (default python3). Wheels that
# benchmarks/gpu/prepare.sh collected are installed beside them, into build/gpu_site; nothing else is touched.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
OUT=${1:-runs/gpu}

if ! "$PYTHON" -c 'import torch'; then
    echo "$PYTHON has no torch: set PYTHON to the interpreter that has it." >&2
    exit 1
fi
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "torch sees no GPU on this machine: nothing was run. Take the repository, with build/wheels from" \
        "benchmarks/gpu/prepare.sh, to a machine that has one." >&2
    exit 1
fi

mkdir -p "$OUT"
if compgen -G 'build/wheels/*.whl' >/dev/null; then
    rm -rf build/gpu_site
    "$PYTHON" -m pip install --disable-pip-version-check --quiet --no-index --no-deps --target build/gpu_site \
        build/wheels/*.whl
fi
export PYTHONPATH="$PWD/build/gpu_site:$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false CUBLAS_WORKSPACE_CONFIG=:4096:8

"$PYTHON" -m torch.utils.collect_env >"$OUT/environment.txt" 2>&1 || true
status=0
echo "== GPU tests"
timeout 240 "$PYTHON" -m pytest tests/gpu -m gpu -rs --timeout 120 2>&1 | tee "$OUT/tests.txt" || status=1
echo "== resident, offload, auto"
timeout 180 "$PYTHON" benchmarks/gpu/placement.py --device cuda --out "$OUT" || status=1
echo "== GRPO step"
timeout 170 "$PYTHON" benchmarks/grpo_step.py --device cuda --sections case groups audio \
    --out "$OUT/grpo_step.json" --write-docs "$OUT" || status=1
echo "Results are in $OUT."
exit $status

#!/usr/bin/env bash
# Collects, on a machine with a package registry, the wheels that the GPU machine lacks, into build/wheels.
#
#   benchmarks/gpu/prepare.sh [--with-trl]
#
# PYTHON: interpreter whose pip downloads (default python3). GPU_PYTHON: Python version of the GPU machine.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
GPU_PYTHON=${GPU_PYTHON:-3.12}
lists=(-r benchmarks/gpu/wheels.txt)
case "${1:-}" in
    "") ;;
    --with-trl) lists+=(-r benchmarks/gpu/wheels_trl.txt) ;;
    *) echo "usage: $0 [--with-trl]" >&2; exit 2 ;;
esac

rm -rf build/wheels
"$PYTHON" -m pip download --disable-pip-version-check --quiet --no-deps --only-binary=:all: \
    --python-version "$GPU_PYTHON" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux_2_5_x86_64 --dest build/wheels "${lists[@]}"
echo "$(find build/wheels -name '*.whl' | wc -l) wheels, $(du -sh build/wheels | cut -f1), in build/wheels." \
    "Take the repository with build/wheels to the GPU machine and run benchmarks/gpu/run.sh there."

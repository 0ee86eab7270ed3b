"""Tests that need CUDA; skipped elsewhere. `benchmarks/gpu/run.sh` runs them on a machine without a registry."""

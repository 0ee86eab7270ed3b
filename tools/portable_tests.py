"""The whole test suite under every kind of CPU kernel that this processor has, with one thread and with two.

A sum has another order in AVX-512 kernels than in AVX2 ones, and in two threads than in one. A test that passes here
under all of them asserts what any machine must show.

python tools/portable_tests.py [arguments for pytest, such as tests/ops or -x]
"""

from __future__ import annotations

import os
import subprocess
import sys

#: What ATEN_CPU_CAPABILITY may name, each beside the flags that a processor must have for it.
CAPABILITIES: dict[str, set[str]] = {
    "default": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
}
THREADS = (1, 2)
PYTEST = ("-m", "pytest", "--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile")


def cpu_flags() -> set[str]:
    """As the kernel names them; of another system than Linux on x86 there are none, so that `default` alone is run."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("flags")]
    except OSError:
        return set()
    return set(lines[0].partition(":")[2].split()) if lines else set()


def run(capability: str, threads: int, arguments: list[str]) -> bool:
    """Whether the suite passes."""
    print(f"== ATEN_CPU_CAPABILITY={capability}, {threads} thread(s)", flush=True)
    environment = os.environ | {
        "ATEN_CPU_CAPABILITY": capability,
        "AUDIORL_TEST_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        # Threads that wait for work give their core to the other test process; spinning, they take ten times as long.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return (
        subprocess.run(
            [sys.executable, *PYTEST, *arguments], env=environment, check=False
        ).returncode
        == 0
    )


def main(arguments: list[str]) -> int:
    flags = cpu_flags()
    failed = []
    for capability, needed in CAPABILITIES.items():
        if not needed <= flags:
            # A kernel that the processor does not know would end the process.
            print(
                f"== {capability}: skipped, this processor lacks {', '.join(sorted(needed - flags))}",
                flush=True,
            )
            continue
        for threads in THREADS:
            if not run(capability, threads, arguments):
                failed.append(f"{capability} with {threads} thread(s)")

    print("Failed: " + "; ".join(failed) if failed else "All passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

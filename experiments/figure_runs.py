"""Runs of ``audiorl`` from settings in Python: one folder each, done once, so that an interrupted figure goes on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from lightning_audiorl.callbacks.environment import versions

Figures = dict[str, dict[str, float]]
"""By evaluation set and figure."""
Spec = dict[str, Any]


def spec(name: str, /, **arguments: Any) -> Spec:
    """A class of this package with its arguments, as YAML writes it: ``data.FsddDigits`` -> class path, init_args."""
    return {"class_path": f"lightning_audiorl.{name}", "init_args": arguments}


def audiorl(command: str, settings: Spec, folder: Path, resume: bool = False) -> float:
    """Run ``audiorl <command>`` on ``settings`` unless ``folder`` says that it was done; returns its seconds.

    The settings stay in ``<folder>/<command>.yaml``, what it printed in ``<command>.log``.

    Args:
        command: of ``audiorl``.
        settings: of the command.
        folder: of the run.
        resume: a fit that was broken off goes on from its last checkpoint; its seconds are then of the rest alone.

    Raises:
        RuntimeError: it failed; names the log and shows its end. ValueError: it was done with other settings.
    """
    done, config = folder / f"{command}.seconds.json", folder / f"{command}.yaml"
    text = yaml.safe_dump(settings, sort_keys=False)

    # A finished run is not repeated.
    if done.is_file():
        if yaml.safe_load(config.read_text()) != yaml.safe_load(text):
            raise ValueError(
                f"{config}: was run with other settings; remove {folder} or choose another --out"
            )
        return float(json.loads(done.read_text()))

    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    log = folder / f"{command}.log"

    start = time.perf_counter()
    with log.open("w") as out:
        args = [sys.executable, "-m", "lightning_audiorl", command, "--config", str(config)]
        # A run that was broken off is begun anew where its seconds matter.
        if command == "fit":
            checkpoint = folder / "checkpoints" / "last.ckpt"
            goes_on = resume and checkpoint.is_file()
            args += ["--ckpt_path", str(checkpoint)] if goes_on else ["--overwrite"]
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        code = subprocess.run(args, stdout=out, stderr=out, check=False, env=environment).returncode

    if code != 0:
        raise RuntimeError(f"audiorl {command} failed; see {log}:\n{log.read_text()[-2000:]}")
    seconds = time.perf_counter() - start
    done.write_text(json.dumps(seconds))
    return seconds


def trainer(folder: Path) -> Spec:
    """Trainer settings of a run on a CPU that evaluates once, at its end."""
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    return {
        "accelerator": "cpu",
        "default_root_dir": str(folder),
        "logger": logger,
        "num_sanity_val_steps": 0,
    }


def fit(folder: Path, seed: int, model: Spec, data: Spec) -> tuple[Path, Figures]:
    """One training run: its exported folder, and the figures of the evaluation sets at its end."""
    settings = {"seed_everything": seed, "trainer": trainer(folder), "model": model, "data": data}
    audiorl("fit", settings, folder)
    return folder / "export", last_figures(folder / "report" / "report.json")


def validate(folder: Path, seed: int, model: Spec, data: Spec) -> Figures:
    """The figures of a model that is not trained."""
    settings = {
        "seed_everything": seed,
        "trainer": trainer(folder) | {"logger": False},
        "model": model,
        "data": data,
    }
    audiorl("validate", settings, folder)
    return last_figures(newest_evaluation(folder))


def newest_evaluation(folder: Path) -> Path:
    """The report of the last `audiorl validate` in a folder: each has one of its own there."""
    reports = folder.glob("validate*/report/validate.json")
    return max(reports, key=lambda path: path.stat().st_mtime)


def last_figures(report: Path) -> Figures:
    """The last evaluation of a run report; NaN where it has none."""
    results = json.loads(report.read_text())["evaluations"][-1]["results"]
    return {
        name: {
            key: float("nan") if value is None else float(value) for key, value in figures.items()
        }
        for name, figures in results.items()
    }


def side_by_side(jobs: Sequence[Callable[[], Any]], num_jobs: int) -> list[Any]:
    """Results of the jobs, ``num_jobs`` at a time, in order."""
    with ThreadPoolExecutor(num_jobs) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def made_with() -> dict[str, str]:
    """Commit, machine and versions, for the foot of a page."""
    root = Path(__file__).parents[1]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "lightning_audiorl"], cwd=root, capture_output=True
    )

    state = (commit.stdout.strip() or "unknown") + (" with changes" if changed.stdout else "")

    names = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    machine = (
        f"{os.cpu_count()} x {names[0].partition(':')[2].strip() if names else platform.machine()}"
    )
    return {
        "commit": state,
        "machine": machine,
        "threads per run": os.environ.get("OMP_NUM_THREADS", "1"),
        **versions(),
    }

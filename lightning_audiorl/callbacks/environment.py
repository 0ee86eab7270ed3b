"""Versions, machine, seeds and settings: what someone needs to repeat a run."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from lightning_audiorl import __version__
from lightning_audiorl.callbacks.view import RunView

_PACKAGES = ("torch", "torchaudio", "lightning", "transformers", "torchmetrics", "jiwer", "peft")


def versions() -> dict[str, str]:
    """Versions of this library, of Python and of what the numbers depend on.

    Example:
        >>> list(versions())[:3]
        ['lightning_audiorl', 'python', 'torch']
    """
    found = {"lightning_audiorl": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    """Its model name; `platform` knows none on Linux."""
    path = Path("/proc/cpuinfo")
    lines = []
    if path.is_file():
        lines = path.read_text(errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if names:
        return names[0]
    return platform.processor() or platform.machine()


def machine(trainer: Trainer) -> dict[str, Any]:
    """Processor, threads, and the device that the run used."""
    device = trainer.strategy.root_device
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
    }


def seeds(run: RunView) -> dict[str, Any]:
    """The seed that keys every draw, and Lightning's global one."""
    return {"seed": run.seed, "seed_everything": os.environ.get("PL_GLOBAL_SEED")}


def settings(trainer: Trainer) -> dict[str, Any]:
    """The resolved settings of the command line, from the callback that saves them; empty in a plain script."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        # Lightning's SaveConfigCallback, or any that keeps the same two.
        parser = getattr(callback, "parser", None)
        config = getattr(callback, "config", None)
        if parser is not None and config is not None:
            return json.loads(parser.dump(config, format="json", skip_validation=True))
    return {}


def model_facts(run: RunView) -> dict[str, Any]:
    """Class, size and origin of the policy."""
    policy = run.policy
    return {
        "class": type(policy).__name__,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "trainable": sum(p.numel() for p in policy.trainable().values()),
        "start": policy.start.record(),
        "start_hash": run.start_hash,
    }

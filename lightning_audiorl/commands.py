"""Commands beside Lightning's own: one function each, its arguments are the command's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from lightning_audiorl.calibration import calibrate
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.planner.command import plan
from lightning_audiorl.prediction import predict


def export(policy: Policy, folder: str, dtype: str | None = None) -> None:
    """Write a policy as a folder that the transformers class loads with ``from_pretrained``.

    Args:
        policy: class path and arguments; its ``init_from`` may be a Lightning checkpoint.
        folder: where to write.
        dtype: of the written weights, such as "bfloat16"; None writes them as the policy has them.
    """
    if dtype is not None:
        policy.to(getattr(torch, dtype))
    Path(folder).mkdir(parents=True, exist_ok=True)
    policy.export(folder)
    print(f"exported to {folder}")


COMMANDS: dict[str, Callable[..., None]] = {
    "calibrate": calibrate,
    "export": export,
    "plan": plan,
    "predict": predict,
}

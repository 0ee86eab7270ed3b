"""``audiorl export``: a policy as a folder for ``from_pretrained``."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_audiorl.models.policy import Policy


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

"""``audiorl export``: a policy as a folder for ``from_pretrained``."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_audiorl.models.finetune import merge_lora
from lightning_audiorl.models.policy import Policy

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(policy: Policy, folder: str, dtype: str | None = None) -> None:
    """Write a policy as a folder that the transformers class loads with ``from_pretrained``.

    Args:
        policy: class path and arguments; its ``init_from`` may be a Lightning checkpoint.
        folder: where to write.
        dtype: of the written weights, "float32", "bfloat16" or "float16"; None writes them as the policy has them.

    Raises:
        ValueError: for another dtype; for the folder that the policy was loaded from.
    """
    policy.check_export(folder)
    if dtype is not None:
        if dtype not in _DTYPES:
            raise ValueError(f"export: dtype={dtype!r}; expected one of {', '.join(_DTYPES)}")
        # Adapters first: what they add to rounded weights would be rounded again.
        merge_lora(policy)
        policy.to(_DTYPES[dtype])
    Path(folder).mkdir(parents=True, exist_ok=True)
    policy.export(folder)
    print(f"exported to {folder}")

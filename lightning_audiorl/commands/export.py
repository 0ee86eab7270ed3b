"""``audiorl export``: a policy as a folder for ``from_pretrained``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_audiorl.callbacks.model_card import ModelCard, export_card
from lightning_audiorl.models.finetune import merge_lora
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.weights.checkpoints import read_checkpoint

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(policy: Policy, folder: str, dtype: str | None = None) -> None:
    """Write a policy as a folder that the transformers class loads with ``from_pretrained``, with a model card.

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
    export_card(folder, _card(policy))
    print(f"exported to {folder}")


def _card(policy: Policy) -> ModelCard:
    """What the checkpoint that the policy came from says of its run; of a folder or hub id, nothing."""
    checkpoints = policy.start.record()["checkpoints"]
    if not checkpoints:
        return ModelCard(policy)

    checkpoint: dict[str, Any] = read_checkpoint(checkpoints[-1])
    record = checkpoint["audiorl"]
    run = checkpoint.get("callbacks", {}).get("Export", {}).get("run", {})
    evaluations = [one for one in record.get("evaluations", []) if one["kind"] == "val"]
    return ModelCard(
        policy,
        run or {"algorithm": record.get("algorithm", "training")},
        int(record["rl_step"]),
        evaluations[0] if evaluations else None,
        evaluations[-1] if len(evaluations) > 1 else None,
    )

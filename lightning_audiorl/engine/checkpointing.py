"""What a checkpoint says of its run, and whether it belongs to another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lightning_audiorl.models.finetune import base_dtypes
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.models.reference import content_hash

_NEW_RUN = "; to begin a new run from a checkpoint, give it as init_from instead of ckpt_path"


def trainable_keys(policy: Policy) -> set[str]:
    """Keys of the trainable tensors in the state dict of a module that holds the policy."""
    return {f"policy.{name}" for name in policy.trainable()}


def run_record(
    policy: Policy,
    algorithm: str,
    losses: list[str],
    start_hash: str | None,
    rl_step: int,
    evaluations: list[dict[str, Any]],
) -> dict[str, Any]:
    """The entry ``audiorl`` of a checkpoint, in plain data."""
    return {
        "tensors": sorted(trainable_keys(policy)),
        "start": policy.start.record(),
        "start_hash": start_hash,
        "finetune": asdict(policy.finetune),
        "dtypes": base_dtypes(policy),
        "rl_step": rl_step,
        "algorithm": algorithm,
        "losses": losses,
        "evaluations": evaluations,
    }


def check_record(
    checkpoint: Mapping[str, Any],
    policy: Policy,
    algorithm: str,
    losses: list[str],
    start_hash: str | None,
    resumes: bool,
    state_keys: set[str],
) -> dict[str, Any]:
    """The entry ``audiorl`` of a checkpoint that belongs to this run.

    A run goes on only with its own algorithm, losses, trainable tensors and start. Evaluation takes any checkpoint
    whose tensors the model has and whose start is the same.

    Args:
        checkpoint: as loaded.
        policy: the model here.
        algorithm: name of the LightningModule here.
        losses: names of its losses.
        start_hash: content hash of the policy when training began; None computes it.
        resumes: whether training goes on.
        state_keys: of the module's state dict.

    Raises:
        ValueError: saying what differs.
    """
    saved: dict[str, Any] | None = checkpoint.get("audiorl")
    if saved is None:
        raise ValueError("not a checkpoint of this library (no 'audiorl' entry)")

    # The names come from the record: FSDP has taken the tensors themselves out by now.
    held = set(saved["tensors"])
    if resumes:
        if saved["algorithm"] != algorithm:
            raise ValueError(
                f"ckpt_path: a run of {saved['algorithm']}, not of {algorithm}{_NEW_RUN}"
            )

        # Earlier builds did not write the losses down: their algorithms had one set each.
        before = saved.get("losses", losses)
        if before != losses:
            raise ValueError(
                f"ckpt_path: a run with the losses {', '.join(before)}, not {', '.join(losses)}{_NEW_RUN}"
            )
        differing = held ^ trainable_keys(policy)
    else:
        differing = held - state_keys

    if differing:
        where = "checkpoint" if min(differing) in held else "policy"
        raise ValueError(
            f"ckpt_path: made with another finetune setting; {len(differing)} trainable tensors differ, "
            f"{min(differing)} is only in the {where}{_NEW_RUN}"
        )

    # Frozen tensors and the reference are no part of a checkpoint: both come from the start, so it must be the same.
    here = start_hash or content_hash(policy)
    if saved["start_hash"] != here:
        raise ValueError(
            f"ckpt_path: its run began from other weights than the policy was built from (start {saved['start']}, "
            f"content hash {saved['start_hash']}; here {policy.start.record()}, {here}): reference and "
            f"frozen parts would not be the same. Give the same init_from{_NEW_RUN}"
        )
    return saved

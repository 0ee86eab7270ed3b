"""What a checkpoint says of its run, and whether it belongs to another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import Strategy

from lightning_audiorl.models.finetune import base_dtypes
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.weights.checkpoints import (
    hashes_of,
    other_vocabulary,
    read_checkpoint,
    require_whole,
)
from lightning_audiorl.weights.tensors import WeightsError

_NEW_RUN = "; to begin a new run from a checkpoint, give it as init_from instead of ckpt_path"


def trainable_keys(policy: Policy) -> set[str]:
    """Keys of the trainable tensors in the state dict of a module that holds the policy."""
    return {f"policy.{name}" for name in policy.trainable()}


def keep_trained(checkpoint: dict[str, Any], policy: Policy) -> None:
    """Leave the policy's trainable tensors in a checkpoint, and no others: they are rebuilt from the start."""
    keys = trainable_keys(policy)
    checkpoint["state_dict"] = {
        key: value for key, value in checkpoint["state_dict"].items() if key in keys
    }


def run_record(
    checkpoint: Mapping[str, Any],
    policy: Policy,
    algorithm: str,
    losses: list[str],
    start_hash: str | None,
    rl_step: int,
    evaluations: list[dict[str, Any]],
) -> dict[str, Any]:
    """The entry ``audiorl`` of a checkpoint that is whole but for it, in plain data."""
    return {
        "tensors": sorted(trainable_keys(policy)),
        "hashes": hashes_of(checkpoint),
        "start": policy.start.record(),
        "start_hash": start_hash,
        "vocabulary": policy.vocabulary_hash(),
        "finetune": asdict(policy.finetune),
        "dtypes": base_dtypes(policy),
        "rl_step": rl_step,
        "algorithm": algorithm,
        "losses": losses,
        "evaluations": evaluations,
    }


def check_before_loading(strategy: Strategy) -> None:
    """See from now on that a checkpoint is whole, and as it was written, before the trainer reads anything of it.

    Lightning names a checkpoint to no hook before its own reading fails, or succeeds with damaged values.

    Args:
        strategy: of the trainer; its ``load_checkpoint`` then raises what `read_checkpoint` does.
    """
    if not isinstance(strategy.load_checkpoint, _CheckedLoad):
        strategy.load_checkpoint = _CheckedLoad(strategy.load_checkpoint)  # type: ignore[method-assign]


@dataclass(frozen=True)
class _CheckedLoad:
    """A strategy's ``load_checkpoint``, behind `read_checkpoint`."""

    load: Callable[..., Any]

    def __call__(self, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Any:
        if _is_here(checkpoint_path):
            read_checkpoint(checkpoint_path)
        return self.load(checkpoint_path, *args, **kwargs)


def _is_here(path: str | Path) -> bool:
    """Whether a file is on this machine; others Lightning fetches."""
    return "://" not in str(path)


def check_record(
    checkpoint: Mapping[str, Any],
    policy: Policy,
    algorithm: str,
    losses: list[str],
    start_hash: str | None,
    path: str | Path | None,
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
        path: where it was loaded from; None where that is not known.
        resumes: whether training goes on.
        state_keys: of the module's state dict.

    Raises:
        ValueError: saying what differs.
    """
    where = "ckpt_path" if path is None else f"ckpt_path {path}"
    # What `check_before_loading` has not seen.
    if path is None or not _is_here(path):
        try:
            require_whole(checkpoint)
        except WeightsError as error:
            raise WeightsError(f"{where} {error}") from error
    saved: dict[str, Any] = checkpoint["audiorl"]

    # The names come from the record: FSDP has taken the tensors themselves out by now.
    held = set(saved["tensors"])
    if resumes:
        if saved["algorithm"] != algorithm:
            raise ValueError(
                f"{where}: a run of {saved['algorithm']}, not of {algorithm}{_NEW_RUN}"
            )

        # Earlier builds did not write the losses down: their algorithms had one set each.
        before = saved.get("losses", losses)
        if before != losses:
            raise ValueError(
                f"{where}: a run with the losses {', '.join(before)}, not {', '.join(losses)}{_NEW_RUN}"
            )
        differing = held ^ trainable_keys(policy)
    else:
        differing = held - state_keys

    if differing:
        where = "checkpoint" if min(differing) in held else "policy"
        raise ValueError(
            f"{where}: made with another finetune setting; {len(differing)} trainable tensors differ, "
            f"{min(differing)} is only in the {where}{_NEW_RUN}"
        )

    # The scale of adapters is no tensor; earlier builds did not write it down.
    lora_alpha = (saved.get("finetune") or {}).get("lora_alpha", policy.finetune.lora_alpha)
    if policy.finetune.lm == "lora" and lora_alpha != policy.finetune.lora_alpha:
        raise ValueError(
            f"{where}: its adapters were trained with lora_alpha {lora_alpha}, and would be scaled otherwise with "
            f"lora_alpha {policy.finetune.lora_alpha}; give the same finetune.lora_alpha{_NEW_RUN}"
        )

    # Neither is what a token stands for.
    before = saved.get("vocabulary")
    if before is not None and before != policy.vocabulary_hash():
        raise ValueError(f"{where}: {other_vocabulary(policy.start.record())}{_NEW_RUN}")

    # Frozen tensors and the reference are no part of a checkpoint: both come from the start, so it must be the same.
    here = start_hash or content_hash(policy)
    if saved["start_hash"] != here:
        raise ValueError(
            f"{where}: its run began from other weights than the policy was built from "
            f"(start {saved['start']}, content hash {saved['start_hash']}; here {policy.start.record()}, {here}): "
            f"reference and frozen parts would not be the same. Give the same init_from{_NEW_RUN}"
        )
    return saved

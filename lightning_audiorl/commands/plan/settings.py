"""What a plan needs to know of a run, read from the YAML that ``audiorl fit`` takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning import LightningDataModule

from lightning_audiorl.algorithms import GRPO, SFT, AudioRLModule, GRPODiffRO
from lightning_audiorl.models import Policy
from lightning_audiorl.serving import Engine, LocalEngine
from lightning_audiorl.types import Decoding

# The Trainer's precision -> dtype of the weights where it is not the policy's own, dtype of the forward passes where
# it differs from the weights'.
_PRECISIONS = {
    "32-true": (None, None), "32": (None, None), "bf16-mixed": (None, "bfloat16"), "bf16-true": ("bfloat16", None),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """One run.

    Args:
        make_policy: calls the constructor of the policy, with the arguments of the YAML file.
        autocast: dtype of the forward passes where it differs from the weights' ("bfloat16"), or None.
        group_size: G; 1 for supervised training.
        needs_rollout: False for supervised training, which has no rollout, reward and reference phase.
        beta: 0 means no reference phase.
        batch_size: prompts per step, over all ranks.
        rollout_batch_size, micro_batch_size, max_tokens, chunk_size, decoding: as in `GRPO`.
        keep_context: encoded prompts stay on the device for the whole step.
        accelerator: "cpu", or anything else for a GPU.
        engine: where completions come from; None is our own sampler.
        copy_weights: whether that makes copies of the weights.
    """

    make_policy: Callable[[], Policy]
    autocast: str | None
    group_size: int
    needs_rollout: bool
    beta: float
    batch_size: int
    rollout_batch_size: int
    micro_batch_size: int
    max_tokens: int
    chunk_size: int | None
    decoding: Decoding
    keep_context: bool
    accelerator: str
    engine: Engine | None = None
    copy_weights: bool = False


def read_settings(
    path: str | Path,
    batch_size: int | None = None,
    accelerator: str | None = None,
    read: Callable[[Path], Any] | None = None,
) -> Settings:
    """Settings of the run that ``path`` describes.

    Args:
        path: YAML file.
        batch_size: in place of the data module's.
        accelerator: in place of the trainer's.
        read: what the file says, as plain data, together with what else is given; by default the file alone.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: naming the setting that is wrong, or that a plan cannot be made for.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"plan: no config {path}")
    raw = yaml.safe_load(path.read_text()) if read is None else read(path)
    if not isinstance(raw, dict) or "model" not in raw:
        raise ValueError(f"{path}: expected the settings of a run, with 'model' and 'data'")

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AudioRLModule, "model", required=True)
    parser.add_subclass_arguments(LightningDataModule, "data")
    try:
        parsed = parser.parse_object({key: raw[key] for key in ("model", "data") if key in raw})
    except ArgumentError as error:
        raise ValueError(f"{path}: {error}") from None

    algorithm = _class(parsed.model.class_path)
    if not issubclass(algorithm, GRPO | GRPODiffRO | SFT):
        raise ValueError(
            f"{path}: no plan for the algorithm {algorithm.__name__}; known are GRPO, GRPODiffRO and SFT"
        )

    if batch_size is None:
        batch_size = parsed.data.init_args.get("batch_size") if "data" in raw else None
    if batch_size is None or batch_size < 1:
        raise ValueError(f"{path}: batch_size must be at least 1, got {batch_size}")

    trainer = raw.get("trainer") or {}
    precision = str(trainer.get("precision", "32-true"))
    chosen = accelerator or str(trainer.get("accelerator", "auto"))
    return _settings(algorithm, parsed.model.init_args, batch_size, precision, chosen)


def _settings(
    algorithm: type[AudioRLModule],
    model: Namespace,
    batch_size: int,
    precision: str,
    accelerator: str,
) -> Settings:
    """Settings from the parsed arguments of an algorithm."""
    if precision not in _PRECISIONS:
        raise ValueError(
            f"plan: trainer.precision {precision!r}; known are {', '.join(_PRECISIONS)}"
        )
    weights, autocast = _PRECISIONS[precision]
    if weights is not None and "dtype" in model.policy.init_args:
        model.policy.init_args.dtype = weights

    # Supervised training has neither samples nor a reference.
    samples = not issubclass(algorithm, SFT)
    decoding = model.get("decoding")
    engine = _engine(model.get("engine"))
    is_local = engine is not None and engine.is_local

    return Settings(
        make_policy=lambda: _made(model.policy),
        autocast=autocast,
        group_size=model.group_size if samples else 1,
        needs_rollout=samples,
        beta=model.beta if samples else 0.0,
        batch_size=batch_size,
        rollout_batch_size=model.rollout_batch_size if samples else 0,
        micro_batch_size=model.micro_batch_size,
        max_tokens=model.get("max_tokens") or 0,
        chunk_size=model.chunk_size,
        decoding=Decoding(**vars(decoding)) if decoding else Decoding(),
        keep_context=bool(model.get("keep_context")),
        accelerator=accelerator,
        engine=None if is_local else engine,
        copy_weights=isinstance(engine, LocalEngine) and engine.copy_weights,
    )


def _engine(engine: Namespace | None) -> Engine | None:
    """The engine of a parsed class path."""
    if engine is None:
        return None
    made: Engine = _class(engine.class_path)(**engine.get("init_args", Namespace()).as_dict())
    return made


def _made(policy: Namespace) -> Policy:
    """The policy of a parsed class path, and whatever its arguments name by class paths: a codec, a template."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Policy, "policy", required=True)
    made: Policy = parser.instantiate(parser.parse_object({"policy": policy.as_dict()})).policy
    return made


def _class(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    kind: type[Any] = getattr(importlib.import_module(module), name)
    return kind

"""A model as a folder that transformers loads, and nothing of another model beside it."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from lightning_audiorl.models.finetune import (
    Finetune,
    adapter_state_dict,
    base_state_dict,
    heads_parted,
    merged_state_dict,
    unties,
)
from lightning_audiorl.weights.cards import CARD, is_written
from lightning_audiorl.weights.tensors import WeightsError, not_finite, some_of

_CONFIG = "config.json"

#: What transformers and peft read of a folder; of an earlier model in it, none may stay beside the new one.
_MODEL_FILES = (
    # First, and written last: a folder that is cut off in between is none that loads.
    _CONFIG,
    "model*.safetensors",
    "model*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "adapter_config.json",
    "adapter_model*.safetensors",
    "adapter_model.bin",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "normalizer.json",
    "spiece.model",
    "chat_template.*",
    "additional_chat_templates",
)

# Hidden, in the folder itself: moving a file out of it takes no copy.
_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Adapter:
    """How adapters were made, for a folder in which they stand beside their base.

    Args:
        finetune: with ``lm: lora``.
        base: folder or hub id whose weights are the base's; None where the folder alone has them.
    """

    finetune: Finetune
    base: str | None = None


def write_model(
    folder: str | Path,
    model: PreTrainedModel,
    processor: Any,
    generation: GenerationConfig,
    adapter: Adapter | None = None,
) -> None:
    """Write a model and its processor; the model itself stays as it is.

    Weights keep the dtype that they have in the model. Model files of an earlier export in the folder are replaced or
    removed, once the new ones are complete; other files stay.

    Args:
        folder: made where it is missing.
        model: of transformers, with or without adapters.
        processor: or tokenizer.
        generation: what the folder generates by.
        adapter: leaves adapters beside the weights that they sit on, in the files of peft; None merges them.

    Raises:
        FileExistsError: where ``folder`` is a file.
        WeightsError: for weights that are NaN or infinite, also in the model's own precision alone.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    unfinished = target / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)

    if adapter is None:
        _save(unfinished, model, merged_state_dict(model))
    else:
        _save(unfinished, model, base_state_dict(model))
        _save_adapter(unfinished, model, adapter)
    processor.save_pretrained(unfinished)
    # Past the check of `save_pretrained`, which refuses what published checkpoints hold, such as a temperature beside
    # `do_sample: false`.
    generation.to_json_file(unfinished / "generation_config.json")

    # The card of an earlier model; whoever knows what this one is writes another.
    if is_written(target):
        (target / CARD).unlink()
    for pattern in _MODEL_FILES:
        for earlier in target.glob(pattern):
            shutil.rmtree(earlier) if earlier.is_dir() else earlier.unlink()
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == _CONFIG):
        os.replace(path, target / path.name)
    unfinished.rmdir()


def _save(folder: Path, model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Configuration and weights."""
    _require_finite(weights)

    # The model goes on with what it has.
    own = model.config, model.generation_config
    model.config = copy.deepcopy(model.config)
    model.generation_config = GenerationConfig()
    if heads_parted(model, weights):
        unties(model.config)
    try:
        model.save_pretrained(folder, state_dict=weights)
    finally:
        model.config, model.generation_config = own


def _save_adapter(folder: Path, model: PreTrainedModel, adapter: Adapter) -> None:
    """Adapters alone, as peft writes them."""
    from peft import LoraConfig

    tensors = adapter_state_dict(model)
    _require_finite(tensors)
    named = {f"base_model.model.{name}": value.contiguous() for name, value in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    # By their full names: the ends of them may be those of layers in an encoder, too.
    layers = sorted({name.partition(".lora_")[0] for name in tensors})
    config = LoraConfig(
        base_model_name_or_path=adapter.base,
        r=adapter.finetune.lora_rank,
        lora_alpha=adapter.finetune.lora_alpha,
        lora_dropout=adapter.finetune.lora_dropout,
        target_modules=layers,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))


def _require_finite(weights: dict[str, Tensor]) -> None:
    bad = not_finite(weights)
    if bad:
        raise WeightsError(
            f"export: NaN or infinite values in {some_of(bad)} as {weights[bad[0]].dtype}; take an earlier "
            "checkpoint, or where it was large numbers in float16, export in bfloat16"
        )

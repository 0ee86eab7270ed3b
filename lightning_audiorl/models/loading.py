"""Where starting weights come from: a Hugging Face folder or hub id, a Lightning checkpoint, a tiny random model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl.models.tiny import TinyFunAsrNano


@dataclass(frozen=True)
class Start:
    """A resolved ``init_from``.

    Args:
        source: what builds the model: a folder, a hub id, or a tiny spec.
        checkpoints: Lightning checkpoints whose trainable tensors go on top, oldest first.
    """

    source: str | TinyFunAsrNano
    checkpoints: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Plain data for a checkpoint; `from_record` reads it back."""
        source = asdict(self.source) if isinstance(self.source, TinyFunAsrNano) else self.source
        return {"source": source, "checkpoints": list(self.checkpoints)}

    @staticmethod
    def from_record(record: dict[str, Any]) -> Start:
        source = record["source"]
        if isinstance(source, dict):
            source = TinyFunAsrNano(**{**source, "words": tuple(source["words"])})
        return Start(source, list(record["checkpoints"]))

    def load_into(self, policy: nn.Module) -> None:
        """Put the checkpoints' trainable tensors on top of the source's weights."""
        for path in self.checkpoints:
            state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
            weights: dict[str, Tensor] = {k.removeprefix("policy."): v for k, v in state.items()}
            if any("lora_" in key for key in weights):
                raise ValueError(f"{path}: holds LoRA adapters; export it and give the exported folder as init_from")
            unexpected = policy.load_state_dict(weights, strict=False).unexpected_keys
            if unexpected:
                raise ValueError(f"{path}: tensors {unexpected[:3]}... do not belong to this model")


def read_start(init_from: str | TinyFunAsrNano) -> Start:
    """Resolve ``init_from``.

    Raises:
        FileNotFoundError: for a path that looks local and is not there.
        ValueError: for a checkpoint that is not ours.
    """
    if isinstance(init_from, TinyFunAsrNano):
        return Start(init_from)
    path = Path(init_from).expanduser()
    if init_from.endswith(".ckpt"):
        if not path.is_file():
            raise FileNotFoundError(f"init_from: no checkpoint {init_from}")
        record = torch.load(path, map_location="cpu", weights_only=True).get("audiorl")
        if record is None:
            raise ValueError(f"init_from: {init_from} is not a checkpoint of this library (no 'audiorl' entry)")
        start = Start.from_record(record["start"])
        return Start(start.source, [*start.checkpoints, str(path.resolve())])
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"init_from: folder {init_from} has no config.json; give a Hugging Face folder")
        return Start(str(path))
    if init_from.startswith((".", "/", "~")) or init_from.count("/") != 1:
        raise FileNotFoundError(f"init_from: no folder {init_from} (a hub id has the form owner/name)")
    return Start(init_from)


def load_pretrained(model_class: Any, processor_class: Any, source: str, dtype: str, revision: str | None) -> Any:
    """(model, processor) by local folder or hub id: safetensors only, no remote code."""
    # transformers reads the adaptor's attention implementation only from here; see DESIGN notes in docs.
    model = model_class.from_pretrained(
        source, dtype=getattr(torch, dtype), revision=revision, use_safetensors=True, attn_implementation="sdpa"
    )
    return model, processor_class.from_pretrained(source, revision=revision)


def stop_token_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The generation config's end tokens, else the tokenizer's."""
    ids = model.generation_config.eos_token_id
    if ids is None:
        ids = tokenizer.eos_token_id
    return list(ids) if isinstance(ids, list | tuple) else [int(ids)]

"""The language model of a policy by itself, in the layout of its own class: what another engine serves."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedConfig

from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy
from lightning_audiorl.models.decoding.encoder_decoder import EncoderDecoderPolicy
from lightning_audiorl.models.policy import Policy

#: Language models that engines serve: what their configuration calls them, and their class with a head.
SERVED_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def require_servable(policy: Policy[Any]) -> DecoderOnlyPolicy[Any]:
    """The same policy, seen to have a language model that another engine can sample from.

    Raises:
        ValueError: saying why it has none.
    """
    name = type(policy).__name__
    own = "leave `engine` out: our own sampler runs it"
    if isinstance(policy, EncoderDecoderPolicy):
        raise ValueError(
            f"{name} is an encoder-decoder: vLLM takes no encoder outputs of ours, and would encode a clip once for "
            f"each of its samples; {own}"
        )
    if not isinstance(policy, DecoderOnlyPolicy):
        raise ValueError(f"{name} is no decoder-only language model; {own}")

    kind = policy.backbone.config.model_type
    if kind not in SERVED_CLASSES:
        raise ValueError(
            f"{name}: its language model is of the kind {kind!r}; another engine serves {', '.join(SERVED_CLASSES)}; "
            f"{own}"
        )
    if getattr(policy.output, "bias", None) is not None:
        raise ValueError(
            f"{name}: its head has a bias, which no {kind} of another engine has; {own}"
        )
    return policy


def served_config(policy: DecoderOnlyPolicy[Any], dtype: str) -> PreTrainedConfig:
    """The configuration of the language model's own class.

    Args:
        policy: see `require_servable`.
        dtype: that it is served in.
    """
    config = copy.deepcopy(policy.backbone.config)
    config.architectures = [SERVED_CLASSES[config.model_type]]
    # Reading weights anew, vLLM was seen to keep the old head where that is the embedding.
    config.tie_word_embeddings = False
    config.dtype = dtype
    return config


def served_weights(policy: DecoderOnlyPolicy[Any]) -> dict[str, Tensor]:
    """Its weights by the names of that class, adapters merged; without a copy where there is none.

    A head that is the embedding comes as a matrix of its own. The names stay the same over a run, whatever trains.

    Args:
        policy: see `require_servable`; its language model is on the device, whole.
    """
    weights = {f"model.{name}": value for name, value in _merged(policy.backbone).items()}
    weights |= {f"lm_head.{name}": value for name, value in _merged(policy.output).items()}

    split = [name for name, value in weights.items() if isinstance(value, DTensor)]
    if split:
        raise RuntimeError(f"served_weights: {split[0]} is a shard; the model has to be whole")
    return weights


def num_served(policy: DecoderOnlyPolicy[Any]) -> int:
    """How many numbers `served_weights` has; the model may be without values."""
    numbers = 0
    for module in (policy.backbone, policy.output):
        for name, parameter in module.named_parameters(remove_duplicate=False):
            numbers += 0 if "lora_" in name else parameter.numel()
    return numbers


def _merged(module: nn.Module) -> dict[str, Tensor]:
    """Parameters by the names that they had without adapters.

    Not by `state_dict`, which would split a model again that several processes have gathered.
    """
    merged: dict[str, Tensor] = {}
    for name, layer in module.named_modules():
        if hasattr(layer, "get_delta_weight"):
            merged[f"{name}.weight"] = _sum(layer)

    for name, parameter in module.named_parameters(remove_duplicate=False):
        clean = name.replace(".base_layer.", ".")
        if "lora_" not in name and clean not in merged:
            merged[clean] = parameter.detach()
    return merged


def _sum(layer: Any) -> Tensor:
    """The weight of a layer and its adapters, added in their precision and rounded once to the weight's own."""
    weight: Tensor = layer.base_layer.weight
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter)
    return weight.detach().to(layer.base_layer.weight.dtype)

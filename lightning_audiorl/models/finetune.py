"""Which parameters train: encoder, projector, language model (all, its last layers, LoRA, none)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.ops.randomness import key_to_seed

#: Adapters' places in most language models, those that are named as Llama's and Qwen's.
USUAL_LORA_TARGETS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)


@dataclass(frozen=True)
class Finetune:
    """What trains. RL keeps the encoder frozen; a warm start from nothing trains everything.

    Example:
        >>> Finetune(projector=False, lm="lora", lora_rank=4, lora_targets=["q_proj", "v_proj"]).lora_targets
        ['q_proj', 'v_proj']
        >>> Finetune(projector=False, lm="none")
        Traceback (most recent call last):
            ...
        ValueError: Finetune: nothing would train; set lm, projector or encoder

    Args:
        encoder: train the audio encoder (supervised training only).
        projector: train what maps encoder output to the language model's embeddings.
        lm: "all", "last" (the last ``lm_layers`` layers, final norm and head), "lora", or "none".
        lm_layers: number of layers for "last".
        lora_rank, lora_alpha, lora_dropout: peft's LoraConfig. Adapters are float32, whatever the model is.
        lora_targets: layers of the language model without its head, by the ends of their names; each entry has to match
            at least one. None takes the family's own, every linear layer of its attention and its feed-forward parts.
        seed: keys the adapters' initial values.
        gradient_checkpointing: hold no activations within the language model's layers for the backward pass, but
            compute each layer again there: less memory, about a third more time.
        flex_attention: on CUDA, reference and update attend by torch's FlexAttention, compiled, which holds no scores;
            else by matrices of float32 scores. Heads of 16 channels at least, no float64. Not yet run on a GPU.
    """

    encoder: bool = False
    projector: bool = True
    lm: Literal["all", "last", "lora", "none"] = "all"
    lm_layers: int = 2
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: list[str] | None = None
    seed: int = 0
    gradient_checkpointing: bool = False
    flex_attention: bool = False

    def __post_init__(self) -> None:
        if self.lm not in ("all", "last", "lora", "none"):
            raise ValueError(f'Finetune.lm={self.lm!r}: expected "all", "last", "lora" or "none"')
        check_count("Finetune.lm_layers", self.lm_layers)
        check_count("Finetune.lora_rank", self.lora_rank, at_least=1)
        check_number("Finetune.lora_alpha", self.lora_alpha, above=0)
        check_number("Finetune.lora_dropout", self.lora_dropout, at_least=0, below=1)
        if self.lm == "none" and not self.projector and not self.encoder:
            raise ValueError("Finetune: nothing would train; set lm, projector or encoder")
        self._check_lora()

    def _check_lora(self) -> None:
        # A lone string would be read letter by letter.
        targets: Any = self.lora_targets
        if targets is None:
            return
        if isinstance(targets, str) or not targets or not all(targets):
            raise ValueError(
                f"Finetune.lora_targets={targets!r}: expected names of layers, such as [q_proj, v_proj]"
            )

    def with_lora_targets(self, usual: Sequence[str]) -> Finetune:
        """The same with the targets ``usual`` where none are given.

        Example:
            >>> Finetune(lm="lora").with_lora_targets(["fc1", "fc2"]).lora_targets
            ['fc1', 'fc2']
        """
        if self.lora_targets is not None:
            return self
        return replace(self, lora_targets=list(usual))


@dataclass(frozen=True)
class Parts:
    """A family's modules by role.

    Args:
        encoder: what reads audio.
        projector: what maps the encoder's output to the language model's embeddings.
        backbone: the language model or decoder without its head; adapters go here.
        layers: of the backbone; empty where they were not found.
        final: what stands behind the layers, norm and head.
    """

    encoder: Iterable[nn.Module]
    projector: Iterable[nn.Module]
    backbone: PreTrainedModel
    layers: nn.ModuleList
    final: Iterable[nn.Module]


def apply_finetune(model: nn.Module, parts: Parts, finetune: Finetune) -> None:
    """Set ``requires_grad`` over the whole model, and put adapters in for "lora".

    Raises:
        ValueError: for more layers than the model has; for a LoRA target that is not there; where nothing would train.
    """
    # A family may have parts beside the transformers model, such as a projector of its own.
    whole = nn.ModuleList([model, *parts.encoder, *parts.projector])
    whole.requires_grad_(False)

    trained: list[nn.Module] = []
    if finetune.encoder:
        trained += parts.encoder
    if finetune.projector:
        trained += parts.projector
    if finetune.lm == "all":
        trained += [parts.backbone, *parts.final]
    elif finetune.lm == "last":
        if not 1 <= finetune.lm_layers <= len(parts.layers):
            raise ValueError(
                f"Finetune.lm_layers={finetune.lm_layers}: the model has {len(parts.layers)} layers"
            )
        trained += [*parts.layers[-finetune.lm_layers :], *parts.final]
    for module in trained:
        module.requires_grad_(True)

    # After the rest: adapters wrap layers, and leave what trains in them as it is.
    if finetune.lm == "lora":
        _check_targets(parts.backbone, _targets(finetune))
        inject_lora(parts.backbone, finetune)

    if not any(p.requires_grad for p in whole.parameters()):
        raise ValueError(f"{finetune}: nothing would train in a {type(model).__name__}")
    if finetune.gradient_checkpointing:
        _checkpoint_layers(parts)


def _checkpoint_layers(parts: Parts) -> None:
    if not len(parts.layers):
        raise ValueError(
            f"Finetune.gradient_checkpointing: no list of layers was found in a {type(parts.backbone).__name__}; "
            "turn it off"
        )
    for layer in parts.layers:
        layer.forward = _Checkpointed(layer.forward)


#: What a layer calls its key-value cache: up to transformers 5.23, and since.
_CACHE_NAMES = ("past_key_values", "cache")


@dataclass
class _Checkpointed:
    """A layer's forward, recomputed in the backward pass.

    transformers' own switch works in train mode only, and RL updates in eval mode, so that dropout is off. It also
    takes the key-value cache away from a layer without an error; a call with a cache is left alone here.
    """

    forward: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and all(kwargs.get(name) is None for name in _CACHE_NAMES):
            return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)
        return self.forward(*args, **kwargs)


def _targets(finetune: Finetune) -> list[str]:
    return finetune.with_lora_targets(USUAL_LORA_TARGETS).lora_targets or []


def _check_targets(backbone: nn.Module, targets: Iterable[str]) -> None:
    """Each target is at least one layer that takes an adapter: peft is content if any one is.

    Raises:
        ValueError: naming those that are not.
    """
    layers = {name: module for name, module in backbone.named_modules() if _takes_adapter(module)}
    missing = []
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            missing.append(target)

    if missing:
        known = dict.fromkeys(name.rpartition(".")[2] for name in layers)
        raise ValueError(
            f"Finetune.lora_targets: {', '.join(missing)}: no such layer in the {type(backbone).__name__}, the "
            f"language model without its head, which is where adapters go; it has {', '.join(known)}"
        )


def _takes_adapter(module: nn.Module) -> bool:
    if isinstance(module, nn.Embedding):
        # Whisper's positions are an embedding that does not look its input up; an adapter would.
        return type(module).forward is nn.Embedding.forward or hasattr(module, "embed_scale")
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | Conv1D)


def inject_lora(backbone: nn.Module, finetune: Finetune) -> None:
    """Fresh adapters on the layers that ``finetune`` names; of what was there, what trained goes on training.

    The adapters are float32: in bfloat16 an update of the usual learning rates is lost to rounding.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=finetune.lora_rank,
        lora_alpha=finetune.lora_alpha,
        lora_dropout=finetune.lora_dropout,
        target_modules=_targets(finetune),
    )

    # peft freezes the whole backbone; the adapters' values are keyed, and leave torch's random state alone.
    requires_grad = {name: p.requires_grad for name, p in backbone.named_parameters()}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Of trouble at a later merge: ours has none, see `merge_lora`.
        warnings.filterwarnings("ignore", ".*tie_word_embeddings")
        torch.manual_seed(key_to_seed("lora", finetune.seed) % 2**32)
        inject_adapter_in_model(config, backbone)

    for name, p in backbone.named_parameters():
        if "lora_" in name and p.dtype in (torch.bfloat16, torch.float16):
            p.data = p.data.float()
        name_before = name.replace(".base_layer.", ".")
        p.requires_grad_("lora_" in name or requires_grad.get(name_before, False))


def lora_layers(model: nn.Module) -> Iterator[Any]:
    """The adapter layers in a model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def base_dtypes(model: nn.Module) -> list[str]:
    """Of the parameters that are no adapters, by name.

    Example:
        >>> base_dtypes(nn.Linear(1, 1, dtype=torch.bfloat16))
        ['torch.bfloat16']
    """
    base = (p for name, p in model.named_parameters() if "lora_" not in name)
    return sorted({str(p.dtype) for p in base})


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The base model inside; adapters back on after."""
    # Not by peft's `enable_adapters`: it also sets requires_grad, on whichever of its two tensors FSDP shows just then.
    layers = [layer for layer in lora_layers(model) if not layer.disable_adapters]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def merge_lora(model: nn.Module) -> None:
    """Put adapters into the weights they sit on, and take them out; a model without any stays as it is.

    A head that was one matrix with an embedding parts from it where the embedding alone had an adapter.
    """
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    ]
    if not layers:
        return

    # The sums are made while the adapters are still there.
    merged = merged_state_dict(model)
    for name, layer in layers:
        model.set_submodule(name, layer.base_layer)
    for module in model.modules():
        vars(module).pop("peft_config", None)

    _part_shared(model, merged)
    model.load_state_dict(merged)
    for module in model.modules():
        # What generates text has both an embedding and a head; a codec or an encoder may have neither.
        if not isinstance(module, GenerationMixin) or not isinstance(module, PreTrainedModel):
            continue
        if heads_parted(module, module.state_dict()):
            unties(module.config)


def _part_shared(model: nn.Module, merged: dict[str, Tensor]) -> None:
    """A parameter with several names gets one of its own for each that is merged to values of its own."""
    first_names: dict[int, str] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        first = first_names.setdefault(id(parameter), name)
        if name == first or _is_one(merged[name], merged[first]):
            continue
        # A copy: where this is the one without an adapter, its values lie in the parameter that the other is put into.
        own = nn.Parameter(merged[name].clone(), requires_grad=parameter.requires_grad)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, own)
        merged[name] = own.detach()


def _is_one(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def heads_parted(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> bool:
    """Whether the head is another matrix than the embedding in ``weights``, while the configuration calls them one.

    Args:
        model: of transformers, with or without adapters.
        weights: of `merged_state_dict`, or the model's own.
    """
    says_one = [getattr(part, "tie_word_embeddings", False) for part in _configs(model.config)]
    if not any(says_one):
        return False

    embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    if id(embedding) not in names or id(head) not in names:
        return False
    keys = [f"{names[id(module)]}.weight" for module in (embedding, head)]
    # What embeds whole frames of codes is no one matrix, nor one with the head.
    if not all(key in weights for key in keys):
        return False
    matrices = [weights[key] for key in keys]
    return not _is_one(*matrices) and not torch.equal(*matrices)


def unties(config: PreTrainedConfig) -> None:
    """Have a configuration say that head and embedding are two matrices, wherever a model may read it."""
    for part in _configs(config):
        part.tie_word_embeddings = False


def _configs(config: PreTrainedConfig) -> tuple[PreTrainedConfig, PreTrainedConfig]:
    """Of the model, and of the language model in it; the same one where it is no part."""
    return config, config.get_text_config(decoder=True)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict as if adapters had been merged and never been there."""
    merged: dict[str, Tensor] = {}

    # Weights with adapters on them: the sum in the adapter's precision, rounded once to the weight's own.
    modules: Iterator[tuple[str, Any]] = model.named_modules()
    for name, module in modules:
        if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight"):
            weight = module.base_layer.weight
            for adapter in module.active_adapters:
                weight = weight + module.get_delta_weight(adapter)
            merged[f"{name}.weight"] = weight.detach().to(module.base_layer.weight.dtype)

    # Everything else under the name that it had without adapters.
    for key, value in model.state_dict().items():
        clean = key.replace(".base_layer.", ".")
        if "lora_" not in key and clean not in merged:
            merged[clean] = value
    return merged


def base_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict without its adapters, which are not in it either."""
    state = model.state_dict()
    return {
        key.replace(".base_layer.", "."): value
        for key, value in state.items()
        if "lora_" not in key
    }


def adapter_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors alone, by the names that peft saves behind its own prefix."""
    state = model.state_dict()
    return {key.replace(".default", ""): value for key, value in state.items() if "lora_" in key}

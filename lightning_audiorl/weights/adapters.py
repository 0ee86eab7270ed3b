"""A folder that peft wrote: an adapter, and the base that it belongs to, made one model."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils.peft_utils import find_adapter_config_file

from lightning_audiorl.weights.families import first_line
from lightning_audiorl.weights.folders import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    WEIGHTS,
    read_json,
    tensor_names,
)
from lightning_audiorl.weights.tensors import WeightsError, require_finite, some_of

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def find_adapter(source: str, revision: str | None = None) -> str | None:
    """The folder of the adapter that a folder or hub id holds; None where it holds none."""
    found = find_adapter_config_file(source, revision=revision)
    return None if found is None else str(Path(found).parent)


def base_of(source: str, adapter: str) -> str:
    """The folder or hub id of the weights that an adapter belongs to: beside it, or named by it.

    Args:
        source: folder or hub id of the adapter.
        adapter: its folder on this machine.

    Raises:
        WeightsError: where neither is there.
    """
    folder = Path(adapter)
    has_weights = (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()
    if (folder / CONFIG).is_file() and has_weights:
        return source

    name = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    advice = f"put its weights beside the adapter, or correct base_model_name_or_path in {ADAPTER_CONFIG}"
    if not isinstance(name, str) or not name:
        raise WeightsError(
            f"{source}: holds an adapter without its base, and does not name it; {advice}"
        )

    # As it stands there, or beside the folder that names it.
    for place in (Path(name).expanduser(), folder / name):
        if (place / CONFIG).is_file():
            return str(place)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise WeightsError(
            f"{source}: holds an adapter of {name}, and no such folder is here; {advice}"
        )
    return name


def merge_adapter(model: Any, adapter: str, source: str) -> Any:
    """The model with an adapter's changes in its weights, and nothing else left of it.

    Args:
        model: the base, as transformers loads it.
        adapter: folder of the adapter.
        source: what the user gave, for errors.

    Raises:
        FileNotFoundError: for an adapter without weights.
        WeightsError: for an adapter of another base, a damaged one, or one that is no change of weights.
    """
    from peft import PeftConfig, PeftModel

    _check_weights(Path(adapter))
    try:
        config = PeftConfig.from_pretrained(adapter)
        # peft draws values before it reads those of the file, and warns of tied weights, which are looked after below.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
            with_adapter = PeftModel(model, config)
            with _in_todays_names(adapter, with_adapter) as renamed:
                found = with_adapter.load_adapter(renamed, "default")
    except Exception as error:
        raise WeightsError(
            f"{source}: its adapter does not fit its base, a {type(model).__name__} ({first_line(error)}); "
            "give the base that it was trained on"
        ) from error

    missing = set(found.missing_keys)
    unexpected = set(found.unexpected_keys)
    if missing or unexpected:
        what = f"{len(missing)} of its tensors are missing ({some_of(missing)})"
        if unexpected:
            what = f"{len(unexpected)} of its tensors have no place there ({some_of(unexpected)})"
        raise WeightsError(
            f"{source}: its adapter does not fit its base, a {type(model).__name__}: {what}; "
            "give the base that it was trained on"
        )
    if not hasattr(with_adapter.base_model, "merge_and_unload"):
        raise WeightsError(
            f"{source}: an adapter of type {config.peft_type} changes no weights, so it cannot be merged; train from "
            "its base"
        )

    _separate_tied(model)
    try:
        with warnings.catch_warnings(action="ignore"):
            merged = with_adapter.merge_and_unload()
    except Exception as error:
        raise WeightsError(
            f"{source}: its adapter cannot be merged ({first_line(error)}); train from its base"
        ) from error
    for module in merged.modules():
        vars(module).pop("peft_config", None)
    _say_what_is_tied(merged)
    return merged


@contextmanager
def _in_todays_names(adapter: str, with_adapter: Any) -> Iterator[str]:
    """A folder with an adapter's tensors under the names of the model's modules; its own folder where these are they.

    transformers has moved language models within models that hear, such as from ``language_model.model`` to
    ``model.language_model``. It renames weights when it loads them, and peft does not rename adapters.
    """
    from peft import get_peft_model_state_dict

    tensors = load_file(Path(adapter) / _ADAPTER_WEIGHTS)
    own = {_shortened(name): name for name in get_peft_model_state_dict(with_adapter)}
    names = {name: own.get(_shortened(name), name) for name in tensors}
    if all(name == other for name, other in names.items()):
        yield adapter
        return

    with TemporaryDirectory() as folder:
        shutil.copyfile(Path(adapter) / ADAPTER_CONFIG, Path(folder) / ADAPTER_CONFIG)
        renamed = {names[name]: value for name, value in tensors.items()}
        save_file(renamed, Path(folder) / _ADAPTER_WEIGHTS, metadata={"format": "pt"})
        yield folder


def _shortened(name: str) -> str:
    """A tensor's name without what says nothing of where it stands.

    Example:
        >>> _shortened("base_model.model.language_model.model.layers.0.q_proj.lora_A.weight")
        'base_model.language_model.layers.0.q_proj.lora_A.weight'
    """
    return ".".join(part for part in name.split(".") if part != "model")


def _separate_tied(model: nn.Module) -> None:
    """A weight with an adapter on it gets memory of its own: merged, it would change the head that it is tied to."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    users: Counter[int] = Counter()
    for module in model.modules():
        users.update(id(p) for p in module._parameters.values() if p is not None)

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            base: Any = layer.get_base_layer()
            weight = getattr(base, "weight", None)
            if weight is not None and users[id(weight)] > 1:
                base.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)


def _say_what_is_tied(model: Any) -> None:
    """The configuration no longer ties what an adapter has made two: an export would lose one of them."""
    own = dict(model.named_parameters(remove_duplicate=False))
    pairs = getattr(model, "all_tied_weights_keys", {}).items()
    if all(own[target] is own[source] for target, source in pairs):
        return
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _check_weights(adapter: Path) -> None:
    """See that an adapter's tensors can be read, and are finite."""
    file = adapter / _ADAPTER_WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(
            f"folder {adapter} has no {_ADAPTER_WEIGHTS}; save the adapter there with save_pretrained (only "
            "safetensors are read)"
        )
    tensor_names(file)
    require_finite(load_file(file), str(file))

"""Folders that this library writes for its small networks: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_audiorl.weights.folders import CONFIG, WEIGHTS, read_json, tensor_names
from lightning_audiorl.weights.tensors import WeightsError, require_fit, tensor_hashes

# Where a file of tensors keeps the hash of its content.
_HASH = "content_hash"


def save_own(module: nn.Module, folder: str | Path, config: Mapping[str, Any]) -> None:
    """Write a network's tensors, with the hash of their content, and what describes it.

    Args:
        module: whose state dict is written.
        folder: is made where it is missing.
        config: in plain data.
    """
    path = Path(folder).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    (path / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    tensors = {
        name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()
    }
    save_file(tensors, path / WEIGHTS, metadata={_HASH: _content_hash(tensors)})


def read_own_config(folder: str, missing: str) -> dict[str, Any]:
    """What describes the network in a folder.

    Args:
        folder: that `save_own` wrote.
        missing: the error for a missing file, with ``{folder}`` and ``{name}`` in it.

    Raises:
        FileNotFoundError: where a file is missing.
        WeightsError: for a file that cannot be read.
    """
    path = Path(folder).expanduser()
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(missing.format(folder=folder, name=name))
    return read_json(path / CONFIG)


def load_own(module: nn.Module, folder: str) -> None:
    """Put the tensors of a folder into a network.

    Raises:
        WeightsError: for tensors that are not those of the network, not finite, or not what was written.
    """
    file = Path(folder).expanduser() / WEIGHTS
    tensor_names(file)
    tensors = load_file(file)
    require_fit(module, tensors, str(file))

    # Earlier builds wrote none.
    with safe_open(file, framework="pt") as opened:
        written = (opened.metadata() or {}).get(_HASH)
    if written is not None and written != _content_hash(tensors):
        raise WeightsError(
            f"{file}: its tensors are not those that were written (another content hash); the file is damaged, copy "
            "it again"
        )
    module.load_state_dict(tensors)


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, of_tensor in sorted(tensor_hashes(tensors).items()):
        digest.update(f"{name} {of_tensor}".encode())
    return digest.hexdigest()[:32]

"""The files of a Hugging Face folder, seen to be whole before a model is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lightning_audiorl.weights.tensors import WeightsError, some_of

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Where one of these is broken, transformers says so without its path, or goes on as if it were not there.
_JSON = (
    CONFIG,
    INDEX,
    ADAPTER_CONFIG,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
)

_SAVE_AGAIN = "; load it with transformers and save it again with save_pretrained"
_COPY_AGAIN = "; copy or download it again"


def check_folder(folder: str | Path) -> None:
    """See that the files of a folder in Hugging Face layout are there and whole, as far as that shows without a model.

    Args:
        folder: with the weights of a model.

    Raises:
        FileNotFoundError: for one without config.json or weights.
        WeightsError: for files that are damaged, or do not belong together.
    """
    path = Path(folder)
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(f"folder {folder} has no {CONFIG}; give a Hugging Face folder")
    check_json(path)

    held: dict[str, str] = {}
    for file in weight_files(path):
        for name in tensor_names(file):
            if name in held:
                raise WeightsError(
                    f"{file}: tensor {name} is also in {held[name]}; which one counts is not known{_SAVE_AGAIN}"
                )
            held[name] = file.name
    if (path / WEIGHTS).is_file() or not (path / INDEX).is_file():
        return

    listed = read_json(path / INDEX)["weight_map"]
    moved = {name for name, shard in listed.items() if held.get(name) != shard}
    if moved:
        raise WeightsError(
            f"{path / INDEX}: its files do not hold what it lists ({some_of(moved)}){_COPY_AGAIN}"
        )


def check_json(folder: Path) -> None:
    """See that the settings of a model, tokenizer and processor can be read.

    Raises:
        WeightsError: naming the file that cannot.
    """
    for name in _JSON:
        if (folder / name).is_file():
            read_json(folder / name)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        WeightsError: where there is none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        what = "empty" if file.stat().st_size == 0 else f"not JSON ({error})"
        raise WeightsError(f"{file}: {what}{_COPY_AGAIN}") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: holds a {type(found).__name__}, not an object{_COPY_AGAIN}")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a folder's model is in.

    Raises:
        FileNotFoundError: where there are none, or one that the index lists is not there.
        WeightsError: for an index without a list, or a model in another format.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        others = sorted([*folder.glob("pytorch_model*.bin"), *folder.glob("*.pt")])
        if others:
            raise WeightsError(
                f"{others[0]}: only safetensors are read, since such a file can hold code{_SAVE_AGAIN}"
            )
        raise FileNotFoundError(
            f"folder {folder} has no {WEIGHTS}; give a folder that holds a model's weights"
        )

    listed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(f"{folder / INDEX}: has no weight_map{_COPY_AGAIN}")

    files = [folder / str(name) for name in sorted(set(listed.values()))]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: is not there, and {INDEX} lists it{_COPY_AGAIN}")
    return files


def tensor_names(file: Path) -> list[str]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: for a file that is cut short, empty, or no such file.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError, ValueError) as error:
        size = file.stat().st_size
        what = "empty" if size == 0 else f"cut short or damaged, at {size} bytes ({error})"
        raise WeightsError(f"{file}: {what}{_COPY_AGAIN}") from error

"""Checkpoints of runs: read only where they are whole, with the last good one named where they are not."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.weights.families import first_line
from lightning_audiorl.weights.tensors import (
    WeightsError,
    not_finite,
    some_of,
    tensor_hashes,
)

# What every checkpoint of ours says, the first ones too.
_NEEDED: dict[str, type] = {"tensors": list, "start": dict, "start_hash": str, "rl_step": int}


def hashes_of(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """The hashes that a checkpoint carries: of its trained tensors, and of what the optimizer knows of each.

    Args:
        checkpoint: as Lightning hands it to ``on_save_checkpoint``, and as it is read.
    """
    return tensor_hashes(_hashed(checkpoint))


def _hashed(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that decide how a run goes on, by their place in the checkpoint."""
    tensors = dict(_tensors(checkpoint.get("state_dict", {}), ""))
    tensors.update(_tensors(checkpoint.get("optimizer_states", []), "optimizer"))
    return tensors


def _tensors(tree: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield place, tree
        return
    items: Any = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    for name, inner in items:
        yield from _tensors(inner, f"{place}/{name}" if place else str(name))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this library, seen to be as it was written.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: where there is none.
        WeightsError: for a file that is damaged, of something else, or that holds NaN or infinity: naming it, what is
            wrong, and the last good checkpoint in its folder.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no checkpoint {path}{_advice(file)}")
    try:
        return _read(file)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}{_advice(file)}") from error


def _read(file: Path) -> dict[str, Any]:
    """As `read_checkpoint`; errors are what stands behind the path."""
    checkpoint = _load(file)
    require_whole(checkpoint)
    return checkpoint


def require_whole(checkpoint: Mapping[str, Any]) -> None:
    """See that what was read is a checkpoint of this library, with the tensors that its run wrote, and finite.

    Raises:
        WeightsError: with what stands behind the path.
    """
    record = checkpoint.get("audiorl")
    if record is None:
        raise WeightsError("is not a checkpoint of this library (no 'audiorl' entry)")

    tensors = checkpoint.get("state_dict")
    said = record if isinstance(record, dict) else {}
    lacking = [name for name, kind in _NEEDED.items() if not isinstance(said.get(name), kind)]
    if not _are_tensors(tensors):
        lacking.append("state_dict")
    if not isinstance(said.get("hashes", {}), dict):
        lacking.append("hashes")
    if lacking:
        raise WeightsError(
            f"is not a whole checkpoint of this library (it has no {some_of(lacking)})"
        )

    assert isinstance(tensors, dict)
    listed = {str(name) for name in said["tensors"]}
    missing = listed - tensors.keys()
    if missing:
        raise WeightsError(
            f"lacks {len(missing)} of the tensors that its run trained ({some_of(missing)})"
        )
    unexpected = tensors.keys() - listed
    if unexpected:
        raise WeightsError(
            f"holds tensors {some_of(unexpected)}, which do not belong to this model"
        )

    hashed = _hashed(checkpoint)
    written = said.get("hashes")
    # Earlier builds wrote none.
    if written is not None:
        found = tensor_hashes(hashed)
        changed = {name for name in found.keys() | written if found.get(name) != written.get(name)}
        if changed:
            raise WeightsError(
                f"is damaged: {len(changed)} of its tensors are not those that were written ({some_of(changed)})"
            )
    bad = not_finite(hashed)
    if bad:
        raise WeightsError(f"holds NaN or infinite values in {some_of(bad)}")


def _load(file: Path) -> dict[str, Any]:
    """What ``torch.save`` put into a file."""
    size = file.stat().st_size
    if size == 0:
        raise WeightsError("is empty: its writing was cut short")
    if not zipfile.is_zipfile(file):
        with file.open("rb") as opened:
            is_ours = opened.read(4) == b"PK\x03\x04"
        what = "cut short or damaged" if is_ours else "no checkpoint, but a file of another kind"
        raise WeightsError(f"is {what} ({size} bytes)")

    # torch does not look at the sums that its own files carry.
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as error:
        raise WeightsError(f"is damaged ({first_line(error)})") from error
    if broken is not None:
        raise WeightsError(f"is damaged: the checksum of its part {broken} is wrong")

    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"holds more than tensors and plain data, which a checkpoint of this library does not "
            f"({first_line(error)})"
        ) from error
    except Exception as error:
        raise WeightsError(f"cannot be read ({first_line(error)})") from error
    if not isinstance(checkpoint, dict):
        raise WeightsError(
            f"is not a checkpoint of this library (it holds a {type(checkpoint).__name__})"
        )
    return checkpoint


def last_good(folder: Path, but: Path | None = None) -> Path | None:
    """The newest checkpoint in a folder that is as it was written, by RL step; None where there is none.

    Args:
        folder: of the checkpoints.
        but: a file that does not count, under any of its names.
    """
    found: list[tuple[int, str, Path]] = []
    for file in folder.glob("*.ckpt"):
        # Hidden ones are being written.
        is_hidden = file.name.startswith(".")
        is_that_one = but is not None and but.exists() and file.samefile(but)
        if is_hidden or is_that_one:
            continue
        try:
            step = int(_read(file)["audiorl"]["rl_step"])
        except (WeightsError, OSError):
            continue
        found.append((step, file.name, file))
    return max(found)[2] if found else None


def _advice(file: Path) -> str:
    good = last_good(file.parent, but=file) if file.parent.is_dir() else None
    if good is None:
        return f"; there is no good checkpoint in {file.parent}"
    return f"; the last good one there is {good}"


def _are_tensors(found: Any) -> bool:
    """Whether something is a dictionary of tensors."""
    return isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values())


def read_tensors(path: str | Path, under: str = "") -> dict[str, Tensor]:
    """The tensors by name in somebody else's file of weights; no code of it runs.

    Args:
        path: the file.
        under: key that they stand under, in a file of a training that holds more than weights.

    Raises:
        WeightsError: for a file that cannot be read, or holds something else.
    """
    file = Path(path)
    if file.stat().st_size == 0:
        raise WeightsError(f"{path}: empty; copy or download it again")
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path}: cut short, damaged, or no file of tensors ({first_line(error)}); copy or download it again"
        ) from error
    if under and isinstance(tensors, dict):
        tensors = tensors.get(under)
    if not _are_tensors(tensors):
        raise WeightsError(f"{path}: holds no tensors by name; give the weights of a model")
    return tensors


def other_vocabulary(source: object) -> str:
    """What is wrong where a checkpoint's tokens stood for other texts than those of its start do now."""
    return (
        f"its run had another tokenizer than {source} now holds: the same tokens stand for other texts; restore the "
        "tokenizer's files"
    )

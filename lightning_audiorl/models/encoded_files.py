"""Encoder outputs on disk: a safetensors file for each clip, within a budget, shared by processes."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_audiorl.weights.tensors import WeightsError, tensor_hashes

# The one tensor of a file, and what its metadata says.
_NAME = "encoded"
_HASH = "content_hash"
_DTYPE = "dtype"

# A file under this suffix is being written; after an hour its writer is taken to be gone.
_PART = ".part"
_PART_LIFE_S = 3600.0


class EncodedFiles:
    """``<folder>/<encoder>/<clip>.safetensors``.

    Files appear whole or not at all, so that any number of processes may read and write. The files of the folder are
    counted at the first write, and again after each sixteenth of the budget that this process has written: with several
    writers the folder may be over its budget by so much each.

    Args:
        folder: is made where it is missing.
        budget_bytes: of all its files; those that were used longest ago are removed.

    Raises:
        NotADirectoryError: where a file is in its place.
        OSError: where it cannot be made.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self.folder = folder.expanduser()
        self.budget_bytes = budget_bytes
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(
                f"EncoderCache.folder: {folder} is a file; give a folder for encoder outputs"
            )
        # Bytes that may be written before the files are counted again.
        self._room = 0
        self._is_writable = True

    def _path(self, encoder: str, clip: str) -> Path:
        return self.folder / encoder / f"{clip}.safetensors"

    def read(self, encoder: str, clip: str) -> tuple[Tensor, torch.dtype] | None:
        """The values of a clip and the dtype that the encoder gave them in; None where there is no file.

        Raises:
            WeightsError: for a file that is damaged.
        """
        path = self._path(encoder, clip)
        try:
            with safe_open(path, framework="pt") as file:
                # Copied: the file may be removed, or replaced, while the values are in use.
                values = file.get_tensor(_NAME).clone()
                about = file.metadata() or {}
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be read ({error})") from error

        if about.get(_HASH) != tensor_hashes({_NAME: values})[_NAME]:
            raise WeightsError(f"{path} is damaged: its values are not those that were written")
        # Its last use, by which files are removed. It may be gone by now.
        with suppress(OSError):
            os.utime(path)
        return values, getattr(torch, about[_DTYPE])

    def write(self, encoder: str, clip: str, values: Tensor, dtype: torch.dtype) -> None:
        """Keep the values of a clip; where the disk does not take them, warn once and write no more."""
        if not self._is_writable or values.nbytes > self.budget_bytes:
            return
        about = {
            _HASH: tensor_hashes({_NAME: values})[_NAME],
            _DTYPE: str(dtype).removeprefix("torch."),
        }
        path = self._path(encoder, clip)

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(values.nbytes)
            self._put(path, values, about)
        except (OSError, SafetensorError) as error:
            self._is_writable = False
            warnings.warn(
                f"encoder cache: {path} cannot be written ({error}); this run keeps no further clips on disk",
                stacklevel=2,
            )

    def _put(self, path: Path, values: Tensor, about: dict[str, str]) -> None:
        """Write beside the file's place, then move there at once."""
        handle, name = tempfile.mkstemp(suffix=_PART, prefix=path.stem, dir=path.parent)
        os.close(handle)
        try:
            save_file({_NAME: values}, name, metadata=about)
            # A file of mkstemp is its owner's alone; a folder may be shared.
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)

    def _make_room(self, num_bytes: int) -> None:
        """Count the files where that is due, and remove those that were used longest ago."""
        self._room -= num_bytes
        if self._room >= 0:
            return

        found: list[tuple[float, int, Path]] = []
        for path in self.folder.glob("*/*"):
            # Another process may have removed it.
            with suppress(OSError):
                about = path.stat()
                is_part = path.suffix == _PART
                if is_part and time.time() - about.st_mtime > _PART_LIFE_S:
                    path.unlink()
                elif not is_part:
                    found.append((about.st_mtime, about.st_size, path))

        share = self.budget_bytes // 16
        total = sum(size for _, size, _ in found) + num_bytes
        if total > self.budget_bytes:
            # Somewhat more than must be, so that not every write counts the files.
            for _, size, path in sorted(found):
                if total <= self.budget_bytes - share:
                    break
                with suppress(OSError):
                    path.unlink()
                total -= size
        self._room = min(self.budget_bytes - total, share)

"""What a frozen encoder makes of clips, kept by the clips' content: in memory, and on disk for runs to come."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.models.encoded_files import EncodedFiles
from lightning_audiorl.weights.tensors import WeightsError, tensor_hashes

_GIB = 2**30


class _Kept(NamedTuple):
    """What is kept of one clip.

    Args:
        values: [F, E] on the CPU.
        dtype: of what the encoder gave.
    """

    values: Tensor
    dtype: torch.dtype


@dataclass(eq=False)
class EncoderCache:
    """Encoder outputs of clips that come again: evaluation sets, and training rows of several epochs.

    A clip is known by its samples, an encoder by its weights, settings, precision, device and library versions: what is
    found is what would be computed. Clips that are not there are encoded one at a time, so that what a clip gives does
    not depend on its batch: a run that is resumed with an empty cache, one whose clips had to leave it, and two ranks
    give the same bits. A clip that is kept in bfloat16 goes through bfloat16 the first time, too. Training rows that
    are augmented are never the same twice: they are encoded together, as without a cache, and not kept.

    Args:
        memory_gib: of each process, on the CPU; what was used longest ago leaves. 0 keeps nothing in memory.
        folder: a file for each clip, for other runs over the same clips; several processes may share it. A damaged file
            is encoded again, with a warning.
        disk_gib: of the folder; files that were used longest ago are removed.
        dtype: that outputs are kept in, "float32", or "bfloat16" in half the room. Less is not made more: what an
            encoder gives in bfloat16 is kept in it.

    Attributes:
        hits, misses: clips that were found, and clips that had to be encoded, since `reset`; without those of rows that
            do not come again.

    Raises:
        ValueError: for a budget below 0, a cache with room nowhere, or another dtype.

    Example:
        >>> cache = EncoderCache(memory_gib=0.5)
        >>> encode = lambda numbers: [torch.ones(3, 2) for _ in numbers]
        >>> clip = torch.zeros(16000)
        >>> _ = cache.outputs([clip], "encoder", encode)
        >>> _ = cache.outputs([clip], "encoder", encode)
        >>> cache.hits, cache.misses, cache.num_bytes
        (1, 1, 24)
    """

    memory_gib: float = 1.0
    folder: str | None = None
    disk_gib: float = 20.0
    dtype: Literal["float32", "bfloat16"] = "float32"

    hits: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)
    num_bytes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_number("EncoderCache.memory_gib", self.memory_gib, at_least=0)
        check_number("EncoderCache.disk_gib", self.disk_gib, above=0)
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"EncoderCache.dtype: want float32 or bfloat16, got {self.dtype!r}")
        if not self.memory_gib and self.folder is None:
            raise ValueError(
                "EncoderCache: memory_gib is 0 and there is no folder, so nothing would be kept; set one of them"
            )

        # The one that was used longest ago comes first.
        self._held: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._files: EncodedFiles | None = None
        if self.folder is not None:
            self._files = EncodedFiles(Path(self.folder), self.disk_bytes)

    @property
    def memory_bytes(self) -> int:
        """Most bytes in memory."""
        return int(self.memory_gib * _GIB)

    @property
    def disk_bytes(self) -> int:
        """Most bytes on disk; 0 without a folder."""
        return 0 if self.folder is None else int(self.disk_gib * _GIB)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, such as that of another process, begins empty.
        return EncoderCache, (self.memory_gib, self.folder, self.disk_gib, self.dtype)

    def check_frozen(self, trains: bool) -> None:
        """See that the encoder is frozen.

        Raises:
            ValueError: where it trains: what is kept of it would be out of date after a step.
        """
        if trains:
            raise ValueError(
                "encoder_cache: finetune.encoder is true, and what is kept of an encoder that trains is out of date "
                "after one step; leave encoder_cache out, or set finetune.encoder to false"
            )

    def outputs(
        self,
        clips: Sequence[Tensor],
        encoder: str,
        encode: Callable[[list[int]], Sequence[Tensor]],
        once: Collection[int] = (),
    ) -> list[Tensor]:
        """What the encoder makes of clips: found, or computed and kept.

        Args:
            clips: B times [num_samples], on the CPU, as the encoder's feature extractor gets them.
            encoder: of `encoder_hash`.
            encode: [F, E] of each of some clips, which are given by their numbers and computed together.
            once: numbers of the clips that do not come again.

        Returns:
            B times [F, E], only to be read; what was found is on the CPU.
        """
        out: dict[int, Tensor] = {}
        together = [number for number in range(len(clips)) if number in once]
        if together:
            out.update(zip(together, encode(together), strict=True))

        for number, clip in enumerate(clips):
            if number in out:
                continue
            key = self._key(encoder, clip)
            kept = self._find(key)
            if kept is None:
                self.misses += 1
                # Alone: together with others a clip's last bits would be others.
                [output] = encode([number])
                kept = self._keep(key, output)
            else:
                self.hits += 1
            out[number] = kept.values.to(kept.dtype)
        return [out[number] for number in range(len(clips))]

    def holds(self, clips: Sequence[Tensor], encoder: str) -> bool:
        """Whether the outputs of all these clips are in memory; the arguments are those of `outputs`."""
        return all(self._key(encoder, clip) in self._held for clip in clips)

    def _key(self, encoder: str, clip: Tensor) -> tuple[str, str]:
        # A run that keeps float32 takes nothing from one that keeps bfloat16.
        return f"{encoder}-{self.dtype}", _clip_hash(clip)

    def _find(self, key: tuple[str, str]) -> _Kept | None:
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        if self._files is None:
            return None

        try:
            found = self._files.read(*key)
        except WeightsError as error:
            warnings.warn(f"encoder cache: {error}; the clip is encoded again", stacklevel=2)
            return None
        if found is None:
            return None
        values, dtype = found
        kept = _Kept(values, dtype)
        self._hold(key, kept)
        return kept

    def _keep(self, key: tuple[str, str], output: Tensor) -> _Kept:
        kept = _Kept(self._as_kept(output), output.dtype)
        self._hold(key, kept)
        if self._files is not None:
            self._files.write(*key, kept.values, kept.dtype)
        return kept

    def _as_kept(self, output: Tensor) -> Tensor:
        """The values in the dtype that they are kept in, with no more memory than they take."""
        dtype = self._dtype_of(output)
        values = output.detach().to("cpu", dtype).contiguous()
        if values.untyped_storage().nbytes() > values.nbytes:
            values = values.clone()
        return values

    def _dtype_of(self, output: Tensor) -> torch.dtype:
        wanted: torch.dtype = getattr(torch, self.dtype)
        return output.dtype if wanted.itemsize > output.dtype.itemsize else wanted

    def bytes_of(self, output: Tensor) -> int:
        """Bytes that an encoder's output of a clip is kept in; its values are not looked at."""
        return output.numel() * self._dtype_of(output).itemsize

    def _hold(self, key: tuple[str, str], kept: _Kept) -> None:
        room = self.memory_bytes
        if kept.values.nbytes > room:
            return
        self._held[key] = kept
        self.num_bytes += kept.values.nbytes
        while self.num_bytes > room:
            _, oldest = self._held.popitem(last=False)
            self.num_bytes -= oldest.values.nbytes

    def metrics(self) -> dict[str, float]:
        """By log key: the share of clips that were found since `reset`, and GiB in memory."""
        metrics = {"encoder_cache/gib": self.num_bytes / _GIB}
        asked = self.hits + self.misses
        if asked:
            metrics["encoder_cache/hit_share"] = self.hits / asked
        return metrics

    def reset(self) -> None:
        """Count hits and misses anew."""
        self.hits = 0
        self.misses = 0


def _clip_hash(clip: Tensor) -> str:
    digest = hashlib.sha256(f"{clip.dtype}{len(clip)}".encode())
    digest.update(clip.contiguous().numpy().data)
    return digest.hexdigest()[:32]


def encoder_hash(encoder: nn.Module, settings: Mapping[str, Any], device: torch.device) -> str:
    """Names an encoder by all that its outputs depend on beside the clip.

    Args:
        encoder: with its values in place; shards are gathered.
        settings: in plain data: those of the encoder and of what makes its inputs, the sample rate among them.
        device: that it runs on, in the autocast that is on.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> cpu = torch.device("cpu")
        >>> encoder_hash(layer, {"rate": 16000}, cpu) == encoder_hash(layer, {"rate": 8000}, cpu)
        False
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in (*encoder.named_parameters(), *encoder.named_buffers()):
        tensors[name] = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    autocast = "none"
    if torch.is_autocast_enabled(device.type):
        autocast = str(torch.get_autocast_dtype(device.type))
    versions = [torch.__version__, transformers.__version__]
    said = [tensor_hashes(tensors), dict(settings), device.type, autocast, versions]
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# What a file of settings says beside what is computed: where it came from, who wrote it.
_NO_SETTINGS = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "processor_class",
)


def plain_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of transformers without those that change nothing that is computed.

    Example:
        >>> plain_settings({"sampling_rate": 16000, "processor_class": "WhisperProcessor"})
        {'sampling_rate': 16000}
    """
    return {name: value for name, value in found.items() if name not in _NO_SETTINGS}

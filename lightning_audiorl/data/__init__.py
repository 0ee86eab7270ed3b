"""Manifests, audio, training order and data modules: the only readers of data from disk."""

from __future__ import annotations

from lightning_audiorl.data.audio import AudioCache, AudioError, read_audio
from lightning_audiorl.data.augment import Augment
from lightning_audiorl.data.batching import Draw, MixEntry, StepSampler, duration_batches
from lightning_audiorl.data.datamodule import AsrDataModule, Subset
from lightning_audiorl.data.espeak import EspeakCorpus
from lightning_audiorl.data.fsdd import FsddDigits
from lightning_audiorl.data.manifest import ManifestError, ManifestRows, read_manifest, write_manifest
from lightning_audiorl.data.nonspeech import NonSpeech
from lightning_audiorl.data.rows import RowSource

__all__ = [
    "AsrDataModule",
    "AudioCache",
    "AudioError",
    "Augment",
    "Draw",
    "EspeakCorpus",
    "FsddDigits",
    "ManifestError",
    "ManifestRows",
    "MixEntry",
    "NonSpeech",
    "RowSource",
    "StepSampler",
    "Subset",
    "duration_batches",
    "read_audio",
    "read_manifest",
    "write_manifest",
]

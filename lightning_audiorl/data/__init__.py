"""Manifests, audio, training order and data modules: the only readers of data from disk."""

from __future__ import annotations

from lightning_audiorl.data.audio import AudioCache, AudioError, read_audio
from lightning_audiorl.data.augment import Augment
from lightning_audiorl.data.batching import Draw, MixEntry, StepSampler, duration_batches
from lightning_audiorl.data.construct import JoinedNeighbours, PhraseRepeated
from lightning_audiorl.data.datamodule import AsrDataModule, Subset
from lightning_audiorl.data.effects import Degraded
from lightning_audiorl.data.espeak import EspeakCorpus
from lightning_audiorl.data.espeak_digits import EspeakDigits
from lightning_audiorl.data.fsdd import FsddDigits
from lightning_audiorl.data.hypotheses import HypothesisError, HypothesisFiles, Predicted, Sample
from lightning_audiorl.data.manifest import IndexedManifest, ManifestError, ManifestRows, read_manifest, write_manifest
from lightning_audiorl.data.nonspeech import NonSpeech
from lightning_audiorl.data.padding import NoisePadded
from lightning_audiorl.data.rl_datamodule import AsrRLDataModule
from lightning_audiorl.data.rl_subsets import RLSubset
from lightning_audiorl.data.rows import JoinedRows, RowSource

__all__ = [
    "AsrDataModule",
    "AsrRLDataModule",
    "AudioCache",
    "AudioError",
    "Augment",
    "Degraded",
    "Draw",
    "EspeakCorpus",
    "EspeakDigits",
    "FsddDigits",
    "HypothesisError",
    "HypothesisFiles",
    "IndexedManifest",
    "JoinedNeighbours",
    "JoinedRows",
    "ManifestError",
    "ManifestRows",
    "MixEntry",
    "NoisePadded",
    "NonSpeech",
    "PhraseRepeated",
    "Predicted",
    "RLSubset",
    "RowSource",
    "Sample",
    "StepSampler",
    "Subset",
    "duration_batches",
    "read_audio",
    "read_manifest",
    "write_manifest",
]

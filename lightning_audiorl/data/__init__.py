"""Manifests, audio, training order and data modules: the only readers of data from disk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_audiorl.data.audio.augment import Augment
from lightning_audiorl.data.audio.effects import Degraded
from lightning_audiorl.data.audio.nonspeech import NonSpeech
from lightning_audiorl.data.audio.reading import AudioCache, AudioError, read_audio
from lightning_audiorl.data.corpora.espeak import EspeakCorpus
from lightning_audiorl.data.corpora.espeak_digits import EspeakDigits
from lightning_audiorl.data.corpora.fsdd import FsddDigits
from lightning_audiorl.data.corpora.hard_texts import HardTexts, hard_texts
from lightning_audiorl.data.corpora.speaker_prompts import PromptedSpeech
from lightning_audiorl.data.corpora.texts import Texts, TextSpeech
from lightning_audiorl.data.corpora.tts import EspeakSpeech, FsddSpeech
from lightning_audiorl.data.datamodules.batching import (
    Draw,
    MixEntry,
    StepSampler,
    duration_batches,
)
from lightning_audiorl.data.hypotheses.reader import (
    HypothesisError,
    HypothesisFiles,
    Predicted,
    Sample,
    SpeechSample,
)
from lightning_audiorl.data.layouts.sources import HfDataset, LhotseCuts, TarShards
from lightning_audiorl.data.manifest.files import (
    IndexedManifest,
    ManifestError,
    ManifestRows,
    read_manifest,
    write_manifest,
)
from lightning_audiorl.data.manifest.source import JoinedRows, RowSource
from lightning_audiorl.data.manifest.tts import SpeechManifest
from lightning_audiorl.data.mix.selection import (
    Candidate,
    Choice,
    Chosen,
    EmptyReference,
    Everything,
    Hallucinating,
    Hard,
    KeywordHeavy,
    Learnable,
    Length,
    RandomControl,
    RarelyRight,
    RepeatedPhrases,
    SubsetBuilder,
    Verdict,
    choose,
    choose_many,
    fill,
    kind_of,
)
from lightning_audiorl.data.mix.selection.by_prompt_quality import (
    PromptClipping,
    PromptDuration,
    PromptLoudness,
    PromptMeasures,
    PromptNoise,
    measure_prompt,
)
from lightning_audiorl.data.mix.selection.by_speech_activity import SpeechHeard
from lightning_audiorl.data.mix.selection.by_tts_samples import PassRate, Similar, Stops, TokenRate
from lightning_audiorl.data.mix.selection.by_tts_text import Filters, TextCharset, TextLength
from lightning_audiorl.data.mix.spec import RLSubset
from lightning_audiorl.data.transforms.chunks import Chunks
from lightning_audiorl.data.transforms.concatenate import JoinedNeighbours, PhraseRepeated
from lightning_audiorl.data.transforms.hotwords import Hotwords, WithHotwords
from lightning_audiorl.data.transforms.noise_padding import NoisePadded

if TYPE_CHECKING:
    from lightning_audiorl.data.datamodules.asr import AsrDataModule, Subset
    from lightning_audiorl.data.datamodules.asr_rl import AsrRLDataModule
    from lightning_audiorl.data.datamodules.tts import TtsDataModule, TtsRLDataModule

#: Lightning fills a quarter of a gigabyte: what needs it is imported when it is first asked for.
_LATER = {
    "AsrDataModule": "asr",
    "AsrRLDataModule": "asr_rl",
    "Subset": "asr",
    "TtsDataModule": "tts",
    "TtsRLDataModule": "tts",
}

__all__ = [
    "AsrDataModule",
    "AsrRLDataModule",
    "AudioCache",
    "AudioError",
    "Augment",
    "Candidate",
    "Choice",
    "Chosen",
    "Chunks",
    "Degraded",
    "Draw",
    "EmptyReference",
    "EspeakCorpus",
    "EspeakDigits",
    "EspeakSpeech",
    "Everything",
    "Filters",
    "FsddDigits",
    "FsddSpeech",
    "Hallucinating",
    "Hard",
    "HardTexts",
    "HfDataset",
    "Hotwords",
    "HypothesisError",
    "HypothesisFiles",
    "IndexedManifest",
    "JoinedNeighbours",
    "JoinedRows",
    "KeywordHeavy",
    "Learnable",
    "Length",
    "LhotseCuts",
    "ManifestError",
    "ManifestRows",
    "MixEntry",
    "NoisePadded",
    "NonSpeech",
    "PassRate",
    "PhraseRepeated",
    "Predicted",
    "PromptClipping",
    "PromptDuration",
    "PromptLoudness",
    "PromptMeasures",
    "PromptNoise",
    "PromptedSpeech",
    "RLSubset",
    "RandomControl",
    "RarelyRight",
    "RepeatedPhrases",
    "RowSource",
    "Sample",
    "Similar",
    "SpeechHeard",
    "SpeechManifest",
    "SpeechSample",
    "StepSampler",
    "Stops",
    "Subset",
    "SubsetBuilder",
    "TarShards",
    "TextCharset",
    "TextLength",
    "TextSpeech",
    "Texts",
    "TokenRate",
    "TtsDataModule",
    "TtsRLDataModule",
    "Verdict",
    "WithHotwords",
    "choose",
    "choose_many",
    "duration_batches",
    "fill",
    "hard_texts",
    "kind_of",
    "measure_prompt",
    "read_audio",
    "read_manifest",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.datamodules.{_LATER[name]}"), name)

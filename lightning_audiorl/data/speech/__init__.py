"""Data of speech synthesis: rows of text, speaker prompt and recording; hard texts; filters; data modules."""

from __future__ import annotations

from lightning_audiorl.data.hypotheses import SpeechSample
from lightning_audiorl.data.speech.corpora import EspeakSpeech, FsddSpeech
from lightning_audiorl.data.speech.datamodule import TtsDataModule, TtsRLDataModule
from lightning_audiorl.data.speech.filters import Filters, TextCharset, TextLength
from lightning_audiorl.data.speech.hard_texts import HardTexts, hard_texts
from lightning_audiorl.data.speech.manifest import SpeechManifest
from lightning_audiorl.data.speech.prompt_quality import (
    PromptClipping,
    PromptDuration,
    PromptLoudness,
    PromptMeasures,
    PromptNoise,
    measure_prompt,
)
from lightning_audiorl.data.speech.rows import PromptedSpeech
from lightning_audiorl.data.speech.sample_filters import PassRate, Similar, Stops, TokenRate
from lightning_audiorl.data.speech.texts import Texts, TextSpeech

__all__ = [
    "EspeakSpeech",
    "Filters",
    "FsddSpeech",
    "HardTexts",
    "PassRate",
    "PromptClipping",
    "PromptDuration",
    "PromptLoudness",
    "PromptMeasures",
    "PromptNoise",
    "PromptedSpeech",
    "Similar",
    "SpeechManifest",
    "SpeechSample",
    "Stops",
    "TextCharset",
    "TextLength",
    "TextSpeech",
    "Texts",
    "TokenRate",
    "TtsDataModule",
    "TtsRLDataModule",
    "hard_texts",
    "measure_prompt",
]

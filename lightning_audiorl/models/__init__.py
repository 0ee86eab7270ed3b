"""Policies over transformers classes."""

from __future__ import annotations

from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.fun_asr_nano import FunAsrNanoPolicy
from lightning_audiorl.models.policy import Context, Policy, SampleKey, SpeechPolicy
from lightning_audiorl.models.reference import Reference, content_hash
from lightning_audiorl.models.speech_limits import SpeechLimits
from lightning_audiorl.models.speech_lm import SpeakerPrompt, SpeechLMPolicy
from lightning_audiorl.models.speech_templates import (
    CosyVoice2Template,
    LlasaTemplate,
    NeuTTSTemplate,
    PlainTemplate,
    SpeechTemplate,
)
from lightning_audiorl.models.text_lm import TextLMPolicy
from lightning_audiorl.models.tiny import DIGIT_WORDS, TinyCausalLM, TinyFunAsrNano, TinyWhisper
from lightning_audiorl.models.tiny_speech import TinySpeechLM
from lightning_audiorl.models.whisper import WhisperPolicy

__all__ = [
    "DIGIT_WORDS",
    "Context",
    "CosyVoice2Template",
    "Finetune",
    "FunAsrNanoPolicy",
    "LlasaTemplate",
    "NeuTTSTemplate",
    "PlainTemplate",
    "Policy",
    "Reference",
    "SampleKey",
    "SpeakerPrompt",
    "SpeechLMPolicy",
    "SpeechLimits",
    "SpeechPolicy",
    "SpeechTemplate",
    "TextLMPolicy",
    "TinyCausalLM",
    "TinyFunAsrNano",
    "TinySpeechLM",
    "TinyWhisper",
    "WhisperPolicy",
    "content_hash",
]

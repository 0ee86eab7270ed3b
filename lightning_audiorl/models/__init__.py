"""Policies over transformers classes."""

from __future__ import annotations

from lightning_audiorl.models.asr.canary import CanaryPolicy
from lightning_audiorl.models.asr.fun_asr_nano import FunAsrNanoPolicy
from lightning_audiorl.models.asr.glm_asr import GlmAsrPolicy
from lightning_audiorl.models.asr.granite_speech import GraniteSpeechPolicy
from lightning_audiorl.models.asr.moonshine import MoonshinePolicy
from lightning_audiorl.models.asr.qwen2_audio import Qwen2AudioPolicy
from lightning_audiorl.models.asr.qwen3_asr import Qwen3ASRPolicy
from lightning_audiorl.models.asr.voxtral import VoxtralPolicy
from lightning_audiorl.models.asr.whisper import WhisperPolicy
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.policy import Context, Policy, SampleKey, SpeechPolicy
from lightning_audiorl.models.reference import Reference, content_hash
from lightning_audiorl.models.tiny import (
    DIGIT_WORDS,
    TinyCanary,
    TinyCausalLM,
    TinyCsm,
    TinyFunAsrNano,
    TinyGlmAsr,
    TinyGraniteSpeech,
    TinyMoonshine,
    TinyQwen2Audio,
    TinyQwen3ASR,
    TinySpeechLM,
    TinyVoxtral,
    TinyWhisper,
)
from lightning_audiorl.models.tts.csm import CsmPolicy
from lightning_audiorl.models.tts.limits import SpeechLimits
from lightning_audiorl.models.tts.speech_lm import SpeakerPrompt, SpeechLMPolicy
from lightning_audiorl.models.tts.templates import (
    CosyVoice2Template,
    LlasaTemplate,
    NeuTTSTemplate,
    PlainTemplate,
    SpeechTemplate,
)
from lightning_audiorl.models.tts.text_lm import TextLMPolicy

__all__ = [
    "DIGIT_WORDS",
    "CanaryPolicy",
    "Context",
    "CosyVoice2Template",
    "CsmPolicy",
    "EncoderCache",
    "Finetune",
    "FunAsrNanoPolicy",
    "GlmAsrPolicy",
    "GraniteSpeechPolicy",
    "LlasaTemplate",
    "MoonshinePolicy",
    "NeuTTSTemplate",
    "PlainTemplate",
    "Policy",
    "Qwen2AudioPolicy",
    "Qwen3ASRPolicy",
    "Reference",
    "SampleKey",
    "SpeakerPrompt",
    "SpeechLMPolicy",
    "SpeechLimits",
    "SpeechPolicy",
    "SpeechTemplate",
    "TextLMPolicy",
    "TinyCanary",
    "TinyCausalLM",
    "TinyCsm",
    "TinyFunAsrNano",
    "TinyGlmAsr",
    "TinyGraniteSpeech",
    "TinyMoonshine",
    "TinyQwen2Audio",
    "TinyQwen3ASR",
    "TinySpeechLM",
    "TinyVoxtral",
    "TinyWhisper",
    "VoxtralPolicy",
    "WhisperPolicy",
    "content_hash",
]

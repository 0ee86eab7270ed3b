"""Tiny models with random weights, by name: for tests and first steps. Each stands in its family's file."""

from __future__ import annotations

from lightning_audiorl.models.asr.canary import TinyCanary
from lightning_audiorl.models.asr.fun_asr_nano import TinyFunAsrNano
from lightning_audiorl.models.asr.glm_asr import TinyGlmAsr
from lightning_audiorl.models.asr.granite_speech import TinyGraniteSpeech
from lightning_audiorl.models.asr.moonshine import TinyMoonshine
from lightning_audiorl.models.asr.qwen2_audio import TinyQwen2Audio
from lightning_audiorl.models.asr.qwen3_asr import TinyQwen3ASR
from lightning_audiorl.models.asr.voxtral import TinyVoxtral
from lightning_audiorl.models.asr.whisper import TinyWhisper
from lightning_audiorl.models.tiny_base import (
    AUDIO_TOKEN,
    DIGIT_WORDS,
    PAD_TOKEN,
    START_TOKEN,
    STOP_TOKEN,
    TINY_SPECS,
    TinySpec,
    character_tokenizer,
    word_tokenizer,
)
from lightning_audiorl.models.tts.csm import TinyCsm
from lightning_audiorl.models.tts.speech_lm import TinySpeechLM
from lightning_audiorl.models.tts.text_lm import TinyCausalLM

# What they were called before each spec had `build`.
build_fun_asr_nano = TinyFunAsrNano.build
build_whisper = TinyWhisper.build
build_causal_lm = TinyCausalLM.build
build_speech_lm = TinySpeechLM.build

__all__ = [
    "AUDIO_TOKEN",
    "DIGIT_WORDS",
    "PAD_TOKEN",
    "START_TOKEN",
    "STOP_TOKEN",
    "TINY_SPECS",
    "TinyCanary",
    "TinyCausalLM",
    "TinyCsm",
    "TinyFunAsrNano",
    "TinyGlmAsr",
    "TinyGraniteSpeech",
    "TinyMoonshine",
    "TinyQwen2Audio",
    "TinyQwen3ASR",
    "TinySpec",
    "TinySpeechLM",
    "TinyVoxtral",
    "TinyWhisper",
    "build_causal_lm",
    "build_fun_asr_nano",
    "build_speech_lm",
    "build_whisper",
    "character_tokenizer",
    "word_tokenizer",
]

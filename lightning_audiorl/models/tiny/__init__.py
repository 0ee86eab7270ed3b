"""Tiny models with random weights, for tests and first steps."""

from __future__ import annotations

from lightning_audiorl.models.tiny.asr import (
    DIGIT_WORDS,
    TINY_SPECS,
    TinyCausalLM,
    TinyFunAsrNano,
    TinySpec,
    TinyWhisper,
    build_causal_lm,
    build_fun_asr_nano,
    build_whisper,
    word_tokenizer,
)

__all__ = [
    "DIGIT_WORDS",
    "TINY_SPECS",
    "TinyCausalLM",
    "TinyFunAsrNano",
    "TinySpec",
    "TinyWhisper",
    "build_causal_lm",
    "build_fun_asr_nano",
    "build_whisper",
    "word_tokenizer",
]

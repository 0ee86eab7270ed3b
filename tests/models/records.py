"""The table of families that transcribe: what a tiny one is made of, and how its own class is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy import ndarray

from lightning_audiorl.models import (
    CanaryPolicy,
    GlmAsrPolicy,
    GraniteSpeechPolicy,
    MoonshinePolicy,
    Qwen2AudioPolicy,
    Qwen3ASRPolicy,
    TinyCanary,
    TinyGlmAsr,
    TinyGraniteSpeech,
    TinyMoonshine,
    TinyQwen2Audio,
    TinyQwen3ASR,
    TinyVoxtral,
    VoxtralPolicy,
)
from lightning_audiorl.models.tiny_base import TinySpec

RATE_HZ = 16000
WORDS = ("zero", "one", "two", "three")

_DECODER_ONLY = ("all", "last", "lora", "lora+projector", "projector")
_ENCODER_DECODER = ("all", "last", "lora")


@dataclass(frozen=True)
class Record:
    """A family of the parity matrix.

    Args:
        policy: its class.
        spec: of its tiny model.
        ask: (processor, one clip) -> what ``generate`` of its class takes, in English.
        lively: how far from newborn, and which draw: so that greedy hypotheses differ between prompts, and some stop.
        more_words: that may be sampled beside the spec's words and the end of a turn.
        modes: of finetuning that it has.
        ids: the argument of its forward that holds prompt and completion.
        read: what its tokenizer decodes -> the transcript.
        logits_scaling: of its language model, which the forward of its class leaves out.
    """

    policy: Any
    spec: TinySpec
    ask: Callable[[Any, ndarray], dict[str, Any]]
    lively: tuple[float, int]
    more_words: tuple[str, ...] = ()
    modes: tuple[str, ...] = _DECODER_ONLY
    ids: str = "input_ids"
    read: Callable[[str], str] = str.strip
    logits_scaling: float = 1.0


def _request(processor: Any, clip: ndarray) -> dict[str, Any]:
    return dict(processor.apply_transcription_request(clip, language="en"))


def _request_without_language(processor: Any, clip: ndarray) -> dict[str, Any]:
    return dict(processor.apply_transcription_request(clip))


def _canary(processor: Any, clip: ndarray) -> dict[str, Any]:
    return dict(processor.apply_transcription_request(clip, source_language="en"))


def _moonshine(processor: Any, clip: ndarray) -> dict[str, Any]:
    inputs = dict(processor(clip, sampling_rate=RATE_HZ, return_tensors="pt"))
    start = processor.tokenizer.bos_token_id
    return {**inputs, "decoder_input_ids": torch.tensor([[start]])}


def _voxtral(processor: Any, clip: ndarray) -> dict[str, Any]:
    """As its processor does with mistral-common, which writes the tokens, and which tests go without."""
    how = {**processor.audio_kwargs, "padding": True}
    features = processor._retrieve_input_features([clip], **how)
    audio = ["[AUDIO]"] * (375 * len(features))
    names = ["[INST]", "[BEGIN_AUDIO]", *audio, "[/INST]", "lang:en", "[TRANSCRIBE]"]
    tokens = processor.tokenizer.convert_tokens_to_ids(names)
    ids = torch.tensor([[processor.tokenizer.bos_token_id, *tokens]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": features,
    }


def _qwen2_audio(processor: Any, clip: ndarray) -> dict[str, Any]:
    content = [{"type": "audio"}, {"type": "text", "text": "Transcribe the speech."}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=text, audio=clip, sampling_rate=RATE_HZ, return_tensors="pt")
    return dict(inputs)


def _granite_speech(processor: Any, clip: ndarray) -> dict[str, Any]:
    asked = f"{processor.audio_token}can you transcribe the speech into a written format?"
    text = processor.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True, tokenize=False
    )
    return dict(processor(text=text, audio=clip, return_tensors="pt"))


def _behind_marker(text: str) -> str:
    return text.split("<asr_text>", 1)[-1].strip()


RECORDS = {
    "qwen3_asr": Record(
        Qwen3ASRPolicy,
        TinyQwen3ASR(
            WORDS,
            width=32,
            encoder_layers=1,
            lm_layers=2,
            heads=2,
            num_mel_bins=16,
            max_positions=512,
        ),
        _request,
        lively=(0.3, 3),
        more_words=("language", "English", "Chinese", "None", "<asr_text>", "<|endoftext|>"),
        read=_behind_marker,
    ),
    "qwen2_audio": Record(
        Qwen2AudioPolicy,
        TinyQwen2Audio(
            WORDS,
            width=32,
            encoder_layers=1,
            lm_layers=2,
            heads=2,
            chunk_length_s=2,
            num_mel_bins=16,
        ),
        _qwen2_audio,
        lively=(0.5, 0),
    ),
    "granite_speech": Record(
        GraniteSpeechPolicy,
        TinyGraniteSpeech(
            WORDS,
            width=32,
            encoder_layers=2,
            lm_layers=2,
            heads=2,
            max_positions=256,
        ),
        _granite_speech,
        lively=(0.8, 0),
        logits_scaling=2.0,
    ),
    "glm_asr": Record(
        GlmAsrPolicy,
        TinyGlmAsr(
            WORDS,
            width=32,
            encoder_layers=1,
            lm_layers=2,
            heads=2,
            chunk_length_s=2,
            num_mel_bins=16,
            max_positions=128,
        ),
        _request_without_language,
        lively=(0.3, 0),
    ),
    "canary": Record(
        CanaryPolicy,
        TinyCanary(
            WORDS,
            width=32,
            encoder_layers=1,
            decoder_layers=2,
            heads=2,
            max_frames=40,
            num_mel_bins=16,
            max_positions=40,
        ),
        _canary,
        lively=(0.6, 2),
        modes=_ENCODER_DECODER,
        ids="decoder_input_ids",
    ),
    "voxtral": Record(
        VoxtralPolicy,
        TinyVoxtral(
            WORDS,
            width=32,
            encoder_layers=1,
            lm_layers=2,
            heads=2,
            num_mel_bins=16,
            max_positions=1000,
        ),
        _voxtral,
        lively=(0.8, 0),
    ),
    "moonshine": Record(
        MoonshinePolicy,
        TinyMoonshine(
            WORDS,
            width=32,
            encoder_layers=1,
            decoder_layers=2,
            # Of width 4, which is padded to 8.
            heads=8,
            max_positions=40,
        ),
        _moonshine,
        lively=(0.5, 0),
        modes=_ENCODER_DECODER,
        ids="decoder_input_ids",
    ),
}

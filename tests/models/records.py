"""The table of families that transcribe: what a tiny one is made of, and how its own class is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy import ndarray

from lightning_audiorl.models import (
    MoonshinePolicy,
    Qwen2AudioPolicy,
    Qwen3ASRPolicy,
    TinyMoonshine,
    TinyQwen2Audio,
    TinyQwen3ASR,
)
from lightning_audiorl.models.tiny_base import TinySpec

RATE_HZ = 16000
WORDS = ("zero", "one", "two", "three")

_DECODER_ONLY = ("all", "last", "lora", "lora+projector", "projector")
_WITHOUT_PROJECTOR = ("all", "last", "lora")


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
    """

    policy: Any
    spec: TinySpec
    ask: Callable[[Any, ndarray], dict[str, Any]]
    lively: tuple[float, int]
    more_words: tuple[str, ...] = ()
    modes: tuple[str, ...] = _DECODER_ONLY
    ids: str = "input_ids"
    read: Callable[[str], str] = str.strip


def _request(processor: Any, clip: ndarray) -> dict[str, Any]:
    return dict(processor.apply_transcription_request(clip, language="en"))


def _moonshine(processor: Any, clip: ndarray) -> dict[str, Any]:
    inputs = dict(processor(clip, sampling_rate=RATE_HZ, return_tensors="pt"))
    start = processor.tokenizer.bos_token_id
    return {**inputs, "decoder_input_ids": torch.tensor([[start]])}


def _qwen2_audio(processor: Any, clip: ndarray) -> dict[str, Any]:
    content = [{"type": "audio"}, {"type": "text", "text": "Transcribe the speech."}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=text, audio=clip, sampling_rate=RATE_HZ, return_tensors="pt")
    return dict(inputs)


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
        modes=_WITHOUT_PROJECTOR,
        ids="decoder_input_ids",
    ),
}

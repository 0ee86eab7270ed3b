"""Tiny policies of every family in every finetuning mode, and clips for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.codecs.base import Codec, SpeakerCondition
from lightning_audiorl.models import (
    Finetune,
    FunAsrNanoPolicy,
    PlainTemplate,
    SpeechLMPolicy,
    TextLMPolicy,
    TinyCausalLM,
    TinyFunAsrNano,
    TinySpeechLM,
    TinyWhisper,
    WhisperPolicy,
)
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy, PrefixContext
from lightning_audiorl.ops import token_log_probs
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Decoding, PromptBatch, Rollout, Segment, Utterance
from tests.models.records import RATE_HZ, RECORDS, WORDS

SPECS = {
    "fun_asr_nano": TinyFunAsrNano(
        WORDS, width=32, encoder_layers=1, lm_layers=2, heads=2, max_frames=32
    ),
    "whisper": TinyWhisper(
        WORDS,
        width=32,
        encoder_layers=1,
        decoder_layers=2,
        heads=2,
        chunk_length_s=2,
        num_mel_bins=16,
        max_target_positions=40,
    ),
    "text_lm": TinyCausalLM(WORDS, width=32, layers=2, heads=2, max_positions=64),
    "speech_lm": TinySpeechLM(WORDS, width=32, layers=2, heads=2, max_positions=128, num_codes=16),
    **{name: record.spec for name, record in RECORDS.items()},
}


class ToneCodec(Codec):
    """25 codes per second; code c is a tone of 200 * (c + 1) Hz for 40 ms, which is also what it is heard by.

    Attributes:
        gain: all that it holds, so that there is something to place and to hash.
        conditions: the speaker conditions of every call of `decode`.
    """

    def __init__(self, cardinality: int = 16) -> None:
        super().__init__(RATE_HZ, 25.0, cardinality)
        self.gain = torch.nn.Parameter(torch.tensor([0.5]))
        self.conditions: list[SpeakerCondition | None] = []

    def _encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        size = self.samples_per_code
        frames = torch.nn.functional.pad(waveform, (0, -waveform.shape[1] % size)).unflatten(
            1, (-1, size)
        )
        spectrum = torch.fft.rfft(frames * self.gain).abs()  # bins of 25 Hz
        return spectrum[..., 8 : 8 * self.cardinality + 1 : 8].argmax(-1), self.num_codes(
            num_samples
        )

    def _decode(
        self, codes: Tensor, lengths: Tensor, condition: SpeakerCondition | None
    ) -> tuple[Tensor, Tensor]:
        self.conditions.append(condition)
        time_s = torch.arange(self.samples_per_code) / self.sample_rate_hz
        tones = torch.sin(2 * torch.pi * 200 * (codes[..., None] + 1) * time_s)
        return self.gain * tones.flatten(1), lengths * self.samples_per_code


def speech_policy(
    init_from: Any, finetune: Finetune | None = None, **settings: Any
) -> SpeechLMPolicy:
    """A policy that speaks with the `ToneCodec`, made like those of the other families."""
    settings = {"codec": ToneCodec(), "template": PlainTemplate()} | settings
    return SpeechLMPolicy(init_from, finetune=finetune, **settings)


POLICIES: dict[str, Any] = {
    "fun_asr_nano": FunAsrNanoPolicy,
    "whisper": WhisperPolicy,
    "text_lm": TextLMPolicy,
    "speech_lm": speech_policy,
    **{name: record.policy for name, record in RECORDS.items()},
}

# test_parity.py runs the heart of it on them, and fast.
_OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in RECORDS]

#: Those that answer in text; what speaks runs the same checks in test_speech_lm.py.
FAMILIES: list[Any] = ["fun_asr_nano", "whisper", "text_lm", *_OTHERS]
AUDIO_FAMILIES: list[Any] = ["fun_asr_nano", "whisper", *_OTHERS]

_WHISPER_LORA = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
MODES = {
    "all": Finetune(),
    "last": Finetune(projector=False, lm="last", lm_layers=1),
    "lora": Finetune(projector=False, lm="lora", lora_rank=4),
    "lora+projector": Finetune(lm="lora", lora_rank=4),
    "projector": Finetune(lm="none"),
}
#: Every finetuning mode that a family has.
CASES: list[Any] = [("fun_asr_nano", mode) for mode in MODES]
CASES += [(family, mode) for family in ("whisper", "text_lm") for mode in ("all", "last", "lora")]
for _name, _record in RECORDS.items():
    CASES += [pytest.param(_name, mode, marks=pytest.mark.slow) for mode in _record.modes]

#: Short enough for every tiny model, long enough that hypotheses differ.
DECODING = Decoding(tokens_per_second=8.0, min_cap=6, max_new_tokens=20)

# How far from newborn, and which draw: chosen so that greedy hypotheses differ between prompts, and some stop.
_LIVELY = {
    "fun_asr_nano": (0.3, 2),
    "whisper": (0.5, 1),
    "text_lm": (0.5, 0),
    "speech_lm": (0.5, 0),
    **{name: record.lively for name, record in RECORDS.items()},
}


def finetune_of(family: str, mode: str) -> Finetune:
    if family == "whisper" and mode == "lora":
        return Finetune(projector=False, lm="lora", lora_rank=4, lora_targets=_WHISPER_LORA)
    return MODES[mode]


def make(
    family: str, mode: str = "all", lively: bool = True, checkpointing: bool = False
) -> CachedPromptPolicy:
    """A policy in eval mode; a lively one says different things for different prompts, unlike a newborn one."""
    finetune = replace(finetune_of(family, mode), gradient_checkpointing=checkpointing)
    policy = POLICIES[family](SPECS[family], finetune).eval()
    if lively:
        scale, key = _LIVELY[family]
        with torch.no_grad():
            for name, p in policy.named_parameters():
                if p.ndim > 1 and "lora_" not in name:
                    noise = torch.randn(
                        p.shape,
                        generator=keyed_generator("lively", key, name.replace(".base_layer", "")),
                    )
                    p.add_(scale * noise)
    return policy


def disturb(policy: CachedPromptPolicy, scale: float = 0.05) -> None:
    """What training does: move every trainable tensor a little."""
    with torch.no_grad():
        for name, p in policy.trainable().items():
            p.add_(scale * torch.randn(p.shape, generator=keyed_generator("disturb", name)))


def clip(name: str, duration_s: float) -> Tensor:
    """A tone with noise; pitch and noise are the name's own."""
    num = int(duration_s * RATE_HZ)
    generator = keyed_generator("clip", name)
    pitch_hz = 200 + 3000 * float(torch.rand(1, generator=generator))
    tone = torch.sin(2 * torch.pi * pitch_hz * torch.arange(num) / RATE_HZ)
    return 0.3 * tone + 0.1 * torch.randn(num, generator=generator)


def batch_of(names: list[str], durations_s: list[float] | None = None) -> PromptBatch:
    """One clip and one prompt per name; a name's clip and prompt are always the same.

    For a policy that speaks the clip is a speaker prompt, and the prompt what is said in it.
    """
    durations_s = durations_s or [duration_of(name) for name in names]
    clips = [clip(name, seconds) for name, seconds in zip(names, durations_s, strict=True)]
    rows = tuple(
        Utterance(
            name,
            (Segment(f"{name}.wav"),),
            "one two",
            seconds,
            extra={"prompt": prompt_of(name), "prompt_text": prompt_of(name)},
        )
        for name, seconds in zip(names, durations_s, strict=True)
    )
    num_samples = torch.tensor([len(wave) for wave in clips])
    return PromptBatch(
        torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), num_samples, RATE_HZ, rows
    )


def duration_of(name: str) -> float:
    return 0.4 + 1.2 * float(torch.rand(1, generator=keyed_generator("duration", name)))


def prompt_of(name: str) -> str:
    """Two to six words."""
    generator = keyed_generator("prompt", name)
    num = int(torch.randint(2, 7, (1,), generator=generator))
    return " ".join(
        WORDS[i] for i in torch.randint(0, len(WORDS), (num,), generator=generator).tolist()
    )


def random_rollout(policy: CachedPromptPolicy, num_prompts: int, group_size: int) -> Rollout:
    """Words (or codes) at random, of random lengths: nothing in it is certain, so that every change shows."""
    generator = torch.Generator().manual_seed(1)
    shape = (num_prompts, group_size, 8)
    words = torch.tensor(policy.tokenizer.convert_tokens_to_ids(list(WORDS)))
    if isinstance(policy, SpeechLMPolicy):
        words = policy.code_to_token
    tokens = words[torch.randint(0, len(words), shape, generator=generator)]
    keep = torch.arange(8) < torch.randint(2, 9, shape[:2], generator=generator)[..., None]
    return Rollout(tokens, keep, torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.bool))


def log_probs(
    policy: CachedPromptPolicy, context: PrefixContext, rollout: Rollout, temperature: float = 1.0
) -> Tensor:
    """[B, G, T] as the update computes them."""
    scored = token_log_probs(
        policy.hidden(context, rollout),
        policy.head,
        rollout.tokens.flatten(0, 1),
        rollout.keep.flatten(0, 1),
        temperature,
        None if rollout.support is None else rollout.support.flatten(0, 1),
    )
    return scored.log_probs.view(rollout.tokens.shape)

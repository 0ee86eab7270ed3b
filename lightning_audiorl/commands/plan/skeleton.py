"""A policy made of its config alone: the real classes, parameters without values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.models import FunAsrNanoPolicy, Policy, TextLMPolicy, WhisperPolicy
from lightning_audiorl.models.asr.fun_asr_nano import FunAsrContext
from lightning_audiorl.models.decoding.encoder_decoder import EncodedContext
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Start, read_start
from lightning_audiorl.models.policy import Context
from lightning_audiorl.models.tiny.asr import TinySpec
from lightning_audiorl.models.tts.text_lm import TextContext

_RATE_HZ = 16_000


@dataclass
class _NoTokenizer:
    """Stands for a tokenizer where only its size is asked for."""

    size: int
    eos_token_id: int = 0
    all_special_ids: list[int] = field(default_factory=list)
    added_tokens_decoder: dict[int, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.size


def build_skeleton(
    policy_class: type[Policy],
    init_from: str | TinySpec,
    finetune: Finetune | None,
    dtype: str,
    revision: str | None,
    meter: Meter,
) -> Policy:
    """The policy that ``policy_class(init_from, ...)`` would make, from ``config.json`` alone.

    Raises:
        ValueError: for a policy class that the planner does not know.
        FileNotFoundError: for a folder without ``config.json``.
    """
    if policy_class not in _PROMPTS:
        known = ", ".join(kind.__name__ for kind in _PROMPTS)
        raise ValueError(f"plan: no outline of the policy class {policy_class.__name__}; known are {known}")
    start = read_start(init_from) if not isinstance(init_from, str) or not init_from.endswith(".ckpt") else None
    source = (start or read_start(init_from)).source
    with _from_config_alone(policy_class), meter.fake:
        policy = policy_class(source, finetune, dtype, revision)
    meter.leave_out([*policy.parameters(), *policy.buffers()])
    return policy.eval()


@contextmanager
def _from_config_alone(policy_class: type[Policy]) -> Iterator[None]:
    """Inside, the constructor of a policy reads a model's config, neither its weights nor its tokenizer."""

    def build(start: Start, tiny: Any, classes: Any, dtype: str, revision: str | None) -> tuple[Any, Any]:
        if not isinstance(start.source, str):
            return tiny[1](start.source)
        model_class = classes[0]
        try:
            config = AutoConfig.from_pretrained(start.source, revision=revision)
        except OSError as error:
            raise FileNotFoundError(
                f"plan: no config.json of {start.source} is here, nor can one be fetched; give a folder that holds it"
            ) from error
        config._attn_implementation = "sdpa"
        make = getattr(model_class, "_from_config", None) or model_class.from_config
        model = make(config, dtype=getattr(torch, dtype))
        tokenizer = _NoTokenizer(config.get_text_config().vocab_size)
        processor = SimpleNamespace(tokenizer=tokenizer, audio_token_id=getattr(config, "audio_token_id", None))
        return model, tokenizer if classes[1].__name__ == "AutoTokenizer" else processor

    with patch.object(sys.modules[policy_class.__module__], "build", build), patch.object(nn.Module, "_apply", _apply):
        yield


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``Module.to`` and its like for parameters without values, which torch cannot swap: new ones take their place."""
    for inner in module.modules() if recurse else [module]:
        for name, parameter in inner._parameters.items():
            if parameter is not None:
                inner._parameters[name] = nn.Parameter(function(parameter.detach()), parameter.requires_grad)
        for name, buffer in inner._buffers.items():
            if buffer is not None:
                inner._buffers[name] = function(buffer)
    return module


# --- prompts, one function per family: B clips of audio_s seconds, encoded by the real encoder


def _fun_asr_prompts(policy: Any, num: int, audio_s: float, text_tokens: int) -> FunAsrContext:
    config = policy.model.config.audio_config
    num_mel_frames = 1 + (int(audio_s * _RATE_HZ) - 400) // 160
    num_frames = -(-num_mel_frames // 6)
    if not 1 <= num_frames <= policy.max_frames:
        raise ValueError(
            f"plan: {audio_s} s of audio are {num_frames} frames; the encoder takes 1 to {policy.max_frames}"
        )
    keep = torch.ones(num, num_frames, dtype=torch.bool)
    inputs = torch.empty(num, num_frames, config.num_mel_bins * config.num_stacked_frames)
    encoded = policy.model.model.audio_tower(input_features=inputs, input_features_mask=keep.long()).last_hidden_state
    tokens = [policy.processor.audio_token_id] * num_frames + [policy.stop_ids[0]] * text_tokens
    return FunAsrContext([str(i) for i in range(num)], [audio_s] * num, encoded, keep, [tokens] * num)


def _whisper_prompts(policy: Any, num: int, audio_s: float, text_tokens: int) -> EncodedContext:
    config = policy.model.config
    inputs = torch.empty(num, config.num_mel_bins, 2 * config.max_source_positions)
    encoder = policy.model.model.encoder
    encoded = encoder(inputs.to(encoder.conv1.weight.dtype)).last_hidden_state
    tokens = torch.zeros(num, 4, dtype=torch.long)  # start, language, task, no timestamps
    return EncodedContext([str(i) for i in range(num)], [audio_s] * num, encoded, tokens)


def _text_prompts(policy: Any, num: int, audio_s: float, text_tokens: int) -> TextContext:
    return TextContext([str(i) for i in range(num)], [audio_s] * num, [[policy.stop_ids[0]] * text_tokens] * num)


_PROMPTS: dict[type[Policy], Callable[[Any, int, float, int], Context]] = {
    FunAsrNanoPolicy: _fun_asr_prompts,
    WhisperPolicy: _whisper_prompts,
    TextLMPolicy: _text_prompts,
}


def encode(policy: Policy, num: int, audio_s: float, text_tokens: int | None) -> Context:
    """What ``policy.encode`` returns for ``num`` clips of one length, after the feature extraction.

    Args:
        policy: from `build_skeleton`.
        num: clips, B.
        audio_s: seconds of each.
        text_tokens: tokens of the prompt beside the audio frames; None is 20, or 200 where there is no audio (a text
            and a speaker prompt of three seconds in tokens).
    """
    if text_tokens is None:
        text_tokens = 200 if isinstance(policy, TextLMPolicy) else 20
    return _PROMPTS[type(policy)](policy, num, audio_s, text_tokens)


def unique_bytes(tensors: list[Tensor]) -> int:
    """Bytes of the distinct storages behind ``tensors``."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())

"""Whisper's window cut to the clip: its encoder over the first positions alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from lightning_audiorl.checks import check_number

# Windows are whole multiples of half a second: clips of about one length share a pass.
_STEPS_PER_S = 2

# The encoder's sinusoids, one row per position.
_POSITIONS = "embed_positions.weight"


class CutWindow:
    """Encodes clips in windows that end a little behind them, where Whisper pads each to 30 s.

    Features and positional embeddings are those with which the whole window begins. What is missing is the silence
    behind, to which every position of the whole window attends: the outputs are others, and so may the transcripts be.

    Args:
        model: the Whisper; it stays as it is.
        extractor: its feature extractor.
        tail_s: seconds of silence behind a clip, at least.

    Raises:
        ValueError: for a model that is no Whisper, and for a tail of less than nothing.
    """

    def __init__(self, model: nn.Module, extractor: Any, tail_s: float) -> None:
        if not isinstance(model, WhisperForConditionalGeneration):
            raise ValueError(
                f"TransformersJudge.window_tail_s: a {type(model).__name__} has no window of one length; only Whisper "
                "has: leave window_tail_s out"
            )
        check_number("TransformersJudge.window_tail_s", tail_s, at_least=0)
        self.model = model
        self.extractor = extractor
        self.tail_s = tail_s
        # By number of positions; without weights.
        self._shells: dict[int, nn.Module] = {}

    def num_samples(self, num_clip_samples: int) -> int:
        """Length of the window of a clip of so many samples, at most that of the whole one."""
        rate_hz = self.extractor.sampling_rate
        wanted = num_clip_samples + round(self.tail_s * rate_hz)
        step = rate_hz // _STEPS_PER_S
        num_steps = max(1, -(-wanted // step))
        return min(num_steps * step, self.extractor.n_samples)

    def encode(self, waveforms: Sequence[Tensor]) -> BaseModelOutput:
        """[B, F, D] of clips that have one window together, for ``generate(encoder_outputs=...)``."""
        (num_samples,) = {self.num_samples(len(wave)) for wave in waveforms}
        audio = [wave.cpu().numpy() for wave in waveforms]
        features = self.extractor(
            audio,
            sampling_rate=self.extractor.sampling_rate,
            return_tensors="pt",
            max_length=num_samples,
        )["input_features"]

        encoder = self.model.model.encoder
        stride = encoder.conv1.stride[0] * encoder.conv2.stride[0]
        num_positions = features.shape[-1] // stride
        weights = {name: weight.detach() for name, weight in encoder.state_dict().items()}
        weights[_POSITIONS] = weights[_POSITIONS][:num_positions]

        # As they are now: a strategy may have moved them since the last time.
        first = weights[_POSITIONS]
        output = functional_call(
            self._shell(num_positions),
            weights,
            (features.to(first.device, first.dtype),),
            strict=True,
        )
        return BaseModelOutput(last_hidden_state=output.last_hidden_state)

    def _shell(self, num_positions: int) -> nn.Module:
        """The encoder's class for so many positions, which refuses inputs of another length."""
        if num_positions not in self._shells:
            encoder = self.model.model.encoder
            config = copy.deepcopy(encoder.config)
            config.max_source_positions = num_positions
            with torch.device("meta"):
                shell = type(encoder)(config)
            self._shells[num_positions] = shell.eval()
        return self._shells[num_positions]


def by_window(window: CutWindow, waveforms: Sequence[Tensor]) -> dict[int, list[int]]:
    """Numbers of the clips by the length of their window, which a pass has one of.

    Clips in one pass do not change each other's transcripts, as all have the window that they would have alone.
    """
    groups: dict[int, list[int]] = {}
    for i, wave in enumerate(waveforms):
        groups.setdefault(window.num_samples(len(wave)), []).append(i)
    return groups

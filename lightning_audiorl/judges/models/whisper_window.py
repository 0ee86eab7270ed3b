"""Whisper's windows: through its encoder, and one cut to the clip and a few positions of the silence behind it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from lightning_audiorl.checks import check_count, check_number

# Windows are whole multiples of half a second: clips of about one length share a pass.
_STEPS_PER_S = 2

# The encoder's sinusoids, one row per position.
_POSITIONS = "embed_positions.weight"


class CutWindow:
    """Encodes clips in a window that is whole for the clip and a tail behind it, and thin in the silence that follows.

    Whisper pads each clip to 30 s. Features and positional embeddings are those of its whole window, but of the
    positions behind the tail only every ``rest_step``-th is computed, the last one among them. Without any of these
    Whisper, which has never heard a window end early, often says a text again and again. Every position attends to
    fewer silent ones than in the whole window: the outputs are others, and so may the transcripts be.

    Args:
        model: the Whisper; it stays as it is.
        extractor: its feature extractor.
        tail_s: seconds of silence behind a clip, at least.
        rest_step: how many positions of the rest one stands for; 0 leaves the rest out.

    Raises:
        ValueError: for a model that is no Whisper, and for settings below nothing.
    """

    def __init__(self, model: nn.Module, extractor: Any, tail_s: float, rest_step: int = 8) -> None:
        if not isinstance(model, WhisperForConditionalGeneration):
            raise ValueError(
                f"TransformersJudge.window_tail_s: a {type(model).__name__} has no window of one length; only Whisper "
                "has: leave window_tail_s out"
            )
        check_number("TransformersJudge.window_tail_s", tail_s, at_least=0)
        check_count("TransformersJudge.window_rest_step", rest_step)
        self.model = model
        self.extractor = extractor
        self.tail_s = tail_s
        self.rest_step = rest_step
        # By number of positions; without weights.
        self._shells: dict[int, nn.Module] = {}

    def num_samples(self, num_clip_samples: int) -> int:
        """Length of the whole part of the window of a clip of so many samples."""
        rate_hz = self.extractor.sampling_rate
        wanted = num_clip_samples + round(self.tail_s * rate_hz)
        step = rate_hz // _STEPS_PER_S
        num_steps = max(1, -(-wanted // step))
        return min(num_steps * step, self.extractor.n_samples)

    def positions(self, num_samples: int) -> list[int]:
        """Numbers of the encoder's positions that are computed, of those of the whole window.

        Args:
            num_samples: of the window's whole part.
        """
        num_all = self.model.config.max_source_positions
        num_first = num_all * num_samples // self.extractor.n_samples
        rest: list[int] = []
        if self.rest_step:
            # From the last one on: it is where Whisper knows a window to end.
            rest = list(range(num_all - 1, num_first - 1, -self.rest_step))
        return [*range(num_first), *reversed(rest)]

    def encode(self, waveforms: Sequence[Tensor]) -> BaseModelOutput:
        """[B, F, D] of clips that have one window together, for ``generate(encoder_outputs=...)``."""
        (num_samples,) = {self.num_samples(len(wave)) for wave in waveforms}
        positions = self.positions(num_samples)

        # Silence sounds the same wherever it is: that of the rest is as long as the positions that stand for it.
        samples_per_position = self.extractor.n_samples // self.model.config.max_source_positions
        audio = [wave.cpu().numpy() for wave in waveforms]
        features = self.extractor(
            audio,
            sampling_rate=self.extractor.sampling_rate,
            return_tensors="pt",
            max_length=len(positions) * samples_per_position,
        )["input_features"]

        # As the weights are now: a strategy may have moved them since the last time.
        encoder = self.model.model.encoder
        weights = {name: weight.detach() for name, weight in encoder.state_dict().items()}
        whole = weights[_POSITIONS]
        weights[_POSITIONS] = whole[torch.tensor(positions, device=whole.device)]
        shell = self._shell(len(positions))
        return encode_windows(
            lambda some: functional_call(shell, weights, (some,), strict=True),
            features.to(whole.device, whole.dtype),
        )

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


def ends_in_a_loop(tokens: Sequence[int]) -> bool:
    """Whether a transcript ends by saying the same twice: the tokens of its end, and just before them.

    Example:
        >>> ends_in_a_loop([5, 7, 7]), ends_in_a_loop([5, 1, 2, 1, 2]), ends_in_a_loop([7, 7, 5])
        (True, True, False)
    """
    return any(
        tokens[-period:] == tokens[-2 * period : -period]
        for period in range(1, len(tokens) // 2 + 1)
    )


def encode_windows(encoder: Callable[[Tensor], Any], features: Tensor) -> BaseModelOutput:
    """[B, F, D] of windows of one length, for ``generate(encoder_outputs=...)``.

    On a CPU one window after the other: the activations of several are beyond its caches, and each takes longer
    (`benchmarks/judge_window.py`). On an accelerator all at once.

    Args:
        encoder: Whisper's, or one that is called like it.
        features: [B, num_mels, num_frames], where the encoder is.
    """
    windows = features.split(1) if features.device.type == "cpu" else (features,)
    outputs = [encoder(window).last_hidden_state for window in windows]
    return BaseModelOutput(last_hidden_state=torch.cat(outputs))


def by_window(window: CutWindow, waveforms: Sequence[Tensor]) -> dict[int, list[int]]:
    """Numbers of the clips by the length of their window, which a pass has one of.

    Clips in one pass do not change each other's transcripts, as all have the window that they would have alone.
    """
    groups: dict[int, list[int]] = {}
    for i, wave in enumerate(waveforms):
        groups.setdefault(window.num_samples(len(wave)), []).append(i)
    return groups

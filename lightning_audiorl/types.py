"""The data on the arrows between the stages: one frozen dataclass each.

Letters: B prompts, G samples of each prompt, T tokens of a completion, S audio samples, V vocabulary.
A group (the G samples of one prompt) is always contiguous: ``[B, G, ...]``, never tiled. Masks are called
``keep``; True means use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class _Movable:
    """Moves every tensor field (also inside dicts) to a device; Lightning's batch transfer calls ``to``."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy with every tensor on ``device``."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, dict):
                return {key: move(item) for key, item in value.items()}
            return value

        own: Any = self  # a dataclass, as every subclass is
        return replace(own, **{f.name: move(getattr(self, f.name)) for f in fields(own)})


def _expect(name: str, value: Tensor, shape: tuple[int | None, ...], kind: type) -> None:
    fits = value.ndim == len(shape) and all(w is None or w == g for w, g in zip(shape, value.shape, strict=False))
    if not fits:
        raise ValueError(f"{kind.__name__}.{name}: expected shape {list(shape)}, got {list(value.shape)}")


@dataclass(frozen=True)
class Segment:
    """A stretch of one audio source, one piece of a constructed utterance.

    Args:
        audio_filepath: absolute path, or a ``synthetic:`` URI (see ``data/audio/nonspeech.py``).
        duration_s: length in seconds; None reads to the end of the file.
        offset_s: where the stretch begins, in seconds.
        gap_s: silence put before it, in seconds.
    """

    audio_filepath: str
    duration_s: float | None = None
    offset_s: float = 0.0
    gap_s: float = 0.0


@dataclass(frozen=True)
class Utterance:
    """One manifest row: what is spoken in a stretch of audio. No audio in it yet.

    Args:
        id: unique within a manifest; keys every random draw made for this row.
        segments: what the audio is joined from; a plain manifest row has exactly one.
        text: reference text; empty for non-speech.
        duration_s: length of the whole in seconds.
        lang: ISO 639-1 code, names the text normaliser and the error unit (word or character).
        speaker: speaker name, or "" when unknown.
        keywords: words of special value in this row (reward R3).
        effects: what is done to the joined audio, in order, such as ``telephone`` (see ``data/audio/effects.py``).
        extra: every other field of the manifest row, kept as it was.
    """

    id: str
    segments: tuple[Segment, ...]
    text: str
    duration_s: float
    lang: str = "en"
    speaker: str = ""
    keywords: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptBatch(_Movable):
    """Audio and reference text of B prompts.

    Example: two clips of 1.0 s and 0.5 s at 16 kHz -> ``waveform`` [2, 16000] (zeros after a clip's end),
    ``num_samples`` [16000, 8000], two ``rows``. ``rows[i].id`` keys every random draw made for clip i.

    In speech synthesis the rows' texts are to be spoken and the audio is that of the speaker prompts (0 samples where a
    row has none); ``target_waveform`` and ``target_num_samples``, shaped alike, hold recordings of the texts where
    there are any, for supervised training.
    """

    waveform: Tensor
    num_samples: Tensor
    sample_rate_hz: int
    rows: tuple[Utterance, ...]
    target_waveform: Tensor | None = None
    target_num_samples: Tensor | None = None

    def __post_init__(self) -> None:
        _expect("waveform", self.waveform, (len(self.rows), None), PromptBatch)
        _expect("num_samples", self.num_samples, (len(self.rows),), PromptBatch)
        if (self.target_waveform is None) != (self.target_num_samples is None):
            raise ValueError("PromptBatch: target_waveform and target_num_samples come together")
        if self.target_waveform is not None and self.target_num_samples is not None:
            _expect("target_waveform", self.target_waveform, (len(self.rows), None), PromptBatch)
            _expect("target_num_samples", self.target_num_samples, (len(self.rows),), PromptBatch)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """B ids of the rows."""
        return [row.id for row in self.rows]

    @property
    def texts(self) -> list[str]:
        """B reference texts."""
        return [row.text for row in self.rows]

    def select(self, index: list[int]) -> PromptBatch:
        """The prompts at ``index``, trimmed to their longest clip."""
        num_samples = self.num_samples[index]
        longest = int(num_samples.max())
        rows = tuple(self.rows[i] for i in index)
        target, target_num_samples = self.target_waveform, self.target_num_samples
        if target is not None and target_num_samples is not None:
            target_num_samples = target_num_samples[index]
            target = target[index, : int(target_num_samples.max())]
        waveform = self.waveform[index, :longest]
        return PromptBatch(waveform, num_samples, self.sample_rate_hz, rows, target, target_num_samples)


@dataclass(frozen=True)
class Decoding:
    """How continuations are drawn. Training leaves truncation off (top_k 0, top_p 1).

    Args:
        temperature: 0 is greedy; log-probs are then taken at temperature 1.
        top_k: keep the k most likely tokens (0 = off).
        top_p: keep the smallest set of tokens with this mass (1.0 = off).
        max_new_tokens: hard cap on a completion, stop token included.
        tokens_per_second: length cap in proportion to the audio: ``min_cap + tokens_per_second * seconds``; None is 15
            for a model that writes, twice the codec's frame rate for one that speaks.
        min_cap: constant part of that cap, in tokens.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 448
    tokens_per_second: float | None = None
    min_cap: int = 16

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(
                f"Decoding: want temperature >= 0, 0 < top_p <= 1, top_k >= 0; got temperature={self.temperature}, "
                f"top_p={self.top_p}, top_k={self.top_k}"
            )
        if self.max_new_tokens < 1 or self.min_cap < 1 or (self.tokens_per_second or 0) < 0:
            raise ValueError("Decoding: max_new_tokens and min_cap must be >= 1, tokens_per_second >= 0")

    def cap(self, duration_s: float, usual: float = 15.0) -> int:
        """Most tokens a completion for ``duration_s`` seconds of audio may have, stop token included.

        Args:
            duration_s: of the audio, heard or to be spoken.
            usual: the ``tokens_per_second`` where none is given.
        """
        per_second = usual if self.tokens_per_second is None else self.tokens_per_second
        return max(1, min(self.max_new_tokens, self.min_cap + int(per_second * duration_s)))


@dataclass(frozen=True)
class Rollout(_Movable):
    """G completions of each of B prompts, without the prompts.

    Example: B=1, G=2, completions "a stop" and "b c stop" -> ``tokens`` [1, 2, 3], ``keep``
    [[[1, 1, 0], [1, 1, 1]]], ``finished`` [[True, True]].

    Args:
        tokens: [B, G, T] int64; anything valid where ``keep`` is False.
        keep: [B, G, T] bool; a prefix of each row; the stop token counts as kept.
        log_probs: [B, G, T] float32 under the sampling distribution (temperature and support included).
        finished: [B, G] bool; False where the length cap cut the completion.
        support: [B, G, T, K] int64, -1 padded: the tokens that truncation kept at each step; None without truncation.
    """

    tokens: Tensor
    keep: Tensor
    log_probs: Tensor
    finished: Tensor
    support: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.tokens.shape)
        if len(shape) != 3:
            raise ValueError(f"Rollout.tokens: expected [B, G, T], got {list(shape)}")
        _expect("keep", self.keep, shape, Rollout)
        _expect("log_probs", self.log_probs, shape, Rollout)
        _expect("finished", self.finished, shape[:2], Rollout)
        if self.support is not None:
            _expect("support", self.support, (*shape, None), Rollout)

    @property
    def lengths(self) -> Tensor:
        """[B, G] number of kept tokens, stop token included."""
        return self.keep.sum(-1)

    def select(self, index: list[int]) -> Rollout:
        """The groups of the prompts at ``index``, trimmed to their longest completion."""
        longest = max(1, int(self.lengths[index].max()))
        support = None if self.support is None else self.support[index][:, :, :longest]
        return Rollout(
            self.tokens[index][:, :, :longest],
            self.keep[index][:, :, :longest],
            self.log_probs[index][:, :, :longest],
            self.finished[index],
            support,
        )


@dataclass(frozen=True)
class Speech:
    """One synthesised sample.

    Args:
        waveform: [num_samples] float32 on the CPU; no sample where nothing was said.
        sample_rate_hz: of the waveform.
        codes: [num_codes] int64 speech tokens that it was decoded from, without prompt and stop token.
        prompt: [num_samples] float32 on the CPU: the speaker prompt that the policy was given, which judges of the
            voice compare with; None, or no sample, where there was none.
        prompt_sample_rate_hz: of the prompt; 0 without one.
    """

    waveform: Tensor
    sample_rate_hz: int
    codes: Tensor
    prompt: Tensor | None = None
    prompt_sample_rate_hz: int = 0

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.waveform.shape[0] / self.sample_rate_hz


@dataclass(frozen=True)
class Hypothesis:
    """One decoded sample, as rewards and metrics see it.

    Args:
        row: the manifest row that it is a hypothesis for.
        text: decoded text, not normalised; empty where speech was asked for.
        num_tokens: completion length in tokens, stop token included.
        finished: False where the length cap cut it.
        speech: the sample of a model that speaks.
        transcripts: of the speech, by the name of the ASR judge that was asked; None where it failed.
    """

    row: Utterance
    text: str
    num_tokens: int = 0
    finished: bool = True
    speech: Speech | None = None
    transcripts: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores(_Movable):
    """Rewards of B x G samples. Higher is better.

    Args:
        total: [B, G] float32 weighted sum; anything where ``valid`` is False.
        valid: [B, G] bool; False where a reward failed: such a sample leaves group statistics and loss.
        parts: unweighted parts by name, each [B, G]; NaN where that part failed.
        failures: how many samples each part failed on.
    """

    total: Tensor
    valid: Tensor
    parts: dict[str, Tensor]
    failures: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(self.total.shape)
        _expect("valid", self.valid, shape, Scores)
        for name, part in self.parts.items():
            _expect(f"parts[{name}]", part, shape, Scores)

"""Where speech is heard in what a policy says: clips without any, silence before it, and what comes after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from lightning_audiorl.judges.base import speech_of
from lightning_audiorl.judges.silence import SILENCE_DBFS
from lightning_audiorl.metrics.specs import Format, MetricSpec, percent
from lightning_audiorl.speech_activity import SpeechDetector
from lightning_audiorl.text.compare import without_sounds
from lightning_audiorl.types import Hypothesis, Speech

#: Sound of a tail is looked for in pieces of this length.
_PIECE_S = 0.02

#: Shown wherever a set has them, which is where its evaluation has a detector.
ACTIVITY = (
    MetricSpec("no_speech_rate", "lower", percent("no speech"), bars=None, monitor=False),
    MetricSpec("leading_s", None, Format("lead s", 2), bars=None, watch=None, monitor=False),
    MetricSpec("tail_s", None, Format("tail s", 2), bars=None, watch=None, monitor=False),
    MetricSpec(
        "tail_sound_s", "lower", Format("tail sound s", 2), bars=None, watch=None, monitor=False
    ),
)


@dataclass
class ActivityCounts:
    """Sums over the samples of a set, for `activity_rates`.

    Args:
        samples: that have words to say and finite samples.
        silent: of these, those in which no speech is heard.
        leading_s: seconds before the first speech, of the others.
        tail_s: seconds after the last speech, of the others.
        tail_sound_s: of these, seconds that can be heard.
    """

    samples: float = 0.0
    silent: float = 0.0
    leading_s: float = 0.0
    tail_s: float = 0.0
    tail_sound_s: float = 0.0

    def vector(self) -> Tensor:
        """[5] float64, the fields in order."""
        return torch.tensor(astuple(self), dtype=torch.float64)


def activity_counts(hypotheses: Sequence[Hypothesis], detector: SpeechDetector) -> ActivityCounts:
    """What one batch of samples adds up to; each is heard by itself.

    Samples that are NaN or infinite are left out, and so are rows without words: those may be silent.

    Args:
        hypotheses: samples with speech.
        detector: hears them.

    Raises:
        JudgeError: for a hypothesis without speech.
        ImportError: the extra ``vad`` is not installed.
    """
    counts = ActivityCounts()
    for hypothesis in hypotheses:
        speech = speech_of(hypothesis, "SpeechMetrics")
        has_words = bool(without_sounds(hypothesis.row.reference).strip())
        if not has_words or not bool(speech.waveform.isfinite().all()):
            continue

        counts.samples += 1
        heard = detector.listen(speech.waveform, speech.sample_rate_hz)
        if not heard.spans:
            counts.silent += 1
            continue
        counts.leading_s += heard.leading_s
        counts.tail_s += heard.tail_s
        counts.tail_sound_s += sound_s(speech, heard.spans[-1][1])
    return counts


def sound_s(speech: Speech, after_s: float) -> float:
    """Seconds that can be heard behind ``after_s``: pieces of 20 ms above `SILENCE_DBFS`, about their mean.

    Example:
        >>> noise = torch.tensor([0.1, -0.1]).repeat(4000)
        >>> speech = Speech(torch.cat([noise, torch.zeros(8000)]), 8000, torch.zeros(25, dtype=torch.int64))
        >>> sound_s(speech, after_s=0.5)
        0.5
    """
    size = round(_PIECE_S * speech.sample_rate_hz)
    tail = speech.waveform[round(after_s * speech.sample_rate_hz) :].double()
    num_pieces = len(tail) // size
    if not num_pieces:
        return 0.0
    pieces = tail[: num_pieces * size].reshape(num_pieces, size)
    heard = pieces.var(-1, correction=0) > 10 ** (SILENCE_DBFS / 10)
    return int(heard.sum()) * _PIECE_S


def activity_rates(counts: ActivityCounts) -> dict[str, float]:
    """The metrics of a set; NaN where nothing can be divided by.

    no_speech_rate: samples in which no speech is heard, of those that have words to say.
    leading_s, tail_s: seconds before the first and after the last speech, mean over the samples that speak.
    tail_sound_s: seconds of that tail that can be heard: noise, breath, what is no speech any more.

    Example:
        >>> rates = activity_rates(ActivityCounts(samples=4, silent=1, leading_s=0.6, tail_s=1.5))
        >>> rates["no_speech_rate"], rates["tail_s"]
        (0.25, 0.5)
    """
    spoken = counts.samples - counts.silent
    return {
        "no_speech_rate": counts.silent / counts.samples if counts.samples else math.nan,
        "leading_s": counts.leading_s / spoken if spoken else math.nan,
        "tail_s": counts.tail_s / spoken if spoken else math.nan,
        "tail_sound_s": counts.tail_sound_s / spoken if spoken else math.nan,
    }

"""How sure the judges are of what they hear: means over the samples of what stands on their transcripts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.judges.transcript import (
    HEARD_AGAIN,
    LIKE_SILENCE,
    LOG_PROB,
    MEASURES,
    measures_of,
)
from lightning_audiorl.metrics.roles import Judges
from lightning_audiorl.metrics.specs import Better, MetricSpec
from lightning_audiorl.types import Hypothesis

_PREFIXES = ("", "held_out_")


def _spec(prefix: str, measure: str) -> MetricSpec:
    directions: dict[str, Better] = {
        HEARD_AGAIN: "lower",
        LIKE_SILENCE: "lower",
        LOG_PROB: "higher",
    }
    better = directions.get(measure)
    return MetricSpec(
        prefix + measure,
        better,
        format=None,
        bars=None,
        watch=None,
        monitor=False,
    )


#: In report.json and TensorBoard, where a judge measures it.
CONFIDENCE = tuple(_spec(prefix, measure) for prefix in _PREFIXES for measure in MEASURES)


def no_confidence() -> Tensor:
    """[2, num_measures, 2] zeros: by role (reward, held out), measure of `MEASURES`, sum and count."""
    return torch.zeros(len(_PREFIXES), len(MEASURES), 2, dtype=torch.float64)


def confidence_sums(hypotheses: Sequence[Hypothesis], judges: Judges, panel: JudgePanel) -> Tensor:
    """What one batch of samples adds to `no_confidence`; samples that were not listened to add nothing.

    Args:
        hypotheses: samples with speech.
        judges: whom to ask.
        panel: knows what they have answered already.
    """
    sums = no_confidence()
    for role, judge in enumerate((judges.judge, judges.held_out_judge)):
        if judge is None or not _reports(judge):
            continue
        for transcript in panel.ask(judge, hypotheses):
            measures = measures_of(transcript)
            for place, measure in enumerate(MEASURES):
                value = measures.get(measure, math.nan)
                if not math.isnan(value):
                    sums[role, place] += torch.tensor([value, 1.0], dtype=torch.float64)
    return sums


def confidence_means(sums: Tensor, judges: Judges) -> dict[str, float]:
    """The metrics of a set, of the measures that its judges report; NaN where none of them was taken.

    log_prob: mean over the samples of the mean log-probability of a transcript's tokens, by the reward's judge.
    no_speech_prob: mean probability that a clip holds no speech, where the judge is a Whisper.
    like_silence: share of the samples whose transcript a silent clip gets, too, which counts as empty.
    heard_again: share of the samples that said the same twice in a window cut to the clip, and were heard again.
    held_out_log_prob, held_out_no_speech_prob and so on: the same by the judge held out.

    Args:
        sums: added up over the samples of the set.
        judges: that were asked.
    """
    means: dict[str, float] = {}
    for role, judge in enumerate((judges.judge, judges.held_out_judge)):
        for place, measure in enumerate(MEASURES):
            if measure not in _reports(judge):
                continue
            total, count = sums[role, place].tolist()
            means[_PREFIXES[role] + measure] = total / count if count else math.nan
    return means


def _reports(judge: object) -> tuple[str, ...]:
    reports: tuple[str, ...] = getattr(judge, "reports", ())
    return reports

"""Evaluation metrics, independent of the rewards."""

from lightning_audiorl.metrics.asr import AsrMetrics
from lightning_audiorl.metrics.evaluation import AsrEvaluation, SetEvaluation
from lightning_audiorl.metrics.functional import UtteranceCounts, asr_rates, utterance_counts
from lightning_audiorl.metrics.specs import Format, MetricSpec, RegistersSpecs, percent
from lightning_audiorl.metrics.speech import SpeechEvaluation, SpeechMetrics
from lightning_audiorl.metrics.watch import (
    agreement_alerts,
    empty_answer_alerts,
    gap_alerts,
    reward_hacking_alerts,
    silence_alerts,
)

__all__ = [
    "AsrEvaluation",
    "AsrMetrics",
    "Format",
    "MetricSpec",
    "RegistersSpecs",
    "SetEvaluation",
    "SpeechEvaluation",
    "SpeechMetrics",
    "UtteranceCounts",
    "agreement_alerts",
    "asr_rates",
    "empty_answer_alerts",
    "gap_alerts",
    "percent",
    "reward_hacking_alerts",
    "silence_alerts",
    "utterance_counts",
]

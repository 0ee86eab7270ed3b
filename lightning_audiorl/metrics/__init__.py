"""Evaluation figures, independent of the rewards."""

from lightning_audiorl.metrics.asr import AsrMetrics
from lightning_audiorl.metrics.functional import UtteranceCounts, asr_rates, utterance_counts
from lightning_audiorl.metrics.watch import reward_hacking_alerts

__all__ = ["AsrMetrics", "UtteranceCounts", "asr_rates", "reward_hacking_alerts", "utterance_counts"]

"""Training of our own judges."""

from lightning_audiorl.judges.training.base import JudgeTraining

__all__ = ["JudgeTraining"]

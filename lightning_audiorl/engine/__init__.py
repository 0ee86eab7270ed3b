"""The engine: the loop of an RL step, above everything that computes."""

from __future__ import annotations

from lightning_audiorl.engine.evaluator import EvalDecoding
from lightning_audiorl.engine.module import RLModule
from lightning_audiorl.engine.optim import Optim
from lightning_audiorl.engine.rollout import Sampler

__all__ = ["EvalDecoding", "Optim", "RLModule", "Sampler"]

"""Where the completions of a rollout come from: our own sampler, or vLLM in a process of its own."""

from __future__ import annotations

from lightning_audiorl.serving.base import Engine
from lightning_audiorl.serving.errors import EngineError, EngineLostError, MismatchError
from lightning_audiorl.serving.local import LocalEngine
from lightning_audiorl.serving.vllm_engine import VllmEngine

__all__ = ["Engine", "EngineError", "EngineLostError", "LocalEngine", "MismatchError", "VllmEngine"]

"""A tiny run's settings, for the planner's tests."""

from __future__ import annotations

from typing import Any

from lightning_audiorl.commands.plan import Settings
from lightning_audiorl.models import TextLMPolicy, TinyCausalLM
from lightning_audiorl.types import Decoding

SMALL = TinyCausalLM(width=32, layers=2, heads=2)


def settings(**changes: Any) -> Settings:
    """GRPO of a text model: 4 prompts in micro-batches of 2, 3 samples each, 8 tokens at most."""
    values: dict[str, Any] = {
        "make_policy": lambda: TextLMPolicy(SMALL),
        "autocast": None,
        "group_size": 3,
        "needs_rollout": True,
        "beta": 0.1,
        "batch_size": 4,
        "rollout_batch_size": 0,
        "micro_batch_size": 2,
        "max_tokens": 0,
        "chunk_size": None,
        "decoding": Decoding(max_new_tokens=8),
        "keep_context": False,
        "accelerator": "cpu",
    }
    return Settings(**values | changes)

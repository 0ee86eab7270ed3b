"""Hypotheses for tests of text, rewards and metrics."""

from __future__ import annotations

from typing import Any

from lightning_audiorl.types import Hypothesis, Segment, Utterance


def hypothesis(
    reference: str,
    text: str,
    lang: str = "en",
    duration_s: float = 6.0,
    num_tokens: int = 0,
    finished: bool = True,
    **row: Any,
) -> Hypothesis:
    """A hypothesis for a row with this reference."""
    utterance = Utterance(
        row.pop("id", "u"), (Segment("a.wav"),), reference, duration_s, lang=lang, **row
    )
    return Hypothesis(utterance, text, num_tokens, finished)

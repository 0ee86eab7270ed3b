"""Subset builders: small classes that say which rows of a manifest, with their hypotheses, form a subset."""

from __future__ import annotations

from lightning_audiorl.data.mix.selection.base import (
    Candidate,
    Choice,
    Chosen,
    SubsetBuilder,
    Verdict,
    choose,
    choose_many,
    fill,
    kind_of,
)
from lightning_audiorl.data.mix.selection.by_hypotheses import (
    Hallucinating,
    Hard,
    Learnable,
    RarelyRight,
)
from lightning_audiorl.data.mix.selection.by_metadata import (
    EmptyReference,
    Everything,
    Length,
    RandomControl,
)
from lightning_audiorl.data.mix.selection.by_text import KeywordHeavy, RepeatedPhrases

__all__ = [
    "Candidate",
    "Choice",
    "Chosen",
    "EmptyReference",
    "Everything",
    "Hallucinating",
    "Hard",
    "KeywordHeavy",
    "Learnable",
    "Length",
    "RandomControl",
    "RarelyRight",
    "RepeatedPhrases",
    "SubsetBuilder",
    "Verdict",
    "choose",
    "choose_many",
    "fill",
    "kind_of",
]

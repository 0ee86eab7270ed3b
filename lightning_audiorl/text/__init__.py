"""Text normalisation, error counts, hallucination rules and keyword counts. No torch."""

from lightning_audiorl.text.compare import (
    TextWatch,
    compared,
    compared_units,
    heard_words,
    without_sounds,
)
from lightning_audiorl.text.errors import (
    ErrorCounts,
    count_errors,
    count_errors_batch,
    symmetric_error_rate,
)
from lightning_audiorl.text.folding import has_words
from lightning_audiorl.text.hallucination import (
    DEFAULT_RULES,
    HallucinationRule,
    Loop,
    OtherScript,
    RunawayLength,
    TextForSilence,
    Truncation,
    fired_rules,
)
from lightning_audiorl.text.keywords import KeywordCounts, count_keywords
from lightning_audiorl.text.leaderboard import BasicNormaliser, LeaderboardNormaliser
from lightning_audiorl.text.normalise import (
    CharacterNormaliser,
    EnglishNormaliser,
    MixedNormaliser,
    Normaliser,
    PersianNormaliser,
    TurkishNormaliser,
    Unit,
    WordNormaliser,
    checked_normalisers,
    normaliser_for,
    split_units,
)
from lightning_audiorl.text.numbers import SpokenNumberNormaliser
from lightning_audiorl.text.seedtts import SeedTtsNormaliser

__all__ = [
    "DEFAULT_RULES",
    "BasicNormaliser",
    "CharacterNormaliser",
    "EnglishNormaliser",
    "ErrorCounts",
    "HallucinationRule",
    "KeywordCounts",
    "LeaderboardNormaliser",
    "Loop",
    "MixedNormaliser",
    "Normaliser",
    "OtherScript",
    "PersianNormaliser",
    "RunawayLength",
    "SeedTtsNormaliser",
    "SpokenNumberNormaliser",
    "TextForSilence",
    "TextWatch",
    "Truncation",
    "TurkishNormaliser",
    "Unit",
    "WordNormaliser",
    "checked_normalisers",
    "compared",
    "compared_units",
    "count_errors",
    "count_errors_batch",
    "count_keywords",
    "fired_rules",
    "has_words",
    "heard_words",
    "normaliser_for",
    "split_units",
    "symmetric_error_rate",
    "without_sounds",
]

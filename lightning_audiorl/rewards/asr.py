"""Rule-based rewards for speech recognition (arXiv:2509.18569): accuracy, hallucination, keywords, and relatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_audiorl.checks import check_number
from lightning_audiorl.rewards.base import Reward, TextReward
from lightning_audiorl.text.compare import compared, compared_units
from lightning_audiorl.text.errors import ErrorCounts, count_errors
from lightning_audiorl.text.hallucination import DEFAULT_RULES, HallucinationRule, fired_rules
from lightning_audiorl.text.keywords import KeywordCounts, count_keywords
from lightning_audiorl.text.normalise import Normaliser
from lightning_audiorl.types import Decoding, Hypothesis


def accuracy(counts: ErrorCounts, floor: float | None = None) -> float:
    """1 - error rate, no lower than ``floor``.

    Example:
        >>> accuracy(count_errors("one two", "one", "word"))
        0.5
        >>> accuracy(count_errors("one", "a b c", "word"), floor=-1.0)
        -1.0
    """
    # The rate has no upper bound: a loop may insert any number of units.
    value = 1.0 - counts.rate
    return value if floor is None else max(value, floor)


def keyword_score(counts: KeywordCounts, neutral: float = 1.0) -> float:
    """Mean of keyword precision and recall; a side without keywords gives 0, both sides without give ``neutral``.

    Example:
        >>> from lightning_audiorl.text import normaliser_for
        >>> english = normaliser_for("en")
        >>> keyword_score(count_keywords("call anna", "call anna anna", ["anna"], english))
        0.75
        >>> keyword_score(count_keywords("call", "call", ["anna"], english), neutral=0.5)
        0.5
    """
    if not counts.in_reference and not counts.in_hypothesis:
        return neutral

    # Undefined where one side has none: an invented keyword has no recall, a missed one no precision.
    precision = counts.precision or 0.0
    recall = counts.recall or 0.0
    return (precision + recall) / 2


def soft_overlong(num_tokens: int, cap: int, buffer_tokens: int) -> float:
    """0 up to ``cap - buffer_tokens``, then falling linearly to -1 at ``cap`` (DAPO, arXiv:2503.14476, eq. 13).

    Example:
        >>> [soft_overlong(num_tokens, cap=100, buffer_tokens=20) for num_tokens in (80, 90, 100)]
        [-0.0, -0.5, -1.0]
    """
    into_buffer = (num_tokens - (cap - buffer_tokens)) / buffer_tokens
    return -min(max(into_buffer, 0.0), 1.0)


class _ErrorReward(TextReward):
    """A reward that needs nothing but the edit counts, in the unit of the row's language."""

    def counts(self, hypothesis: Hypothesis) -> ErrorCounts:
        """Edits between the normalised texts of row and hypothesis."""
        normaliser = self.normaliser(hypothesis)
        reference, text = compared(hypothesis.row.text, hypothesis.text, normaliser)
        return count_errors(reference, text, normaliser.unit)


class Accuracy(_ErrorReward):
    """R1: 1 - WER, or 1 - CER for languages whose unit is the character (Chinese, Japanese, Korean, Thai, ...).

    Range: (-inf, 1], or [floor, 1]. Higher is better.
    Empty reference: 1 - number of inserted units (no lower than floor). Empty hypothesis: 0. Both empty: 1.

    Args:
        weight: factor in the mix.
        name: log key.
        floor: lower clip. Without one, a single runaway hypothesis sets the spread of its whole group.
        normalisers: by language code, in place of the built-in table.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def hypothesis(reference, text):
        ...     return Hypothesis(Utterance("row", (), reference, 1.0), text)
        >>> reward = Accuracy(floor=-1.0)
        >>> reward.range
        (-1.0, 1.0)
        >>> reward.score([hypothesis("one two", "one two"), hypothesis("one two", "one")])
        [1.0, 0.5]

        Empty reference, empty hypothesis, both empty:

        >>> reward.score([hypothesis("", "one two"), hypothesis("one two", ""), hypothesis("", "")])
        [-1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "accuracy",
        floor: float | None = None,
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name, normalisers)
        if floor is not None:
            check_number("Accuracy.floor", floor, below=1)
        self.floor = floor
        self.range = (-math.inf if floor is None else floor, 1.0)

    def score_one(self, hypothesis: Hypothesis) -> float:
        return accuracy(self.counts(hypothesis), self.floor)


class ExpAccuracy(_ErrorReward):
    """exp(-scale * error rate): the bounded form of Accuracy (arXiv:2604.18105).

    Range: (0, 1]. Higher is better.
    Empty reference: exp(-scale * number of inserted units). Empty hypothesis: exp(-scale). Both empty: 1.

    Args:
        weight: factor in the mix.
        name: log key.
        scale: how steeply errors cost.
        normalisers: by language code, in place of the built-in table.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def hypothesis(reference, text):
        ...     return Hypothesis(Utterance("row", (), reference, 1.0), text)
        >>> reward = ExpAccuracy(scale=1.0)
        >>> reward.range
        (0.0, 1.0)
        >>> reward.score([hypothesis("one two", "one two"), hypothesis("one two", "one")])
        [1.0, 0.6065306597126334]

        Empty reference, empty hypothesis, both empty:

        >>> reward.score([hypothesis("", "one two"), hypothesis("one two", ""), hypothesis("", "")])
        [0.1353352832366127, 0.36787944117144233, 1.0]
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "exp_accuracy",
        scale: float = 2.0,
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name, normalisers)
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"ExpAccuracy.scale: expected a positive number, got {scale}")
        self.scale = scale

    def score_one(self, hypothesis: Hypothesis) -> float:
        return math.exp(-self.scale * self.counts(hypothesis).rate)


class ExactMatch(TextReward):
    """1 when the normalised texts are equal, else 0.

    Range: {0, 1}. Higher is better. Empty reference: 0. Empty hypothesis: 0. Both empty: 1.

    Args:
        weight: factor in the mix.
        name: log key.
        normalisers: by language code, in place of the built-in table.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def hypothesis(reference, text):
        ...     return Hypothesis(Utterance("row", (), reference, 1.0), text)
        >>> reward = ExactMatch()
        >>> reward.range
        (0.0, 1.0)
        >>> reward.score([hypothesis("one two", "One, two!"), hypothesis("one two", "one")])
        [1.0, 0.0]

        Empty reference, empty hypothesis, both empty:

        >>> reward.score([hypothesis("", "one two"), hypothesis("one two", ""), hypothesis("", "")])
        [0.0, 0.0, 1.0]
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "exact_match",
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name, normalisers)

    def score_one(self, hypothesis: Hypothesis) -> float:
        normaliser = self.normaliser(hypothesis)
        reference, text = compared(hypothesis.row.text, hypothesis.text, normaliser)
        return float(text == reference)


class EditCount(_ErrorReward):
    """Minus the number of edits (words, or characters where those are the unit): long utterances weigh more.

    Range: (-inf, 0]. Higher is better.
    Empty reference: minus the number of inserted units. Empty hypothesis: minus the reference length. Both empty: 0.

    Args:
        weight: factor in the mix.
        name: log key.
        normalisers: by language code, in place of the built-in table.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def hypothesis(reference, text):
        ...     return Hypothesis(Utterance("row", (), reference, 1.0), text)
        >>> reward = EditCount()
        >>> reward.range
        (-inf, 0.0)
        >>> reward.score([hypothesis("one two", "one two"), hypothesis("one two", "one too three")])
        [-0.0, -2.0]

        Empty reference, empty hypothesis, both empty:

        >>> reward.score([hypothesis("", "one two"), hypothesis("one two", ""), hypothesis("", "")])
        [-2.0, -2.0, -0.0]
    """

    range = (-math.inf, 0.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "edit_count",
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name, normalisers)

    def score_one(self, hypothesis: Hypothesis) -> float:
        return -float(self.counts(hypothesis).errors)


class LengthError(_ErrorReward):
    """Minus how far the hypothesis is from the reference's length, relative to it: against drifting to short output,
    which 1 - WER alone allows on hard audio.

    Range: [-1, 0]. Higher is better.
    Empty reference: 0 for an empty hypothesis, else -1. Empty hypothesis: -1. Both empty: 0.

    Args:
        weight: factor in the mix.
        name: log key.
        normalisers: by language code, in place of the built-in table.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def hypothesis(reference, text):
        ...     return Hypothesis(Utterance("row", (), reference, 1.0), text)
        >>> reward = LengthError()
        >>> reward.range
        (-1.0, 0.0)
        >>> reward.score([hypothesis("one two", "won too"), hypothesis("one two", "one")])
        [-0.0, -0.5]

        Empty reference, empty hypothesis, both empty:

        >>> reward.score([hypothesis("", "one two"), hypothesis("one two", ""), hypothesis("", "")])
        [-1.0, -1.0, -0.0]
    """

    range = (-1.0, 0.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "length_error",
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name, normalisers)

    def score_one(self, hypothesis: Hypothesis) -> float:
        counts = self.counts(hypothesis)
        # An empty reference counts as one unit, so that any text for it is wrong altogether.
        off = abs(counts.hypothesis_length - counts.reference_length)
        return -min(1.0, off / max(1, counts.reference_length))


class Hallucination(TextReward):
    """R2: -1 when any rule finds repeated, invented, cut or translated content, else 0.

    Range: {-1, 0}. Higher is better. With the default rules:
    Empty reference: -1 (text for silence). Empty hypothesis: -1 when the reference has two units or more
    (truncation), else 0. Both empty: 0.

    Args:
        weight: factor in the mix.
        name: log key.
        rules: the rules to ask; None takes `text.DEFAULT_RULES`.
        normalisers: by language code, in place of the built-in table.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def hypothesis(reference, text):
        ...     return Hypothesis(Utterance("row", (), reference, 1.0), text)
        >>> reward = Hallucination()
        >>> reward.range
        (-1.0, 0.0)
        >>> reward.score([hypothesis("one two", "one two"), hypothesis("one two", "one two two two two two two")])
        [0.0, -1.0]

        Empty reference, empty hypothesis, both empty:

        >>> reward.score([hypothesis("", "one two"), hypothesis("one two", ""), hypothesis("", "")])
        [-1.0, -1.0, 0.0]
    """

    range = (-1.0, 0.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "hallucination",
        rules: list[HallucinationRule] | None = None,
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name, normalisers)

        # Without a rule every sample would get 0: a reward that never tells samples apart.
        if rules is not None and not rules:
            raise ValueError(
                "Hallucination.rules: expected at least one rule, or None for the defaults; got []"
            )
        self.rules: Sequence[HallucinationRule] = DEFAULT_RULES if rules is None else tuple(rules)

    def score_one(self, hypothesis: Hypothesis) -> float:
        normaliser = self.normaliser(hypothesis)
        reference, units = compared_units(hypothesis.row.text, hypothesis.text, normaliser)
        return -1.0 if fired_rules(reference, units, self.rules, hypothesis.row.lang) else 0.0


class Keyword(TextReward):
    """R3: mean of keyword precision and recall over the user's list and the row's own, counted as multisets.

    Range: [0, 1]. Higher is better.
    No keyword in either text: ``neutral``. Keywords in one text only: 0, so an invented keyword is punished.
    Hence an empty reference: neutral without keywords in the hypothesis, else 0. Empty hypothesis: neutral without
    keywords in the reference, else 0. Both empty: neutral.

    Args:
        weight: factor in the mix.
        name: log key.
        keywords: for every row, beside ``row.keywords``; may have several words each.
        neutral: the value where neither text has a keyword; above 0, else inventing keywords would cost nothing.
        normalisers: by language code, in place of the built-in table.
        hotwords: also look for the words that the row's prompt names, so that one that is written because it is listed,
            and was not said, costs precision.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def hypothesis(reference, text):
        ...     return Hypothesis(Utterance("row", (), reference, 1.0), text)
        >>> reward = Keyword(keywords=["anna"], neutral=0.5)
        >>> reward.range
        (0.0, 1.0)
        >>> reward.score([hypothesis("anna", "Anna"), hypothesis("anna", "hannah"), hypothesis("one", "one")])
        [1.0, 0.0, 0.5]

        Empty reference, empty hypothesis, both empty:

        >>> reward.score([hypothesis("", "anna"), hypothesis("anna", ""), hypothesis("", "")])
        [0.0, 0.0, 0.5]
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "keyword",
        keywords: list[str] | None = None,
        neutral: float = 1.0,
        normalisers: dict[str, Normaliser] | None = None,
        hotwords: bool = False,
    ) -> None:
        super().__init__(weight, name, normalisers)
        if not 0 < neutral <= 1:
            raise ValueError(f"Keyword.neutral: expected 0 < neutral <= 1, got {neutral}")
        self.keywords = tuple(keywords or ())
        self.neutral = neutral
        self.hotwords = hotwords

    def score_one(self, hypothesis: Hypothesis) -> float:
        row = hypothesis.row
        vocabulary = (*self.keywords, *row.keywords)
        if self.hotwords:
            vocabulary += row.hotwords
        counts = count_keywords(row.text, hypothesis.text, vocabulary, self.normaliser(hypothesis))
        return keyword_score(counts, self.neutral)


class SoftOverlong(Reward):
    """Punishes completions that come near their length cap (DAPO, arXiv:2503.14476).

    Range: [-1, 0]. Higher is better. Texts are not read: an empty reference, hypothesis or both change nothing.

    Args:
        decoding: the decoding settings of the rollout, which say the cap of each row.
        weight: factor in the mix.
        name: log key.
        buffer_share: the last part of the cap over which the reward falls from 0 to -1, in (0, 1].

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> reward = SoftOverlong(Decoding(max_new_tokens=100, min_cap=100), buffer_share=0.2)
        >>> row = Utterance("row", (), "one two", 1.0)
        >>> reward.score([Hypothesis(row, "one two", num_tokens=num_tokens) for num_tokens in (80, 90, 100)])
        [-0.0, -0.5, -1.0]
    """

    range = (-1.0, 0.0)

    def __init__(
        self,
        decoding: Decoding,
        weight: float = 1.0,
        name: str = "soft_overlong",
        buffer_share: float = 0.25,
    ) -> None:
        super().__init__(weight, name)
        if not 0 < buffer_share <= 1:
            raise ValueError(
                f"SoftOverlong.buffer_share: expected a number in (0, 1], got {buffer_share}"
            )
        self.decoding = decoding
        self.buffer_share = buffer_share

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        values = []
        for hypothesis in hypotheses:
            cap = self.decoding.cap(hypothesis.row.duration_s)
            # At least one token: a share of a tiny cap may round to none.
            buffer_tokens = max(1, round(cap * self.buffer_share))
            values.append(soft_overlong(hypothesis.num_tokens, cap, buffer_tokens))
        return values

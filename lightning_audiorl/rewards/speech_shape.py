"""Rewards for speech synthesis without a judge: a sample's length, and how the samples of a group differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import mean, median

from rapidfuzz.distance import Levenshtein

from lightning_audiorl.checks import check_number
from lightning_audiorl.judges.base import speech_of
from lightning_audiorl.judges.pitch import pitch_of
from lightning_audiorl.judges.silence import says_nothing
from lightning_audiorl.rewards.base import Reward
from lightning_audiorl.text.compare import without_sounds
from lightning_audiorl.text.normalise import Normaliser, checked_normalisers, normaliser_for
from lightning_audiorl.types import Hypothesis, Speech


def by_group(
    hypotheses: Sequence[Hypothesis],
    score: Callable[[Sequence[Speech]], list[float]],
    name: str,
) -> list[float]:
    """``score`` of each group of samples: neighbours of the same row."""
    values: list[float] = []
    for _, group in groupby(hypotheses, key=lambda hypothesis: hypothesis.row.id):
        values += score([speech_of(hypothesis, name) for hypothesis in group])
    return values


def codes_said(speech: Speech) -> list[int]:
    """The speech tokens of a sample; none where it says nothing, for silence is not speech of any length."""
    return [] if says_nothing(speech) else speech.codes.tolist()


def duration_consistency(lengths: Sequence[int], floor: float = -1.0) -> list[float]:
    """-|length - median| / median of a group's lengths in tokens, no lower than ``floor``.

    Samples without a token are left out of the median and get ``floor``.

    Example:
        >>> duration_consistency([10, 8, 16, 0])
        [0.0, -0.2, -0.6, -1.0]
    """
    # Silence must not pull the median down: a group that mostly says nothing would reward it.
    spoken = [length for length in lengths if length]

    # Where nothing is spoken all get the floor: any number above 0 serves as the median.
    middle = median(spoken) if spoken else 1.0

    values = []
    for length in lengths:
        value = -abs(length - middle) / middle
        values.append(max(floor, value) if length else floor)
    return values


class DurationConsistency(Reward):
    """R2: how far a sample's length is from the median of its group, in speech tokens (arXiv:2509.18569).

    Keeps speech from slowing down or rushing. Range: [floor, 0]. Higher is better. A sample that says nothing: the
    floor. The text plays no part. A sample alone in its group is its own median: 0.

    Args:
        weight: factor in the mix.
        name: log key.
        floor: lower clip; at most -1, so that nothing scores below a sample that says nothing.

    Example:
        >>> import torch
        >>> from lightning_audiorl.types import Utterance
        >>> def sample(text, num_codes):
        ...     speech = Speech(torch.randn(320 * num_codes), 8000, torch.zeros(num_codes))
        ...     return Hypothesis(Utterance(text, (), text, 1.0), "", speech=speech)
        >>> reward = DurationConsistency()
        >>> reward.score([sample("one", 10), sample("one", 8), sample("one", 16), sample("one", 0)])
        [0.0, -0.2, -0.6, -1.0]
        >>> reward.score([sample("", 10), sample("", 0)])
        [0.0, -1.0]
    """

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "duration_consistency",
        floor: float = -1.0,
    ) -> None:
        super().__init__(weight, name)
        if not -math.inf < floor <= -1:
            raise ValueError(
                f"DurationConsistency.floor: expected a finite number at most -1, got {floor}"
            )
        self.floor = floor
        self.range = (floor, 0.0)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return by_group(
            hypotheses,
            lambda group: duration_consistency(
                [len(codes_said(speech)) for speech in group], self.floor
            ),
            self.name,
        )


def token_distances(group: Sequence[Sequence[int]]) -> list[float]:
    """Each sequence's mean distance to the others: edits over the longer one's length, 0 to 1.

    Empty sequences get 0 and are no one's other: silence is not variety. One without others gets 0.

    Example:
        >>> token_distances([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9, 4], []])
        [0.125, 0.125, 0.25, 0.0]
    """

    def distance(i: int) -> float:
        # Silence does not count as another sample: it would make every sample of its group look diverse.
        others = [other for j, other in enumerate(group) if j != i and other]
        if not group[i] or not others:
            return 0.0
        return mean(Levenshtein.normalized_distance(group[i], other) for other in others)

    return [distance(i) for i in range(len(group))]


class Diversity(Reward):
    """R3: how much a sample differs from its group, and how lively its melody is (arXiv:2509.18569).

    distance: mean edit distance of its speech tokens to those of the others, over the longer length; range [0, 1].
    melody: standard deviation of F0 over its voiced frames in semitones, over ``full_melody_semitones``; range [0, 1];
    0 where fewer than `MIN_VOICED_SHARE` of its frames are voiced, for that is no pitch.
    The reward is ``distance_weight * distance + melody_weight * melody``. Range: [0, distance_weight + melody_weight].
    Higher is better. A sample that says nothing: 0. The text plays no part. A sample alone in its group has distance 0.
    Where the waveform holds samples that are not finite, its melody cannot be measured: NaN, which takes it out of the
    step.

    Args:
        weight: factor in the mix; small, since noise is diverse too.
        name: log key.
        distance_weight: of the token distance.
        melody_weight: of the melody; 0 leaves F0 unmeasured.
        full_melody_semitones: deviation that counts as 1; read speech has 2 to 4.

    Example:
        >>> import torch
        >>> from lightning_audiorl.types import Utterance
        >>> def sample(codes):
        ...     speech = Speech(torch.randn(320 * len(codes)), 8000, torch.tensor(codes, dtype=torch.int64))
        ...     return Hypothesis(Utterance("row", (), "one", 1.0), "", speech=speech)
        >>> reward = Diversity(distance_weight=1.0, melody_weight=0.5)
        >>> reward.range
        (0.0, 1.5)
        >>> reward.score([sample([1, 2, 3, 4]), sample([1, 2, 3, 4]), sample([1, 2, 9, 4]), sample([])])
        [0.125, 0.125, 0.25, 0.0]
    """

    def __init__(
        self,
        weight: float = 0.1,
        name: str = "diversity",
        distance_weight: float = 0.5,
        melody_weight: float = 0.5,
        full_melody_semitones: float = 6.0,
    ) -> None:
        super().__init__(weight, name)
        check_number("Diversity.distance_weight", distance_weight, at_least=0)
        check_number("Diversity.melody_weight", melody_weight, at_least=0)
        check_number("Diversity.full_melody_semitones", full_melody_semitones, above=0)
        if distance_weight + melody_weight == 0:
            raise ValueError(
                "Diversity: want weights >= 0, one of them above 0; got distance_weight=0 and melody_weight=0"
            )

        self.distance_weight = distance_weight
        self.melody_weight = melody_weight
        self.full_melody_semitones = full_melody_semitones
        self.range = (0.0, distance_weight + melody_weight)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return by_group(hypotheses, self._group, self.name)

    def _group(self, group: Sequence[Speech]) -> list[float]:
        distances = token_distances([codes_said(speech) for speech in group])

        # Without a weight F0 is not even measured: 0 times a melody that cannot be measured is NaN.
        values = []
        for distance, speech in zip(distances, group, strict=True):
            melody = 0.0
            if self.melody_weight:
                melody = self.melody_weight * self._melody(speech)
            values.append(self.distance_weight * distance + melody)
        return values

    def _melody(self, speech: Speech) -> float:
        """Spread of F0 over ``full_melody_semitones``, at most 1; 0 without a pitch, NaN for samples not finite."""
        if not bool(speech.waveform.isfinite().all()):
            return math.nan
        pitch = pitch_of(speech.waveform, speech.sample_rate_hz)
        return min(pitch.spread_semitones / self.full_melody_semitones, 1.0)


class SpeechBounds(Reward):
    """Hard bounds: 0 for a sample that ended by itself and has a plausible length, else -1.

    Range: {-1, 0}. Higher is better. A sample that says nothing: -1. Empty reference: only the stop and the
    expected length count.

    Args:
        weight: factor in the mix.
        name: log key.
        tokens_per_character: fewest and most speech tokens per character of the normalised text, spaces left out.
        tokens_per_second: fewest and most speech tokens per second of the row's ``duration_s``, the expected length;
            a row without one (0) is not held to them.
        normalisers: by language code, in place of the built-in table.

    Example:
        >>> import torch
        >>> from lightning_audiorl.types import Utterance
        >>> def sample(text, num_codes, finished=True):
        ...     speech = Speech(torch.randn(320 * num_codes), 8000, torch.zeros(num_codes))
        ...     return Hypothesis(Utterance("row", (), text, 1.0), "", finished=finished, speech=speech)
        >>> reward = SpeechBounds(tokens_per_character=(2, 6))
        >>> reward.score([sample("one", 12), sample("one", 30), sample("one", 12, finished=False), sample("one", 0)])
        [0.0, -1.0, -1.0, -1.0]
        >>> reward.score([sample("", 30), sample("", 0)])
        [0.0, -1.0]
    """

    range = (-1.0, 0.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "speech_bounds",
        tokens_per_character: tuple[float, float] | None = None,
        tokens_per_second: tuple[float, float] | None = None,
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name)
        spans = {
            "tokens_per_character": tokens_per_character,
            "tokens_per_second": tokens_per_second,
        }
        for key, span in spans.items():
            if span is not None:
                check_number(f"SpeechBounds.{key}", span[0], at_least=0)
            if span is not None and not 0 <= span[0] <= span[1]:
                raise ValueError(
                    f"SpeechBounds.{key}: expected (low, high) with 0 <= low <= high, got {span}"
                )

        self.tokens_per_character = tokens_per_character
        self.tokens_per_second = tokens_per_second
        self.normalisers = checked_normalisers(normalisers)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return [0.0 if self._within(hypothesis) else -1.0 for hypothesis in hypotheses]

    def _within(self, hypothesis: Hypothesis) -> bool:
        """Whether the sample ended by itself, said something, and is about as long as its text."""
        row = hypothesis.row
        num_codes = len(codes_said(speech_of(hypothesis, self.name)))
        normaliser = normaliser_for(row.lang, self.normalisers)
        text = normaliser.normalise(without_sounds(row.reference))
        num_characters = len(text.replace(" ", ""))

        # Of a text without characters only the expected length counts, and of a row without one only the text.
        spans: list[tuple[tuple[float, float] | None, float]] = []
        if row.duration_s > 0:
            spans.append((self.tokens_per_second, row.duration_s))
        if num_characters:
            spans.append((self.tokens_per_character, num_characters))

        for span, size in spans:
            if span is not None and not span[0] * size <= num_codes <= span[1] * size:
                return False
        return hypothesis.finished and num_codes > 0

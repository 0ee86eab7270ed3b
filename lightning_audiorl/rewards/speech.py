"""Rewards for speech synthesis that ask a judge: what is understood, whose voice it is, how good it sounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from lightning_audiorl.checks import check_number
from lightning_audiorl.judges.base import AsrJudge, JudgeError, SpeakerEncoder
from lightning_audiorl.judges.models.quality import QualityPredictor
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.judges.silence import says_nothing
from lightning_audiorl.rewards.base import JudgedReward
from lightning_audiorl.text.compare import TextWatch, heard_words, without_sounds
from lightning_audiorl.text.errors import ErrorCounts, count_errors
from lightning_audiorl.text.normalise import Normaliser, checked_normalisers, normaliser_for
from lightning_audiorl.types import Hypothesis, Utterance

Form = Literal["linear", "tanh", "exp"]
ErrorUnit = Literal["char", "language"]
#: Steepness of each form where none is given.
_SCALE: dict[str, float] = {"linear": 1.0, "tanh": 3.0, "exp": 2.5}


def bounded_accuracy(error_rate: float, form: Form, scale: float) -> float:
    """An error rate as a reward: 1 without errors.

    linear: 1 - scale * rate, no bound below. tanh: 1 - tanh(scale * rate). exp: exp(-scale * rate).

    Example:
        >>> [round(bounded_accuracy(0.5, form, 2.0), 3) for form in ("linear", "tanh", "exp")]
        [0.0, 0.238, 0.368]
    """
    if form == "linear":
        return 1.0 - scale * error_rate
    if form == "tanh":
        return 1.0 - math.tanh(scale * error_rate)
    return math.exp(-scale * error_rate)


def spoken_errors(
    row: Utterance,
    transcript: str,
    unit: ErrorUnit,
    normaliser: Normaliser,
) -> ErrorCounts:
    """Edits between what was to be heard and a transcript of the speech.

    That is the row's ``spoken_text``, or else its text; tags of sounds, such as ``[laughter]``, are no words of it.

    Args:
        row: whose text was to be spoken.
        transcript: not normalised.
        unit: "char" counts characters, spaces left out, since where a word ends cannot be heard; "language" counts
            words, or characters where the language has no spaces.
        normaliser: of the row's language.

    Example:
        >>> row = Utterance("row", (), "one two", 1.0)
        >>> spoken_errors(row, "onetwo", "char", normaliser_for("en")).errors
        0
        >>> spoken_errors(row, "onetwo", "language", normaliser_for("en")).errors
        2
    """
    reference = normaliser.normalise(without_sounds(row.reference))
    hypothesis = normaliser.normalise(heard_words(row.reference, transcript))
    # Spaces are left out only of characters: units of a language without spaces are characters anyway.
    if unit == "language":
        return count_errors(reference, hypothesis, normaliser.unit)
    return count_errors(reference.replace(" ", ""), hypothesis.replace(" ", ""), "char")


def judged(values: list[float], judge: nn.Module | str) -> list[float]:
    """``values`` as they are, NaN where the judge failed.

    Raises:
        JudgeError: where it failed on all of them: it is not the samples that are at fault.

    Example:
        >>> judged([0.5, math.nan], "asr")
        [0.5, nan]
    """
    # Some are judged: a failure is that of its sample, and stays NaN.
    if not values or not all(math.isnan(value) for value in values):
        return values

    who = f"'{judge}'"
    if not isinstance(judge, str):
        who = f"'{judge.name}' ({type(judge).__name__})"
    raise JudgeError(
        f"judge {who} returned nothing for any sample; see its warnings, and try it by itself on a recording"
    )


class SpeechAccuracy(JudgedReward):
    """R1: how well an ASR judge understands the waveform (arXiv:2509.18569).

    Range: [floor, 1], floor 0 for tanh and exp. Higher is better. A sample that says nothing (empty, or silent
    throughout), or an empty transcript, of a text: the floor, the worst value of all. Empty reference: the rate is the
    number of inserted units; 1 for an empty transcript. Where the judge failed: NaN, which takes the sample out of the
    step.

    Args:
        judge: listens, or its name in the algorithm's ``judges``; keep another one for evaluation.
        form: "linear" (1 - rate), "tanh" (1 - tanh(3 rate)) or "exp" (exp(-2.5 rate)).
        weight: factor in the mix.
        name: log key.
        unit: "char" (CER, spaces left out) or "language" (WER, or CER for Chinese, Japanese, Korean, ...).
        scale: steepness of the form; None takes the one above.
        floor: lower clip of the linear form; a babbling sample may have a rate far above 1.
        normalisers: by language code, in place of the built-in table.

    Example:
        By a judge that always hears "one two". An empty sample gets the floor, unless there was nothing to say:

        >>> from lightning_audiorl.types import Speech
        >>> class Parrot(AsrJudge):
        ...     def listen(self, waveforms, rows):
        ...         return ["one two"] * len(waveforms)
        >>> def sample(text, num_codes=25):
        ...     speech = Speech(torch.randn(320 * num_codes), 8000, torch.zeros(num_codes))
        ...     return Hypothesis(Utterance("row", (), text, 1.0), "", speech=speech)
        >>> reward = SpeechAccuracy(Parrot("parrot", 8000))
        >>> reward.range
        (0.0, 1.0)
        >>> reward.score([sample("one two"), sample("one too"), sample("one two", num_codes=0)])
        [1.0, 0.8333333333333334, 0.0]
        >>> reward.score([sample(""), sample("", num_codes=0)])
        [0.0, 1.0]
    """

    def __init__(
        self,
        judge: AsrJudge | str,
        form: Form = "linear",
        weight: float = 1.0,
        name: str = "speech_accuracy",
        unit: ErrorUnit = "char",
        scale: float | None = None,
        floor: float = 0.0,
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name)
        if form not in _SCALE or unit not in ("char", "language"):
            raise ValueError(
                f"SpeechAccuracy: form must be one of {', '.join(_SCALE)} and unit 'char' or 'language'; got {form!r} "
                f"and {unit!r}"
            )

        scale = _SCALE[form] if scale is None else scale
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"SpeechAccuracy.scale: expected a positive number or None, got {scale}"
            )

        # The other forms have a bound of their own, and never fall below 0.
        check_number("SpeechAccuracy.floor", floor)
        if not floor < 1 or (form != "linear" and floor != 0):
            raise ValueError(
                f"SpeechAccuracy.floor: below 1 for the linear form, 0 for the others; got {floor}"
            )

        self.judge = judge
        self.form = form
        self.unit = unit
        self.scale = scale
        self.floor = floor
        self.normalisers: Mapping[str, Normaliser] = checked_normalisers(normalisers)
        self._watch = TextWatch(f"reward '{name}'")
        self.range = (floor, 1.0)

    def seat_judges(self, panel: JudgePanel) -> None:
        self.judge = panel.seat(self.judge, AsrJudge)

    def score_with(self, hypotheses: Sequence[Hypothesis], panel: JudgePanel) -> list[float]:
        transcripts = panel.ask(self.judge, hypotheses)
        rows = [hypothesis.row for hypothesis in hypotheses]
        values = [
            self._value(row, transcript) for row, transcript in zip(rows, transcripts, strict=True)
        ]
        return judged(values, self.judge)

    def _value(self, row: Utterance, transcript: str | None) -> float:
        """The value of one transcript; NaN where the judge gave none."""
        if transcript is None:
            return math.nan

        normaliser = normaliser_for(row.lang, self.normalisers)
        self._watch.look(row.id, row.lang, row.reference, transcript, normaliser, self.unit)

        # An empty transcript is the worst of all, not merely as many deletions as characters.
        counts = spoken_errors(row, transcript, self.unit, normaliser)
        if counts.reference_length and not counts.hypothesis_length:
            return self.floor
        return max(self.floor, bounded_accuracy(counts.rate, self.form, self.scale))


class SpeakerSimilarity(JudgedReward):
    """Cosine between the voice of the sample and that of its speaker prompt.

    Range: [-1, 1]. Higher is better. A sample that says nothing: -1. Where the encoder failed: NaN. The text
    plays no part.

    Args:
        encoder: tells voices apart, or its name in the algorithm's ``judges``; keep another one for evaluation.
        weight: factor in the mix.
        name: log key.

    Example:
        >>> from lightning_audiorl.types import Speech
        >>> class Angles(SpeakerEncoder):
        ...     def embed(self, waveform, num_samples, sample_rate_hz):
        ...         return torch.stack([waveform[:, 0].cos(), waveform[:, 0].sin()], -1)
        >>> prompt = torch.tensor([0.0, 0.5]).repeat(400)
        >>> def sample(angle, num_codes=25):
        ...     waveform = torch.tensor([angle, 0.7]).repeat(160 * num_codes)
        ...     speech = Speech(waveform, 8000, torch.zeros(num_codes), prompt, prompt_sample_rate_hz=8000)
        ...     return Hypothesis(Utterance("row", (), "one", 1.0), "", speech=speech)
        >>> reward = SpeakerSimilarity(Angles("angles", 8000))
        >>> reward.range
        (-1.0, 1.0)
        >>> [round(value, 3) for value in reward.score([sample(0.0), sample(0.5), sample(0.0, num_codes=0)])]
        [1.0, 0.878, -1.0]
    """

    range = (-1.0, 1.0)

    def __init__(
        self,
        encoder: SpeakerEncoder | str,
        weight: float = 1.0,
        name: str = "speaker_similarity",
    ) -> None:
        super().__init__(weight, name)
        self.encoder = encoder

    def seat_judges(self, panel: JudgePanel) -> None:
        self.encoder = panel.seat(self.encoder, SpeakerEncoder)

    def score_with(self, hypotheses: Sequence[Hypothesis], panel: JudgePanel) -> list[float]:
        """One cosine per sample.

        Raises:
            ValueError: for a sample without a speaker prompt; the mix then takes it out of the step.
        """
        voices = panel.ask(self.encoder, hypotheses)

        values = []
        for hypothesis, (voice, prompt) in zip(hypotheses, voices, strict=True):
            speech = hypothesis.speech
            assert speech is not None
            if speech.prompt is None or not speech.prompt.numel():
                raise ValueError(
                    f"'{self.name}': row '{hypothesis.row.id}' has no speaker prompt to compare with; give its row "
                    "segments, or take this reward out of the mix"
                )

            # Of two empty embeddings no cosine could be taken; silence has no voice.
            if says_nothing(speech):
                values.append(-1.0)
            elif voice is None or prompt is None:
                values.append(math.nan)
            else:
                # Rounding may take the cosine of two equal voices beyond 1.
                cosine = torch.dot(voice, prompt)
                values.append(float(cosine.clamp(-1.0, 1.0)))
        return judged(values, self.encoder)


class PredictedQuality(JudgedReward):
    """What a named predictor says of how the sample sounds; no more than that predictor's opinion.

    Range: [0, 1], the predictor's own range scaled and clipped. Higher is better. A sample that says nothing: 0. Where
    the predictor failed: NaN. The text plays no part.

    Args:
        predictor: such as `judges.SquimQuality`, with local weights, or its name in the algorithm's ``judges``.
        weight: factor in the mix.
        name: log key.

    Example:
        >>> from lightning_audiorl.types import Speech
        >>> class Level(QualityPredictor):
        ...     range = (0.0, 5.0)
        ...
        ...     def predict(self, waveform):
        ...         return 5 * float(waveform.abs().max())
        >>> def sample(level, num_codes=25):
        ...     speech = Speech(torch.tensor([level, -level]).repeat(160 * num_codes), 8000, torch.zeros(num_codes))
        ...     return Hypothesis(Utterance("row", (), "one", 1.0), "", speech=speech)
        >>> PredictedQuality(Level("level", 8000)).score([sample(0.25), sample(9.0), sample(0.25, num_codes=0)])
        [0.25, 1.0, 0.0]
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        predictor: QualityPredictor | str,
        weight: float = 1.0,
        name: str = "predicted_quality",
    ) -> None:
        super().__init__(weight, name)
        self.predictor = predictor

    def seat_judges(self, panel: JudgePanel) -> None:
        self.predictor = panel.seat(self.predictor, QualityPredictor)

    def score_with(self, hypotheses: Sequence[Hypothesis], panel: JudgePanel) -> list[float]:
        # Its range stands on the predictor itself, which may have been given by name.
        predictor: QualityPredictor = panel.seat(self.predictor, QualityPredictor)
        low, high = predictor.range

        values = []
        for quality in panel.ask(predictor, hypotheses):
            if quality is None or not math.isfinite(quality):
                values.append(math.nan)
            else:
                scaled = (quality - low) / (high - low)
                values.append(min(max(scaled, 0.0), 1.0))
        return judged(values, predictor)

"""What is measured of synthesised speech, by the judges that reward it and by judges that do not."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import astuple, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_audiorl.judges.base import AsrJudge, Judge, SpeakerEncoder, speech_of
from lightning_audiorl.judges.pitch import f0_spread_semitones, voiced_f0_hz
from lightning_audiorl.judges.sharing import same_weights, shared
from lightning_audiorl.metrics.evaluation import SetEvaluation
from lightning_audiorl.metrics.functional import align
from lightning_audiorl.metrics.specs import SYNTHESIS, RegistersSpecs
from lightning_audiorl.text.normalise import Normaliser, normaliser_for
from lightning_audiorl.types import Hypothesis, Utterance

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listeners:
    """Who listens in an evaluation; a judge that is None leaves its figures NaN."""

    judge: AsrJudge | None = None
    held_out_judge: AsrJudge | None = None
    encoder: SpeakerEncoder | None = None
    held_out_encoder: SpeakerEncoder | None = None

    def present(self) -> list[Judge]:
        """Those that are not None."""
        four = (self.judge, self.held_out_judge, self.encoder, self.held_out_encoder)
        return [listener for listener in four if listener is not None]


@dataclass
class SpeechCounts:
    """Sums over the samples of a set; the state of `SpeechMetrics`, one number each."""

    samples: float = 0.0
    errors: float = 0.0
    characters: float = 0.0
    held_out_errors: float = 0.0
    held_out_characters: float = 0.0
    similarity: float = 0.0
    similarities: float = 0.0
    held_out_similarity: float = 0.0
    held_out_similarities: float = 0.0
    failures: float = 0.0
    tokens: float = 0.0
    units: float = 0.0
    speech_s: float = 0.0
    expected_s: float = 0.0
    missing_stops: float = 0.0
    empties: float = 0.0
    f0_hz: float = 0.0
    f0_spread: float = 0.0
    voiced: float = 0.0
    compute_s: float = 0.0


def character_errors(row: Utterance, transcript: str, normaliser: Normaliser) -> tuple[int, int]:
    """(edits, reference characters) by jiwer's alignment of the normalised texts, spaces left out."""
    reference, heard = (normaliser.normalise(text).replace(" ", "") for text in (row.text, transcript))
    if not reference:
        return len(heard), 0
    alignment = align(reference, heard, "char")
    return alignment.substitutions + alignment.deletions + alignment.insertions, len(reference)


def speech_counts(
    hypotheses: Sequence[Hypothesis], listeners: Listeners, normalisers: Mapping[str, Normaliser]
) -> SpeechCounts:
    """What one batch of samples adds up to.

    A sample that a judge failed on is left out of that judge's figures and counted; one with samples that are not
    finite has no pitch. A sample without a prompt is left
    out of the similarities. A sample that says nothing has as many errors as characters, and a similarity of -1.
    """
    counts = SpeechCounts(samples=len(hypotheses))
    for hypothesis in hypotheses:
        row, speech = hypothesis.row, speech_of(hypothesis, "SpeechMetrics")
        counts.tokens += speech.codes.shape[0]
        counts.units += len(normaliser_for(row.lang, normalisers).units(row.text))
        counts.speech_s += speech.duration_s
        counts.expected_s += row.duration_s
        counts.missing_stops += not hypothesis.finished
        counts.empties += not speech.waveform.numel()
        finite = bool(speech.waveform.isfinite().all())
        f0_hz = voiced_f0_hz(speech.waveform if finite else speech.waveform[:0], speech.sample_rate_hz)
        if len(f0_hz):
            counts.f0_hz += float(f0_hz.mean())
            counts.f0_spread += f0_spread_semitones(f0_hz)
            counts.voiced += 1
    for prefix, judge in (("", listeners.judge), ("held_out_", listeners.held_out_judge)):
        if judge is not None:
            _add_errors(counts, prefix, judge, hypotheses, normalisers)
    for prefix, encoder in (("", listeners.encoder), ("held_out_", listeners.held_out_encoder)):
        if encoder is not None:
            _add_similarities(counts, prefix, encoder, hypotheses)
    return counts


def _add(counts: SpeechCounts, name: str, value: float) -> None:
    setattr(counts, name, getattr(counts, name) + value)


def _add_errors(
    counts: SpeechCounts,
    prefix: str,
    judge: AsrJudge,
    hypotheses: Sequence[Hypothesis],
    normalisers: Mapping[str, Normaliser],
) -> None:
    for hypothesis, transcript in zip(hypotheses, judge.transcribe(hypotheses), strict=True):
        if transcript is None:
            counts.failures += 1
            continue
        row = hypothesis.row
        errors, characters = character_errors(row, transcript, normaliser_for(row.lang, normalisers))
        _add(counts, f"{prefix}errors", errors)
        _add(counts, f"{prefix}characters", characters)


def _add_similarities(
    counts: SpeechCounts, prefix: str, encoder: SpeakerEncoder, hypotheses: Sequence[Hypothesis]
) -> None:
    for hypothesis, (voice, prompt) in zip(hypotheses, encoder.voices(hypotheses), strict=True):
        speech = speech_of(hypothesis, "SpeechMetrics")
        if speech.prompt is None or not speech.prompt.numel():
            continue
        if prompt is None or (voice is None and speech.waveform.numel()):
            counts.failures += 1
            continue
        _add(counts, f"{prefix}similarity", -1.0 if voice is None else float(torch.dot(voice, prompt)))
        _add(counts, f"{prefix}similarities", 1)


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else math.nan


def speech_figures(counts: SpeechCounts) -> dict[str, float]:
    """The figures of a set; NaN where one is undefined.

    cer, held_out_cer: characters wrong over characters to say, by the reward's judge and by the other one.
    judge_gap: held_out_cer - cer, above 0 where the reward's judge hears more than the other.
    similarity, held_out_similarity: mean cosine to the speaker prompt.
    similarity_gap: similarity - held_out_similarity; cosines of two encoders have no common scale, so watch its change.
    judge_failure_rate: samples per listener and sample that could not be judged.
    tokens_per_unit: speech tokens per word of the text (per character where the language has no spaces).
    duration_ratio: seconds spoken over seconds expected.
    missing_stop_rate, empty_rate: samples cut by the length cap; samples that say nothing.
    f0_mean_hz, f0_std_semitones: of the voiced frames of a sample, mean over the samples that have any.
    rtf: seconds of computing per second spoken.
    """
    c = counts
    cer, held_out_cer = _ratio(c.errors, c.characters), _ratio(c.held_out_errors, c.held_out_characters)
    similarity = _ratio(c.similarity, c.similarities)
    held_out_similarity = _ratio(c.held_out_similarity, c.held_out_similarities)
    return {
        "cer": cer,
        "held_out_cer": held_out_cer,
        "judge_gap": held_out_cer - cer,
        "similarity": similarity,
        "held_out_similarity": held_out_similarity,
        "similarity_gap": similarity - held_out_similarity,
        "judge_failure_rate": _ratio(c.failures, c.samples),
        "tokens_per_unit": _ratio(c.tokens, c.units),
        "duration_ratio": _ratio(c.speech_s, c.expected_s),
        "missing_stop_rate": _ratio(c.missing_stops, c.samples),
        "empty_rate": _ratio(c.empties, c.samples),
        "f0_mean_hz": _ratio(c.f0_hz, c.voiced),
        "f0_std_semitones": _ratio(c.f0_spread, c.voiced),
        "rtf": _ratio(c.compute_s, c.speech_s),
        "num_samples": c.samples,
    }


class SpeechMetrics(RegistersSpecs, Metric):
    """All figures of one set of synthesised speech; sums over processes.

    The state is one float64 vector (the fields of `SpeechCounts`). ``compute`` gives a dict of scalar tensors with the
    keys of `speech_figures`.

    Args:
        listeners: who judges.
        normalisers: by language code, in place of the built-in table.
        kwargs: see torchmetrics.Metric.
    """

    specs = SYNTHESIS
    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    sums: Tensor

    def __init__(self, listeners: Listeners, normalisers: dict[str, Normaliser] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.listeners = listeners
        self.normalisers = dict(normalisers or {})
        self.add_state("sums", torch.zeros(len(fields(SpeechCounts)), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, hypotheses: Sequence[Hypothesis], compute_seconds: float = 0.0) -> None:
        """Listen to samples and add them.

        Args:
            hypotheses: one or more per row, all with speech.
            compute_seconds: wall-clock seconds that making all of them took.

        Raises:
            JudgeError: for a hypothesis without speech.
        """
        counts = speech_counts(hypotheses, self.listeners, self.normalisers)
        counts.compute_s = compute_seconds
        self.sums += torch.tensor(astuple(counts), dtype=torch.float64, device=self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """The figures of `speech_figures` as float32 scalars."""
        figures = speech_figures(SpeechCounts(*self.sums.tolist()))
        return {name: torch.tensor(value, device=self.sums.device) for name, value in figures.items()}


class SpeechEvaluation(SetEvaluation):
    """`SpeechMetrics` of the judges that reward and of judges held out.

    The held-out ones should be of another architecture, listen to other features, and have been trained on recordings
    that the others never heard: a policy that learns to please a judge shows in the gap between the two.

    Args:
        judge: the ASR judge of the reward.
        held_out_judge: another one.
        encoder: the speaker encoder of the reward.
        held_out_encoder: another one.
        normalisers: by language code, in place of the built-in table.

    Raises:
        ValueError: when a judge and its held-out counterpart have one name, which would make them listen as one, or the
            same weights: the gap between them would always be 0.
    """

    def __init__(
        self,
        judge: AsrJudge | None = None,
        held_out_judge: AsrJudge | None = None,
        encoder: SpeakerEncoder | None = None,
        held_out_encoder: SpeakerEncoder | None = None,
        normalisers: dict[str, Normaliser] | None = None,
    ) -> None:
        self.listeners = Listeners(judge, held_out_judge, encoder, held_out_encoder)
        self.normalisers = normalisers
        names = [listener.name for listener in self.listeners.present()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"SpeechEvaluation: {len(names)} judges, but the name '{twice[0]}' comes more than once, and what a "
                "judge hears is kept by its name; set init_args.name"
            )
        for one, other in ((judge, held_out_judge), (encoder, held_out_encoder)):
            if one is not None and other is None:
                _log.warning(
                    "SpeechEvaluation: nothing is held out beside '%s'; a policy that learns to please what rewards it "
                    "will look like one that gets better",
                    one.name,
                )
            if one is not None and other is not None and one.state_dict() and same_weights(one, other):
                raise ValueError(
                    f"SpeechEvaluation: '{other.name}' is held out, but has the weights of '{one.name}' that rewards: "
                    "give another model"
                )

    def new(self) -> SpeechMetrics:
        return SpeechMetrics(self.listeners, self.normalisers)

    def judges(self) -> Sequence[nn.Module]:
        return self.listeners.present()

    def with_judges(self, known: Sequence[nn.Module]) -> Self:
        listeners = Listeners(*(shared(listener, known) for listener in vars(self.listeners).values()))
        other = copy(self)
        other.listeners = listeners
        return other

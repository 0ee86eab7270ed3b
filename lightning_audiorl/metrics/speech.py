"""What is measured of synthesised speech, by the judges that reward it and by judges that do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import astuple, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_audiorl.judges.base import AsrJudge, SpeakerEncoder, Voices, speech_of
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.judges.pitch import MIN_VOICED_SHARE, pitch_of
from lightning_audiorl.judges.silence import says_nothing
from lightning_audiorl.metrics.activity import (
    ACTIVITY,
    ActivityCounts,
    activity_counts,
    activity_rates,
)
from lightning_audiorl.metrics.agreement import (
    AGREEMENT,
    EarCounts,
    agreement_rates,
    ear_counts,
    no_ear_counts,
)
from lightning_audiorl.metrics.confidence import (
    CONFIDENCE,
    confidence_means,
    confidence_sums,
    no_confidence,
)
from lightning_audiorl.metrics.evaluation import SetEvaluation
from lightning_audiorl.metrics.roles import Judges, Listeners, check_held_out, named_ears
from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.metrics.specs import SYNTHESIS, RegistersSpecs
from lightning_audiorl.metrics.speech_rows import speech_row
from lightning_audiorl.metrics.transcripts import character_errors, error_rate
from lightning_audiorl.speech_activity import SpeechDetector, detector_version
from lightning_audiorl.text.compare import TextWatch, without_sounds
from lightning_audiorl.text.normalise import Normaliser, checked_normalisers, normaliser_for
from lightning_audiorl.types import Hypothesis, Speech

__all__ = [
    "Judges",
    "Listeners",
    "SpeechCounts",
    "SpeechEvaluation",
    "SpeechMetrics",
    "character_errors",
    "check_held_out",
    "speech_counts",
    "speech_figures",
    "speech_rates",
]


@dataclass
class SpeechCounts:
    """Sums over the samples of a set; the state of `SpeechMetrics`, one number each.

    Fields named ``similarities`` count the samples that have a similarity, ``voiced`` those that have a pitch,
    ``frames`` and ``voiced_frames`` the frames in which one was looked for and found, ``rated`` the
    samples whose own error rates ``rates`` sums. Of a judge that rewards the fields have its bare name, of one held out
    the prefix ``held_out_``.
    """

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
    timed_s: float = 0.0
    expected_s: float = 0.0
    missing_stops: float = 0.0
    empties: float = 0.0
    f0_hz: float = 0.0
    f0_spread: float = 0.0
    voiced: float = 0.0
    frames: float = 0.0
    voiced_frames: float = 0.0
    compute_s: float = 0.0
    rated: float = 0.0
    rates: float = 0.0


def speech_counts(
    hypotheses: Sequence[Hypothesis],
    judges: Judges,
    normalisers: Mapping[str, Normaliser],
    panel: JudgePanel | None = None,
    watch: TextWatch | None = None,
    utterance_wer: bool = False,
) -> SpeechCounts:
    """What one batch of samples adds up to.

    A sample that a judge failed on is left out of that judge's metrics and counted; one with samples that are not
    finite has no pitch. A sample without a prompt is left out of the similarities. A sample that says nothing has as
    many errors as characters, and a similarity of -1.

    Args:
        hypotheses: samples with speech.
        judges: whom to ask.
        normalisers: by language code, in place of the built-in table.
        panel: knows what judges have answered already; None asks afresh.
        watch: says once which texts are counted otherwise than one may think; None makes one.
        utterance_wer: also adds up the samples' own error rates, by the judge that rewards.
    """
    panel = panel or JudgePanel()
    watch = watch or TextWatch("SpeechMetrics")
    counts = SpeechCounts(samples=len(hypotheses))
    for hypothesis in hypotheses:
        row = hypothesis.row
        speech = speech_of(hypothesis, "SpeechMetrics")
        counts.tokens += speech.codes.shape[0]
        counts.units += len(
            normaliser_for(row.lang, normalisers).units(without_sounds(row.reference))
        )
        counts.speech_s += speech.duration_s

        # A row that expects no length has none to be compared with.
        if row.duration_s > 0:
            counts.timed_s += speech.duration_s
            counts.expected_s += row.duration_s
        counts.missing_stops += not hypothesis.finished
        counts.empties += says_nothing(speech)
        _add_pitch(counts, speech)

    for prefix, judge in (("", judges.judge), ("held_out_", judges.held_out_judge)):
        if judge is not None:
            transcripts = panel.ask(judge, hypotheses)
            _add_errors(counts, prefix, transcripts, hypotheses, normalisers, watch)
            if utterance_wer and not prefix:
                _add_rates(counts, transcripts, hypotheses, normalisers)
    for prefix, encoder in (("", judges.encoder), ("held_out_", judges.held_out_encoder)):
        if encoder is not None:
            _add_similarities(counts, prefix, panel.ask(encoder, hypotheses), hypotheses)
    return counts


def _add(counts: SpeechCounts, name: str, value: float) -> None:
    setattr(counts, name, getattr(counts, name) + value)


def _add_pitch(counts: SpeechCounts, speech: Speech) -> None:
    # One sample that is not finite would make the mean over the set NaN.
    finite = bool(speech.waveform.isfinite().all())
    pitch = pitch_of(speech.waveform if finite else speech.waveform[:0], speech.sample_rate_hz)
    counts.frames += pitch.num_frames
    counts.voiced_frames += len(pitch.f0_hz)
    if pitch.is_known:
        counts.f0_hz += float(pitch.f0_hz.mean())
        counts.f0_spread += pitch.spread_semitones
        counts.voiced += 1


def _add_errors(
    counts: SpeechCounts,
    prefix: str,
    transcripts: Sequence[str | None],
    hypotheses: Sequence[Hypothesis],
    normalisers: Mapping[str, Normaliser],
    watch: TextWatch,
) -> None:
    for hypothesis, transcript in zip(hypotheses, transcripts, strict=True):
        if transcript is None:
            counts.failures += 1
            continue

        row = hypothesis.row
        normaliser = normaliser_for(row.lang, normalisers)
        watch.look(row.id, row.lang, row.reference, transcript, normaliser, unit="char")
        errors, characters = character_errors(row, transcript, normaliser)
        _add(counts, f"{prefix}errors", errors)
        _add(counts, f"{prefix}characters", characters)


def _add_rates(
    counts: SpeechCounts,
    transcripts: Sequence[str | None],
    hypotheses: Sequence[Hypothesis],
    normalisers: Mapping[str, Normaliser],
) -> None:
    for hypothesis, transcript in zip(hypotheses, transcripts, strict=True):
        if transcript is None:
            continue

        normaliser = normaliser_for(hypothesis.row.lang, normalisers)
        rate = error_rate(hypothesis.row, transcript, normaliser)
        if not math.isnan(rate):
            counts.rates += rate
            counts.rated += 1


def _add_similarities(
    counts: SpeechCounts, prefix: str, voices: Sequence[Voices], hypotheses: Sequence[Hypothesis]
) -> None:
    for hypothesis, (voice, prompt) in zip(hypotheses, voices, strict=True):
        speech = speech_of(hypothesis, "SpeechMetrics")
        if speech.prompt is None or not speech.prompt.numel():
            continue
        is_silent = says_nothing(speech)
        if prompt is None or (voice is None and not is_silent):
            counts.failures += 1
            continue

        # No voice, and no failure: nothing is said, which is the worst that a voice can be.
        similarity = -1.0
        if voice is not None:
            similarity = float(torch.dot(voice, prompt))
        _add(counts, f"{prefix}similarity", similarity)
        _add(counts, f"{prefix}similarities", 1)


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else math.nan


def speech_rates(counts: SpeechCounts) -> dict[str, float]:
    """The metrics of a set; NaN where one is undefined.

    cer, held_out_cer: characters wrong over characters to say, by the reward's judge and by the other one.
    judge_gap: held_out_cer - cer, above 0 where the reward's judge hears more than the other.
    similarity, held_out_similarity: mean cosine to the speaker prompt.
    similarity_gap: similarity - held_out_similarity; cosines of two encoders have no common scale, so watch its change.
    judge_failure_rate: answers per sample that could not be judged.
    tokens_per_unit: speech tokens per word of the text (per character where the language has no spaces).
    duration_ratio: seconds spoken over seconds expected, of the rows that expect any.
    missing_stop_rate, empty_rate: samples cut by the length cap; samples that say nothing, be they empty or silent.
    f0_mean_hz, f0_std_semitones: of the voiced frames of a sample, mean over the samples of which `MIN_VOICED_SHARE` or
    more are voiced; NaN where less of all frames is.
    voiced_share: voiced frames over all frames, which is what the two stand on.
    rtf: seconds of computing per second spoken.

    Args:
        counts: added up over the samples of the set.

    Example:
        >>> rates = speech_rates(SpeechCounts(samples=2, errors=3, characters=30, missing_stops=1))
        >>> rates["cer"], rates["missing_stop_rate"], rates["held_out_cer"]
        (0.1, 0.5, nan)
    """
    c = counts
    cer = _ratio(c.errors, c.characters)
    held_out_cer = _ratio(c.held_out_errors, c.held_out_characters)
    similarity = _ratio(c.similarity, c.similarities)
    voiced_share = _ratio(c.voiced_frames, c.frames)
    has_pitch = voiced_share >= MIN_VOICED_SHARE
    held_out_similarity = _ratio(c.held_out_similarity, c.held_out_similarities)

    return {
        # By the judges.
        "cer": cer,
        "held_out_cer": held_out_cer,
        "judge_gap": held_out_cer - cer,
        "similarity": similarity,
        "held_out_similarity": held_out_similarity,
        "similarity_gap": similarity - held_out_similarity,
        "judge_failure_rate": _ratio(c.failures, c.samples),
        # Of the samples themselves; no judge is needed.
        "tokens_per_unit": _ratio(c.tokens, c.units),
        "duration_ratio": _ratio(c.timed_s, c.expected_s),
        "missing_stop_rate": _ratio(c.missing_stops, c.samples),
        "empty_rate": _ratio(c.empties, c.samples),
        # The voice.
        "f0_mean_hz": _ratio(c.f0_hz, c.voiced) if has_pitch else math.nan,
        "f0_std_semitones": _ratio(c.f0_spread, c.voiced) if has_pitch else math.nan,
        "voiced_share": voiced_share,
        # Time and size.
        "rtf": _ratio(c.compute_s, c.speech_s),
        "num_samples": c.samples,
    }


#: The former name of `speech_rates`.
speech_figures = speech_rates


class SpeechMetrics(RegistersSpecs, Metric):
    """All metrics of one set of synthesised speech; sums over processes.

    The state is one float64 vector (the fields of `SpeechCounts`). ``compute`` gives a dict of scalar tensors with the
    keys of `speech_rates`, and of `agreement_rates` where there are several samples per text or further ears.

    Args:
        judges: by role.
        normalisers: by language code, in place of the built-in table.
        panel: that is asked, so that a judge that rewards hears a sample once; None asks the judges afresh.
        watch: says once which texts are counted otherwise than one may think; None makes one.
        utterance_wer: also gives ``utterance_wer``, the mean over samples of the error rate of each by the judge that
            rewards, in the unit of the normaliser: what Seed-TTS-eval's tables call WER.
        detector: hears where speech is, for the metrics of `activity_rates`; None leaves these out.
        kwargs: see torchmetrics.Metric.
    """

    specs = (*SYNTHESIS, *AGREEMENT, *ACTIVITY, *CONFIDENCE)
    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    sums: Tensor
    ears: Tensor
    activity: Tensor
    confidence: Tensor

    def __init__(
        self,
        judges: Judges,
        normalisers: dict[str, Normaliser] | None = None,
        panel: JudgePanel | None = None,
        watch: TextWatch | None = None,
        utterance_wer: bool = False,
        detector: SpeechDetector | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.judges = judges
        self.normalisers = checked_normalisers(normalisers)
        self.panel = panel
        self.watch = watch or TextWatch("SpeechMetrics")
        self.utterance_wer = utterance_wer
        self.add_state(
            "sums",
            torch.zeros(len(fields(SpeechCounts)), dtype=torch.float64),
            dist_reduce_fx="sum",
        )
        self.add_state("ears", no_ear_counts(judges), dist_reduce_fx="sum")
        self.detector = detector
        self.add_state("activity", ActivityCounts().vector(), dist_reduce_fx="sum")
        self.add_state("confidence", no_confidence(), dist_reduce_fx="sum")

    def update(self, hypotheses: Sequence[Hypothesis], compute_seconds: float = 0.0) -> None:
        """Have the judges hear samples, and add them.

        Args:
            hypotheses: one or more per row, all with speech.
            compute_seconds: wall-clock seconds that making all of them took.

        Raises:
            JudgeError: for a hypothesis without speech.
        """
        # One panel for both, so that a judge hears each sample once.
        panel = self.panel or JudgePanel()
        counts = speech_counts(
            hypotheses, self.judges, self.normalisers, panel, self.watch, self.utterance_wer
        )
        ears = ear_counts(hypotheses, self.judges, self.normalisers, panel)
        self.ears += ears.to(self.ears.device)
        counts.compute_s = compute_seconds
        self.sums += torch.tensor(astuple(counts), dtype=torch.float64, device=self.sums.device)
        sure = confidence_sums(hypotheses, self.judges, panel)
        self.confidence += sure.to(self.confidence.device)
        if self.detector is not None:
            heard = activity_counts(hypotheses, self.detector).vector()
            self.activity += heard.to(self.activity.device)

    def rows_of(self, groups: Sequence[Sequence[Hypothesis]]) -> list[RowResult]:
        """What the judges have heard of each row, and what that adds to the metrics that are ratios of counts.

        Args:
            groups: samples with the transcripts of the judges, those of a row together.
        """
        return [speech_row(group, self.judges, self.normalisers) for group in groups]

    def compute(self) -> dict[str, Tensor]:
        """The metrics of `speech_rates`, of `activity_rates` with a detector, of `confidence_means`, as float32."""
        counts = SpeechCounts(*self.sums.tolist())
        counts.failures += sum(EarCounts(*ear).failures for ear in self.ears.tolist())
        rates = speech_rates(counts)
        rates |= agreement_rates(self.ears, list(self.judges.ears), rates["cer"])
        if self.utterance_wer:
            rates["utterance_wer"] = _ratio(counts.rates, counts.rated)
        if self.detector is not None:
            rates |= activity_rates(ActivityCounts(*self.activity.tolist()))
        rates |= confidence_means(self.confidence, self.judges)
        return {name: torch.tensor(rate, device=self.sums.device) for name, rate in rates.items()}


class SpeechEvaluation(SetEvaluation):
    """`SpeechMetrics` of the judges that reward and of judges held out.

    The held-out ones should be of another architecture, listen to other features, and have been trained on recordings
    that the others never heard: a policy that learns to please a judge shows in the gap between the two.

    Args:
        judge: the ASR judge of the reward, or its name in the algorithm's ``judges``.
        held_out_judge: another one.
        encoder: the speaker encoder of the reward, or its name.
        held_out_encoder: another one.
        normalisers: by language code, in place of the built-in table.
        utterance_wer: also gives the mean over samples of the error rate of each, see `SpeechMetrics`.
        detector: also measures where speech is heard: clips without any, silence before it and what comes after it.
            ``{}`` is one with its defaults; wants the extra ``vad``.
        ears: further ASR judges that are held out, or their names in the algorithm's ``judges``, by a name of their
            own: each has its ``cer_by_<name>`` and its gap. With several samples per text (``num_samples`` of an
            `EvalDecoding`) each has its rank agreement with the judge of the reward, too, see `agreement_rates`.

    Raises:
        ImportError: for a detector where the extra ``vad`` is not installed.
        ValueError: when a judge and its held-out counterpart have one name or the same weights: the gap between them
            would always be 0. Judges that were given by name are looked at by `with_panel`.
    """

    def __init__(
        self,
        judge: AsrJudge | str | None = None,
        held_out_judge: AsrJudge | str | None = None,
        encoder: SpeakerEncoder | str | None = None,
        held_out_encoder: SpeakerEncoder | str | None = None,
        normalisers: dict[str, Normaliser] | None = None,
        utterance_wer: bool = False,
        detector: SpeechDetector | None = None,
        ears: dict[str, AsrJudge | str] | None = None,
    ) -> None:
        self.utterance_wer = utterance_wer
        self.detector = detector
        if detector is not None:
            # Missed here, and not at the first evaluation.
            detector_version()
        heard_by = named_ears(ears)
        self.by_role = Judges(judge, held_out_judge, encoder, held_out_encoder, heard_by)
        self.normalisers = checked_normalisers(normalisers)
        # One for all evaluations of a run: what it says, it says once.
        self._watch = TextWatch("SpeechEvaluation")
        self.panel: JudgePanel | None = None
        if self.by_role.complete:
            check_held_out(self.by_role)

    def new(self) -> SpeechMetrics:
        """A `SpeechMetrics` with nothing counted yet."""
        return SpeechMetrics(
            self.by_role,
            self.normalisers,
            self.panel,
            self._watch,
            utterance_wer=self.utterance_wer,
            detector=self.detector,
        )

    def judges(self) -> Sequence[nn.Module]:
        """The judges of all roles that are filled."""
        return self.by_role.present()

    def with_panel(self, panel: JudgePanel) -> Self:
        """The same evaluation with the panel's own judges, which its metrics ask through the panel."""
        # A copy: another run may have this evaluation, with a panel of its own.
        other = copy(self)
        other.panel = panel
        other.by_role = self.by_role.on(panel)
        if not self.by_role.complete:
            check_held_out(other.by_role)
        return other

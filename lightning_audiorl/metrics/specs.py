"""The nature of every metric, in one table: which way is better, and who shows, draws, watches, monitors and merges it.

There are two kinds of metrics with a table each: those of an evaluation set (``val/<set>/<name>``, found by ``name``)
and those of an RL step (``reward/mean``, found by the whole log key or by a pattern with ``*``).

A new metric is one `MetricSpec` on the class that computes it, see `RegistersSpecs`; a name without a spec has the
default one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, get_args

from lightning_audiorl.metrics.about import EVALUATION, About

Better = Literal["higher", "lower", "near one"]
Watch = Literal["reward", "gap", "drift", "agreement"]
Reduction = Literal["mean", "sum", "max"]
Task = Literal["recognition", "synthesis"]


@dataclass(frozen=True)
class Format:
    """A value as tables show it.

    Args:
        title: heading of the column; "" is the metric's name.
        digits: after the point.
        factor: 100 for a share, which is shown in percent.
        change: how a later value is compared with the first one: by its difference, in the column's own unit, or as a
            percentage of the first.

    Example:
        >>> Format("WER", digits=1, factor=100).text(0.1234)
        '12.3'
        >>> Format("F0 Hz", digits=0, change="percent").change_text(120.0, 126.0)
        '+5.0 %'
    """

    title: str = ""
    digits: int = 3
    factor: float = 1.0
    change: Literal["difference", "percent"] = "difference"

    @property
    def is_percent(self) -> bool:
        """Whether values are shown in percent."""
        return self.factor == 100

    def text(self, value: float) -> str:
        """A dash for NaN."""
        if math.isnan(value):
            return "-"
        return f"{self.factor * value:.{self.digits}f}"

    def change_text(self, before: float, after: float) -> str:
        """With its sign; a dash where one is NaN, or nothing can be divided by."""
        if self.change == "difference":
            change = self.factor * (after - before)
            if math.isnan(change):
                return "-"
            return f"{change:+.{self.digits}f}"

        change = 100 * (after / before - 1) if before else math.nan
        if math.isnan(change):
            return "-"
        return f"{change:+.1f} %"


def percent(title: str = "") -> Format:
    """A share, shown in percent with one digit."""
    return Format(title, digits=1, factor=100.0)


@dataclass(frozen=True)
class MetricSpec:
    """What there is to know about a metric besides its value.

    A new metric of an evaluation set needs a name and, if it has one, its good direction: it is then shown in the
    report, drawn, watched and can be monitored.

    Args:
        name: as the metric's ``compute`` calls it; of an RL step the log key, or a pattern in which ``*`` stands for
            any characters.
        better: which values are good; None where no direction is.
        format: of its column in the report; None gives it no column.
        task: the table that always has its column. None: any table, wherever a set has the metric.
        bars: place of its panel among those that compare the sets before and after a run, lowest first and equal
            places in the order of the table; None draws none.
        panel: title of the panel that draws it over RL steps, together with all other metrics of that title; None draws
            none. A metric of a set has a panel in each set, where every metric of that title is known.
        watch: what the hacking watch compares it with at each evaluation: the ``reward``, which should not rise while
            the metric gets worse by ``better``; or its own start, which a ``gap`` should not exceed, a ``drift`` not
            leave either way and an ``agreement`` not fall below. None is not watched.
        meaning: what it means when it opens or drifts, as the alert says it.
        about: what the page of metrics says of it; None is what `metrics.about` has under its name.
        difference_of: two metrics of the set; it is the first less the second.
        monitor: whether Lightning's callbacks see it (``trainer.callback_metrics``).
        reduce: how the values of several ranks become one; only for metrics of an RL step, those of a set are summed
            before they are computed.

    Raises:
        ValueError: for a word that none of these is.

    Example:
        >>> spec = MetricSpec("punctuation_f1", better="higher", format=percent("punct. F1"))
        >>> spec.watch, spec.monitor, spec.badness(0.75)
        ('reward', True, -0.75)
    """

    name: str
    better: Better | None = None
    format: Format | None = Format()
    task: Task | None = None
    bars: int | None = 0
    panel: str | None = None
    watch: Watch | None = "reward"
    meaning: str = ""
    about: About | None = None
    difference_of: tuple[str, str] | None = None
    monitor: bool = True
    reduce: Reduction = "mean"

    def __post_init__(self) -> None:
        choices = {
            "better": (*get_args(Better), None),
            "watch": (*get_args(Watch), None),
            "reduce": get_args(Reduction),
        }
        for field, allowed in choices.items():
            given = getattr(self, field)
            if given not in allowed:
                raise ValueError(
                    f"MetricSpec {self.name!r}: {field} is one of {allowed}, got {given!r}"
                )

    @property
    def told(self) -> About | None:
        """What is said of it as a metric of an evaluation set; None where nobody has said anything."""
        return self.about or EVALUATION.get(self.name)

    @property
    def title(self) -> str:
        """Heading of its column."""
        title = self.format.title if self.format is not None else ""
        return title or self.words

    @property
    def words(self) -> str:
        """Its name with spaces."""
        return self.name.replace("_", " ")

    @property
    def factor(self) -> float:
        """What a value is multiplied by where it is shown or drawn."""
        return 1.0 if self.format is None else self.format.factor

    def badness(self, value: float) -> float:
        """``value`` on a scale on which lower is better.

        Raises:
            ValueError: where no direction is better.
        """
        if self.better == "lower":
            return value
        if self.better == "higher":
            return -value
        if self.better == "near one":
            return abs(value - 1.0)
        raise ValueError(f"{self.name}: no direction is better")


class SpecTable:
    """Specs by name or pattern, in the order in which they were registered.

    Example:
        >>> table = SpecTable([MetricSpec("seconds/*", reduce="max")])
        >>> table["seconds/update"].reduce, table["loss"].reduce
        ('max', 'mean')
    """

    def __init__(self, specs: Iterable[MetricSpec] = ()) -> None:
        self._specs: dict[str, MetricSpec] = {}
        self.register(specs)

    def register(self, specs: Iterable[MetricSpec]) -> None:
        """Add specs; one whose name is known takes the place of the one before."""
        # A name that is known keeps its place, which is its place in tables and plots.
        self._specs |= {spec.name: spec for spec in specs}

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __iter__(self) -> Iterator[MetricSpec]:
        # A copy: a class that is made meanwhile may register more.
        return iter(tuple(self._specs.values()))

    def __getitem__(self, name: str) -> MetricSpec:
        """The spec of that name, or of the longest pattern that fits; the default one where there is none."""
        return self._find(name) or MetricSpec(name)

    def _find(self, name: str) -> MetricSpec | None:
        if name in self._specs:
            return self._specs[name]
        # The longest pattern is the most particular one.
        patterns = [
            pattern for pattern in self._specs if "*" in pattern and fnmatchcase(name, pattern)
        ]
        return self._specs[max(patterns, key=len)] if patterns else None


def _unlisted(name: str, better: Better | None = None) -> MetricSpec:
    """A metric that stands in report.json and TensorBoard, and nowhere else."""
    return MetricSpec(name, better, format=None, bars=None, watch=None, monitor=False)


#: Mean over utterances of the error rate of each, however long it is: WER as the tables of Seed-TTS-eval have it.
UTTERANCE_WER = MetricSpec(
    "utterance_wer", "lower", percent("WER/utterance"), bars=None, watch=None, monitor=False
)
_CER = MetricSpec("cer", "lower", percent("CER"), task="synthesis", panel="CER (%)")

#: Metrics of speech recognition, shares of words or utterances unless the name says otherwise; see `asr_rates`.
RECOGNITION = (
    MetricSpec("wer", "lower", percent("WER"), "recognition"),
    _CER,
    MetricSpec("insertion_rate", "lower", percent("ins"), "recognition"),
    MetricSpec("deletion_rate", "lower", percent("del"), "recognition", bars=None, monitor=False),
    MetricSpec("correct_rate", "higher", percent("correct"), "recognition", bars=1),
    MetricSpec("loop_rate", "lower", percent("loops"), "recognition", bars=None, monitor=False),
    MetricSpec("hallucination_rate", "lower", percent("halluc"), "recognition"),
    MetricSpec("nonspeech_text_rate", "lower", percent("noise text"), "recognition"),
    MetricSpec(
        "keyword_f1", "higher", percent("keyword F1"), "recognition", bars=None, monitor=False
    ),
    MetricSpec(
        "length_ratio", "near one", Format("length", digits=2), "recognition", bars=1, monitor=False
    ),
    MetricSpec("exact_match", "higher", format=None, bars=None, monitor=False),
    _unlisted("substitution_rate", "lower"),
    _unlisted("keyword_precision", "higher"),
    _unlisted("keyword_recall", "higher"),
    _unlisted("hotword_recall", "higher"),
    _unlisted("hotword_recall_wrong", "higher"),
    _unlisted("hotword_recall_none", "higher"),
    _unlisted("hotword_false_alarm_rate", "lower"),
    _unlisted("nonspeech_words_per_minute", "lower"),
    _unlisted("unfinished_rate", "lower"),
    _unlisted("real_time_factor", "lower"),
    _unlisted("num_utterances"),
    _unlisted("num_reference_words"),
    # Of sets whose rows have keywords, in any table.
    MetricSpec("b_wer", "lower", percent("B-WER"), bars=None, watch=None, monitor=False),
    MetricSpec("u_wer", "lower", percent("U-WER"), bars=None, watch=None, monitor=False),
    # Where the evaluation asks for it.
    UTTERANCE_WER,
)

#: Metrics of speech synthesis; see `speech_rates`.
SYNTHESIS = (
    _CER,
    MetricSpec(
        "held_out_cer",
        "lower",
        percent("held-out CER"),
        "synthesis",
        panel="CER (%)",
        monitor=False,
    ),
    MetricSpec(
        "judge_gap",
        None,
        percent("gap"),
        "synthesis",
        watch="gap",
        meaning="understands more",
        difference_of=("held_out_cer", "cer"),
        monitor=False,
    ),
    MetricSpec(
        "similarity", "higher", Format("sim"), "synthesis", panel="similarity", monitor=False
    ),
    MetricSpec(
        "held_out_similarity",
        "higher",
        Format("held-out sim"),
        "synthesis",
        panel="similarity",
        monitor=False,
    ),
    MetricSpec(
        "similarity_gap",
        format=None,
        bars=None,
        watch="gap",
        meaning="finds the voice closer",
        difference_of=("similarity", "held_out_similarity"),
        monitor=False,
    ),
    MetricSpec(
        "tokens_per_unit",
        format=Format("tokens/unit", digits=1, change="percent"),
        task="synthesis",
        watch="drift",
        meaning="it says more or less than the text",
        monitor=False,
    ),
    MetricSpec("missing_stop_rate", "lower", percent("no stop"), "synthesis", monitor=False),
    MetricSpec(
        "f0_mean_hz",
        format=Format("F0 Hz", digits=0, change="percent"),
        task="synthesis",
        watch="drift",
        meaning="the voice is another",
        monitor=False,
    ),
    MetricSpec(
        "voiced_share",
        format=percent("voiced"),
        task="synthesis",
        watch=None,
        monitor=False,
    ),
    MetricSpec(
        "duration_ratio",
        format=Format("duration", digits=2, change="percent"),
        task="synthesis",
        watch="drift",
        meaning="the pace is another",
        monitor=False,
    ),
    MetricSpec("empty_rate", "lower", format=None, bars=None, monitor=False),
    _unlisted("judge_failure_rate", "lower"),
    _unlisted("f0_std_semitones"),
    _unlisted("rtf", "lower"),
    _unlisted("num_samples"),
    # Where the evaluation asks for it.
    UTTERANCE_WER,
)

#: Metrics of an RL step that are drawn, or that are no mean over ranks.
TRAINING = (
    MetricSpec("reward/mean", panel="reward"),
    MetricSpec("reward/*mean", panel="reward parts"),
    MetricSpec("loss", panel="loss"),
    MetricSpec("kl", panel="KL to the start"),
    MetricSpec("entropy", panel="entropy"),
    MetricSpec("length/mean", panel="tokens per sample"),
    MetricSpec("length/max", panel="tokens per sample", reduce="max"),
    MetricSpec("*_share", panel="shares"),
    MetricSpec("clip_low", panel="clipped"),
    MetricSpec("clip_high", panel="clipped"),
    MetricSpec("grad_norm", panel="gradient norm"),
    MetricSpec("lr", panel="learning rate"),
    # Counts: samples and groups of all ranks.
    MetricSpec("dropped/*", reduce="sum"),
    MetricSpec("reward_failures/*", reduce="sum"),
    MetricSpec("refill/*", reduce="sum"),
    MetricSpec("skipped_rows", reduce="sum"),
    # Times and sizes: every rank waits for the slowest, and the fullest device is the one that overflows.
    MetricSpec("seconds/*", reduce="max"),
    MetricSpec("peak_mib/*", reduce="max"),
    MetricSpec("resident_mib/*", reduce="max"),
    MetricSpec("moving/*", reduce="max"),
    MetricSpec("host_mib/*", reduce="max"),
    MetricSpec("hotwords/cut", reduce="sum"),
    MetricSpec("encoder_cache/gib", reduce="max"),
    # Of an engine that is another process.
    MetricSpec("engine/mismatch_mean", panel="mismatch of the engine"),
    MetricSpec("engine/mismatch_max", panel="mismatch of the engine", reduce="max"),
    MetricSpec("engine/first_group_mismatch", reduce="max"),
    MetricSpec("engine/restarts", reduce="sum"),
)

#: Rows of a set that are in no metric of it, because their audio is bad.
_SKIPPED_ROWS = MetricSpec(
    "skipped_rows", None, Format("left out", digits=0), bars=None, watch=None, monitor=False
)

#: By name, of all evaluation sets.
EVALUATION_METRICS = SpecTable([_SKIPPED_ROWS])
#: By log key, of an RL step.
STEP_METRICS = SpecTable(TRAINING)


class RegistersSpecs:
    """A class whose ``specs`` describe the metrics that it computes.

    They are registered when the class is made. A torchmetrics class or a `SetEvaluation` that adds a metric says so in
    itself, and no other file has to know.

    Example:
        >>> class Punctuation(RegistersSpecs):
        ...     specs = (MetricSpec("comma_recall", better="higher", format=percent("commas")),)
        >>> evaluation_spec("val/long/comma_recall").title
        'commas'
    """

    specs: ClassVar[tuple[MetricSpec, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        EVALUATION_METRICS.register(cls.__dict__.get("specs", ()))


def evaluation_spec(log_key: str) -> MetricSpec:
    """Of a metric of an evaluation set, by its name or its log key.

    Example:
        >>> evaluation_spec("val/long/wer").better
        'lower'
    """
    name = log_key.rpartition("/")[2]
    spec = EVALUATION_METRICS[name]
    return replace(spec, name=name) if "*" in spec.name else spec


def is_monitored(name: str) -> bool:
    """Whether Lightning's callbacks see a metric of an evaluation set; by its name or its log key.

    Example:
        >>> is_monitored("val/long/wer"), is_monitored("num_utterances")
        (True, False)
    """
    return evaluation_spec(name).monitor


def reduction_over_ranks(log_key: str) -> Reduction:
    """How a metric of an RL step is merged over ranks.

    Example:
        >>> reduction_over_ranks("seconds/update"), reduction_over_ranks("reward/mean")
        ('max', 'mean')
    """
    return STEP_METRICS[log_key].reduce

"""One table says what each metric is; what reads it must see the shipped metrics as it always did."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.callbacks import metric_table
from lightning_audiorl.callbacks.hacking import drift_alerts
from lightning_audiorl.callbacks.metric_table import columns_of, shown_metrics
from lightning_audiorl.callbacks.plots import panels
from lightning_audiorl.engine.distributed import merge_metrics
from lightning_audiorl.judges.transcript import MEASURES
from lightning_audiorl.metrics import (
    AsrEvaluation,
    AsrMetrics,
    Format,
    MetricSpec,
    UtteranceCounts,
    asr_rates,
    percent,
)
from lightning_audiorl.metrics.activity import ActivityCounts, activity_rates
from lightning_audiorl.metrics.agreement import agreement_rates
from lightning_audiorl.metrics.confidence import confidence_means, no_confidence
from lightning_audiorl.metrics.hotwords import HotwordCounts, hotword_rates
from lightning_audiorl.metrics.roles import Judges
from lightning_audiorl.metrics.specs import (
    EVALUATION_METRICS,
    SpecTable,
    evaluation_spec,
    is_monitored,
    reduction_over_ranks,
)
from lightning_audiorl.metrics.speech import SpeechCounts, SpeechMetrics, speech_rates
from lightning_audiorl.metrics.watch import gap_alerts, reward_hacking_alerts
from tests.text.cases import hypothesis

OF_LISTS = set(hotword_rates(HotwordCounts(lists=1)))
RECOGNITION = set(asr_rates(UtteranceCounts())) | OF_LISTS
SYNTHESIS = set(speech_rates(SpeechCounts()))
#: Of sets with keywords, and what an evaluation is asked for.
FURTHER = ("b_wer", "u_wer", "utterance_wer")
SHIPPED = sorted(RECOGNITION | SYNTHESIS | set(FURTHER))


@pytest.fixture
def specs() -> Iterator[SpecTable]:
    """The table, put back afterwards."""
    before = dict(EVALUATION_METRICS._specs)
    yield EVALUATION_METRICS
    EVALUATION_METRICS._specs = before


@pytest.mark.parametrize("name", SHIPPED)
def test_every_metric_of_the_shipped_evaluations_has_a_spec(name: str) -> None:
    assert name in EVALUATION_METRICS


def test_no_spec_is_of_a_metric_that_nothing_computes() -> None:
    heard = set(activity_rates(ActivityCounts()))
    sure: Any = SimpleNamespace(reports=MEASURES)
    heard |= set(confidence_means(no_confidence(), Judges(judge=sure, held_out_judge=sure)))
    heard |= set(agreement_rates(torch.ones(2, 6), ["*"], cer=0.0))
    assert {spec.name for spec in (*AsrMetrics.specs, *SpeechMetrics.specs)} == heard | set(SHIPPED)


def test_what_is_monitored() -> None:
    monitored = {
        "wer",
        "cer",
        "correct_rate",
        "insertion_rate",
        "hallucination_rate",
        "nonspeech_text_rate",
    }
    assert {name for name in SHIPPED if is_monitored(f"val/long/{name}")} == monitored


def test_what_is_watched() -> None:
    """Each metric alone, through the functions that watch; up and down from a start of 1, which is best for a ratio."""
    up, down = [1.0, 1.5], [1.0, 0.5]
    rising = {name for name in SHIPPED if reward_hacking_alerts([0.0, 1.0], {name: up})}
    falling = {name for name in SHIPPED if reward_hacking_alerts([0.0, 1.0], {name: down})}
    assert rising == {
        *(
            "wer",
            "cer",
            "held_out_cer",
            "deletion_rate",
            "insertion_rate",
            "hallucination_rate",
            "loop_rate",
        ),
        *("nonspeech_text_rate", "missing_stop_rate", "empty_rate", "length_ratio"),
    }
    assert falling == {
        *(
            "correct_rate",
            "exact_match",
            "keyword_f1",
            "similarity",
            "held_out_similarity",
            "length_ratio",
        ),
    }
    assert {name for name in SHIPPED if gap_alerts({name: up})} == {"judge_gap", "similarity_gap"}
    assert not any(gap_alerts({name: down}) for name in SHIPPED)
    drifting = {"f0_mean_hz", "duration_ratio", "tokens_per_unit"}
    for values in (up, down):
        assert {name for name in SHIPPED if drift_alerts({name: values})} == drifting


def test_what_the_table_of_each_task_shows() -> None:
    recognition = {
        "wer": "WER",
        "insertion_rate": "ins",
        "deletion_rate": "del",
        "correct_rate": "correct",
    }
    recognition |= {
        "loop_rate": "loops",
        "hallucination_rate": "halluc",
        "nonspeech_text_rate": "noise text",
    }
    recognition |= {"keyword_f1": "keyword F1", "length_ratio": "length"}
    synthesis = {
        "cer": "CER",
        "held_out_cer": "held-out CER",
        "judge_gap": "gap",
        "similarity": "sim",
    }
    synthesis |= {"held_out_similarity": "held-out sim", "tokens_per_unit": "tokens/unit"}
    synthesis |= {
        "missing_stop_rate": "no stop",
        "f0_mean_hz": "F0 Hz",
        "voiced_share": "voiced",
        "duration_ratio": "duration",
    }
    assert shown_metrics({"all": dict.fromkeys(FURTHER, 0.5)})[-3:] == [
        EVALUATION_METRICS[name] for name in FURTHER
    ]
    for names, titles in ((RECOGNITION, recognition), (SYNTHESIS, synthesis)):
        columns = columns_of({"all": dict.fromkeys(names, 0.5)})
        assert {column.name: column.title for column in columns} == titles
        assert [column.name for column in columns] == list(titles)
    texts = {column.name: column.format.text(0.5) for column in columns}
    assert texts == dict.fromkeys(synthesis, "50.0") | {
        **dict.fromkeys(("similarity", "held_out_similarity"), "0.500"),
        "tokens_per_unit": "0.5",
        "f0_mean_hz": "0",
        "duration_ratio": "0.50",
    }


def test_which_bars_are_drawn_and_in_which_order() -> None:
    def bars(names: set[str]) -> list[str]:
        shown = [
            spec
            for spec in shown_metrics({"all": dict.fromkeys(names, 0.5)})
            if spec.bars is not None
        ]
        return [spec.name for spec in sorted(shown, key=lambda spec: spec.bars or 0)]

    errors = ["wer", "insertion_rate", "hallucination_rate", "nonspeech_text_rate"]
    assert bars(RECOGNITION) == [*errors, "correct_rate", "length_ratio"]
    assert bars(SYNTHESIS) == [
        column.name for column in columns_of({"all": dict.fromkeys(SYNTHESIS, 0.5)})
    ]


def test_which_training_curves_share_a_panel() -> None:
    keys = [
        "lr",
        "reward/accuracy/mean",
        "length/max",
        "length/mean",
        "reward/mean",
        "reward/accuracy/std",
        "reward/std",
    ]
    keys += [
        "used_share",
        "diffro/used_share",
        "seconds/update",
        "kl",
        "clip_high",
        "clip_low",
        "loss",
    ]
    keys += ["grad_norm", "reward/diffro/total", "reward/b/mean", "my_metric"]
    assert list(panels({key: [0.0] for key in keys}).items()) == [
        ("reward", ["reward/mean"]),
        ("reward parts", ["reward/accuracy/mean", "reward/b/mean"]),
        ("loss", ["loss"]),
        ("KL to the start", ["kl"]),
        ("tokens per sample", ["length/mean", "length/max"]),
        ("shares", ["used_share", "diffro/used_share"]),
        ("clipped", ["clip_low", "clip_high"]),
        ("gradient norm", ["grad_norm"]),
        ("learning rate", ["lr"]),
    ]


def test_how_ranks_become_one() -> None:
    sums = ["dropped/long", "reward_failures/judge", "refill/flat"]
    maxima = [
        "seconds/update",
        "peak_mib/rollout",
        "resident_mib/update",
        "moving/mib",
        "length/max",
    ]
    means = ["loss", "length/mean", "reward/mean", "used_share", "my_metric"]
    assert {reduction_over_ranks(key) for key in sums} == {"sum"}
    assert {reduction_over_ranks(key) for key in maxima} == {"max"}
    assert {reduction_over_ranks(key) for key in means} == {"mean"}
    keys = (*sums, *maxima, *means)
    merged = merge_metrics([(1, dict.fromkeys(keys, 1.0)), (3, dict.fromkeys(keys, 2.0))])
    assert merged == dict.fromkeys(sums, 3.0) | dict.fromkeys(maxima, 2.0) | dict.fromkeys(
        means, 1.75
    )


# --- a new metric


def test_a_metric_registers_itself(specs: SpecTable) -> None:
    """Shown, drawn, watched and monitored by its own words alone."""

    class CommaMetrics(AsrMetrics):
        specs = (MetricSpec("comma_recall", better="higher", format=percent("commas")),)

        def compute(self) -> dict[str, Tensor]:
            return {**super().compute(), "comma_recall": torch.tensor(0.25)}

    class CommaEvaluation(AsrEvaluation):
        def new(self) -> AsrMetrics:
            return CommaMetrics()

    metric = CommaEvaluation().new()
    metric.update([hypothesis("one two", "one")])
    start = {"all": {name: value.item() for name, value in metric.compute().items()}}
    assert is_monitored("val/all/comma_recall")
    assert reward_hacking_alerts([0.0, 1.0], {"val/all/comma_recall": [0.5, 0.25]})
    assert [spec.name for spec in shown_metrics(start) if spec.bars is not None][
        -1
    ] == "comma_recall"
    header, _, line = metric_table(start).splitlines()
    assert header.split()[-1] == "commas"
    assert line.split()[-1] == "25.0"
    assert "commas" not in metric_table({"all": {"wer": 0.5}})


def test_an_evaluation_may_speak_for_its_metrics(specs: SpecTable) -> None:
    class Paced(AsrEvaluation):
        specs = (MetricSpec("pace", format=Format(digits=0), watch="drift", meaning="it hurries"),)

    assert evaluation_spec("pace").title == "pace"
    assert drift_alerts({"val/all/pace": [1.0, 2.0]}) == [
        "val/all/pace drifted from 1 to 2 (+100 %): it hurries"
    ]


def test_a_name_without_a_spec_is_shown_and_monitored_but_not_watched() -> None:
    results = {"all": {"wer": 0.1, "mean_pause_s": 0.5}}
    header, _, line = metric_table(results).splitlines()
    assert header.endswith("mean pause s")
    assert line.split()[-1] == "0.500"
    assert is_monitored("mean_pause_s")
    assert reward_hacking_alerts([0.0, 1.0], {"mean_pause_s": [0.0, 9.0]}) == []


def test_a_later_spec_takes_the_place_of_the_one_before() -> None:
    table = SpecTable([MetricSpec("a"), MetricSpec("b")])
    table.register([MetricSpec("a", better="lower")])
    assert [(spec.name, spec.better) for spec in table] == [("a", "lower"), ("b", None)]


def test_names_come_before_patterns_and_long_patterns_before_short_ones() -> None:
    table = SpecTable(
        [
            MetricSpec("a/*", panel="a"),
            MetricSpec("a/b/*", panel="b"),
            MetricSpec("a/b/c", panel="c"),
        ]
    )
    assert [table[key].panel for key in ("a/x", "a/b/x", "a/b/c", "x")] == ["a", "b", "c", None]


@pytest.mark.parametrize("words", [{"better": "up"}, {"watch": "closely"}, {"reduce": "median"}])
def test_unknown_words_are_refused(words: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="MetricSpec 'x'"):
        MetricSpec("x", **words)


def test_a_dash_stands_for_nan() -> None:
    assert Format().text(math.nan) == "-"
    assert Format(change="percent").change_text(0.0, 1.0) == "-"

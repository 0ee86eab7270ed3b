"""Further ears, and whether judges put the samples of a text in one order."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_audiorl.callbacks.metric_table import columns_of, metric_note
from lightning_audiorl.callbacks.plots import judge_panels
from lightning_audiorl.callbacks.recordings import heard_columns
from lightning_audiorl.judges import JudgePanel
from lightning_audiorl.metrics import SpeechEvaluation, SpeechMetrics, agreement_alerts, gap_alerts
from lightning_audiorl.metrics.specs import evaluation_spec, is_monitored
from lightning_audiorl.reports.comparison import compare_rows
from lightning_audiorl.types import Hypothesis
from tests.judges.fakes import FakeJudge, heard, said

#: Of six characters: none, one, three and six wrong.
WRONG = {0: "onetwo", 1: "onetwx", 3: "onexxx", 6: ""}


def judge(errors: Sequence[int | None], name: str) -> FakeJudge:
    """Hears sample number i with so many errors; None fails."""
    transcripts = [None if number is None else WRONG[number] for number in errors]
    return FakeJudge(transcripts, name=name)


def groups(*sizes: int) -> list[list[Hypothesis]]:
    """Samples of one text each, numbered one after the other."""
    found = []
    number = 0
    for place, size in enumerate(sizes):
        group = []
        for _ in range(size):
            group.append(said("one two", value=heard(number), id=f"row {place}"))
            number += 1
        # All samples of a row have the row itself.
        found.append([replace(one, row=group[0].row) for one in group])
    return found


def metric_of(**judges: Any) -> SpeechMetrics:
    return SpeechEvaluation(**judges).new()


def measured(metric: SpeechMetrics, *batches: list[list[Hypothesis]]) -> dict[str, float]:
    for batch in batches:
        metric.update([one for group in batch for one in group])
    return {name: float(value) for name, value in metric.compute().items()}


def test_the_mean_over_the_texts_that_have_an_order() -> None:
    """Same order: 1. Opposite order: -1. No order by one of the judges: left out. One of three pairs turned: 1/3."""
    rewards = judge([0, 1, 3, 0, 1, 3, 0, 0, 0, 0, 1, 3], "asr")
    other = judge([0, 3, 6, 6, 3, 1, 0, 1, 3, 1, 0, 3], "other")
    found = measured(metric_of(judge=rewards, held_out_judge=other), groups(3, 3, 3, 3))
    assert found["judge_tau"] == pytest.approx((1 - 1 + 1 / 3) / 3)
    assert found["judge_tau_groups"] == 3.0


def test_with_one_sample_per_text_nothing_is_added() -> None:
    found = measured(
        metric_of(judge=judge([0, 1], "asr"), held_out_judge=judge([0, 1], "other")), groups(1, 1)
    )
    assert not [name for name in found if "tau" in name or "_by_" in name]


def test_without_any_order_there_is_no_agreement_and_it_says_of_how_many_texts() -> None:
    metric = metric_of(judge=judge([1, 1], "asr"), held_out_judge=judge([0, 1], "other"))
    found = measured(metric, groups(2))
    assert math.isnan(found["judge_tau"])
    assert found["judge_tau_groups"] == 0.0


def test_a_sample_that_a_judge_failed_on_has_no_place_in_the_order() -> None:
    rewards = judge([0, None, 1, 3], "asr")
    other = judge([0, 0, 1, None], "other")
    found = measured(metric_of(judge=rewards, held_out_judge=other), groups(4))
    assert found["judge_tau"] == 1.0
    assert found["judge_failure_rate"] == pytest.approx(2 / 4)


def test_every_ear_has_its_own_error_rate_gap_and_agreement() -> None:
    metric = metric_of(
        judge=judge([0, 1, 3], "asr"),
        ears={"hmm": judge([1, 3, 6], "a"), "net": judge([6, None, 1], "b")},
    )
    found = measured(metric, groups(3))
    assert found["cer"] == pytest.approx(4 / 18)
    assert found["cer_by_hmm"] == pytest.approx(10 / 18)
    assert found["judge_gap_by_hmm"] == pytest.approx(6 / 18)
    assert found["judge_tau_by_hmm"] == 1.0
    assert found["cer_by_net"] == pytest.approx(7 / 12)
    assert found["judge_tau_by_net"] == -1.0
    assert found["judge_tau_groups_by_net"] == 1.0
    assert found["judge_failure_rate"] == pytest.approx(1 / 3)
    assert "judge_tau" not in found, "nobody has the role of held_out_judge"


def test_an_ear_without_a_judge_that_rewards_hears_all_the_same() -> None:
    found = measured(metric_of(ears={"hmm": judge([0, 1], "a")}), groups(2))
    assert found["cer_by_hmm"] == pytest.approx(1 / 12)
    assert not [name for name in found if "tau" in name]


def test_batches_and_ranks_add_up() -> None:
    settings = {
        "judge": judge([0, 1, 3, 0, 1, 3], "asr"),
        "ears": {"hmm": judge([0, 3, 6, 1, 0, 3], "a")},
    }
    first, second = groups(3, 3)
    together = measured(metric_of(**settings), [first, second])
    assert measured(metric_of(**settings), [first], [second]) == pytest.approx(
        together, nan_ok=True
    )

    # As torchmetrics merges the states of two processes.
    parts = [metric_of(**settings), metric_of(**settings)]
    parts[0].update(first)
    parts[1].update(second)
    parts[0].merge_state(parts[1])
    merged = {name: float(value) for name, value in parts[0].compute().items()}
    assert merged == pytest.approx(together, nan_ok=True)


def test_a_sample_is_heard_once_by_each_judge() -> None:
    rewards = judge([0, 1, 3], "asr")
    ear = judge([0, 1, 3], "a")
    measured(
        metric_of(judge=rewards, held_out_judge=judge([0, 1, 3], "b"), ears={"hmm": ear}), groups(3)
    )
    assert rewards.calls == [3]
    assert ear.calls == [3]


def test_rows_add_up_to_the_metrics() -> None:
    evaluation = SpeechEvaluation(
        judge=judge([0, 1, 3, 0, 1, 3], "asr"),
        held_out_judge=judge([0, 3, 6, 3, 3, 3], "other"),
        ears={"hmm": judge([0, 1, 3, 6, 3, 1], "a")},
    )
    panel = JudgePanel()
    metric = evaluation.with_panel(panel).new()
    batch = groups(3, 3)
    found = measured(metric, batch)
    rows = metric.rows_of(panel.with_transcripts(batch))

    for name in ("cer", "held_out_cer", "cer_by_hmm", "judge_tau", "judge_tau_by_hmm"):
        parts = [row.parts.get(name, (0.0, 0.0)) for row in rows]
        value = sum(top for top, _ in parts) / sum(bottom for _, bottom in parts)
        assert found[name] == pytest.approx(value), name
    assert set(rows[0].texts) == {"asr", "other", "hmm"}

    (one,) = compare_rows({"dev": found}, {"dev": found}, {"dev": rows}, {"dev": rows})
    # Nothing but their number keeps the rows from an interval: they add up to the metrics.
    assert one.note == "2 utterances are too few for an interval"
    assert one.differences["judge_tau_by_hmm"].before.value == 0.0


def test_tables_plots_and_columns_show_the_ears() -> None:
    results = {
        "dev": {
            "cer": 0.1,
            "held_out_cer": 0.2,
            "missing_stop_rate": 0.0,
            "cer_by_hmm": 0.3,
            "judge_gap_by_hmm": 0.2,
            "judge_tau": 0.5,
            "judge_tau_groups": 20.0,
            "judge_tau_by_hmm": 0.4,
            "judge_tau_groups_by_hmm": 19.0,
        }
    }
    titles = [column.title for column in columns_of(results)]
    assert titles[-5:] == [
        "cer by hmm",
        "judge tau",
        "judge tau groups",
        "judge tau by hmm",
        "judge tau groups by hmm",
    ]
    assert "tau" in metric_note(results)
    assert "tau" not in metric_note({"dev": {"missing_stop_rate": 0.0}})

    drawn = judge_panels([{"results": results}])
    assert list(drawn["dev: CER (%)"]) == ["cer", "held_out_cer", "cer_by_hmm"]
    assert list(drawn["dev: rank agreement of judges (tau)"]) == ["judge_tau", "judge_tau_by_hmm"]
    assert not is_monitored("val/dev/cer_by_hmm")
    assert evaluation_spec("val/dev/cer_by_hmm").name == "cer_by_hmm"

    records = [{"heard": {"asr": "one", "hmm": "won"}}]
    headings = heard_columns(records, {"judge": "asr", "ears.hmm": "hmm"})
    assert headings == {"asr": "heard by asr", "hmm": "heard by hmm (held out)"}


def test_the_watch_says_when_the_order_is_no_longer_shared() -> None:
    history = {
        "val/dev/judge_tau": [0.6, math.nan, 0.5, 0.35],
        "val/dev/judge_tau_by_hmm": [0.2, 0.4, 0.3, 0.1],
        "val/dev/judge_tau_groups": [50.0, 40.0, 30.0, 1.0],
        "val/dev/cer": [0.5, 0.4, 0.3, 0.2],
    }
    (alert,) = agreement_alerts(history)
    assert alert.startswith("val/dev/judge_tau fell from 0.60 to 0.35: the judge held out orders")
    assert len(agreement_alerts(history, tolerance=0.05)) == 2
    assert agreement_alerts({"val/dev/judge_tau": [math.nan, math.nan]}) == []
    assert agreement_alerts({"val/dev/judge_tau": []}) == []

    (gap,) = gap_alerts({"val/dev/judge_gap_by_hmm": [0.0, 0.2]})
    assert gap.startswith("val/dev/judge_gap_by_hmm opened")


def test_ears_are_held_out_from_the_judge_that_rewards(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        evaluation = SpeechEvaluation(judge=judge([], "asr"), ears={"hmm": judge([], "whatever")})
    assert "nothing is held out" not in caplog.text
    assert [one.name for one in evaluation.judges()] == ["asr", "hmm"]
    assert evaluation.by_role.names == {"judge": "asr", "ears.hmm": "hmm"}

    class Weighted(FakeJudge):
        def __init__(self, name: str) -> None:
            super().__init__([], name=name)
            self.weight = torch.nn.Parameter(torch.ones(2), requires_grad=False)

    with pytest.raises(ValueError, match="'hmm' is held out, but has the weights of 'asr'"):
        SpeechEvaluation(judge=Weighted("asr"), ears={"hmm": Weighted("other")})
    with pytest.raises(ValueError, match="the name 'asr' comes more than once"):
        SpeechEvaluation(judge=judge([], "asr"), ears={"asr": judge([], "other")})
    with pytest.raises(ValueError, match="ears: 'a/b' is no name for metrics to end in"):
        SpeechEvaluation(ears={"a/b": judge([], "other")})


def test_an_ear_may_be_named_that_the_run_knows() -> None:
    panel = JudgePanel({"asr": judge([0, 1], "x"), "sphinx": judge([1, 3], "y")})
    evaluation = SpeechEvaluation(judge="asr", ears={"hmm": "sphinx"}).with_panel(panel)
    found = measured(evaluation.new(), groups(2))
    assert found["judge_tau_by_hmm"] == 1.0
    assert evaluation.by_role.names["ears.hmm"] == "sphinx"

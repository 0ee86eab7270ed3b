from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.judges import CtcJudge, EcapaEncoder, JudgeError
from lightning_audiorl.metrics import AsrMetrics, SpeechEvaluation, SpeechMetrics, gap_alerts
from lightning_audiorl.rewards import SpeechAccuracy
from lightning_audiorl.types import Hypothesis, Utterance
from tests import speech
from tests.judges.fakes import FakeEncoder, FakeJudge, heard, said, sounding, tone


def metrics(
    hypotheses: Sequence[Hypothesis], seconds: float = 0.0, **judges: Any
) -> dict[str, float]:
    metric = SpeechEvaluation(**judges).new()
    metric.update(hypotheses, seconds)
    return {name: float(value) for name, value in metric.compute().items()}


def test_error_rates_of_both_judges_and_their_gap() -> None:
    """12 characters to hear: the reward's judge hears one wrong, the other four."""
    samples = [said("one two", value=heard(0)), said("six ten", value=heard(1))]
    kind, strict = FakeJudge(["one twx", "sixten"]), FakeJudge(["on to", "sx tn"], name="held-out")
    found = metrics(samples, judge=kind, held_out_judge=strict)
    assert found["cer"] == pytest.approx(1 / 12)
    assert found["held_out_cer"] == pytest.approx(4 / 12)
    assert found["judge_gap"] == pytest.approx(3 / 12)
    assert found["num_samples"] == 2


def test_errors_agree_with_the_rewards_count() -> None:
    """Two implementations, jiwer's alignment and rapidfuzz' edits, of the same rate."""
    pairs = [
        ("one two", "won too"),
        ("three", "tree tree"),
        ("nine", ""),
        ("four five", "five four"),
    ]
    for text, transcript in pairs:
        judge = FakeJudge([transcript])
        (value,) = SpeechAccuracy(judge, floor=-9.0).score([said(text)])
        expected = 1.0 if not transcript else 1.0 - value
        assert metrics([said(text)], judge=judge)["cer"] == pytest.approx(expected)


def test_silence_is_wrong_in_every_figure() -> None:
    prompt = sounding(0.5, 400)
    found = metrics(
        [said("one", num_codes=0, prompt=prompt)], judge=FakeJudge([]), encoder=FakeEncoder()
    )
    assert found["cer"] == 1.0
    assert found["similarity"] == -1.0
    assert found["empty_rate"] == 1.0
    assert found["duration_ratio"] == 0.0
    assert math.isnan(found["f0_mean_hz"])


def test_similarities_and_their_gap() -> None:
    prompt = sounding(0.5, 400)
    samples = [said(value=0.5, prompt=prompt), said(value=1.0, prompt=prompt), said(value=0.1)]
    held_out = FakeEncoder("held-out", broken_at=1.0)
    found = metrics(samples, encoder=FakeEncoder(), held_out_encoder=held_out)
    assert found["similarity"] == pytest.approx((1 + math.cos(0.5)) / 2), (
        "the one without a prompt is left out"
    )
    assert found["held_out_similarity"] == pytest.approx(1.0), (
        "so is the one that could not be embedded"
    )
    assert found["similarity_gap"] == pytest.approx(found["similarity"] - 1.0)
    assert found["judge_failure_rate"] == pytest.approx(1 / 3)


def test_a_failed_judgement_is_left_out_and_counted() -> None:
    judge = FakeJudge(["onx", None])
    found = metrics([said("one", value=heard(0)), said("one", value=heard(1))], judge=judge)
    assert found["cer"] == pytest.approx(1 / 3)
    assert found["judge_failure_rate"] == 0.5
    assert math.isnan(found["held_out_cer"])
    assert math.isnan(found["judge_gap"])
    assert math.isnan(metrics([said("one", value=heard(1))], judge=judge)["cer"])


def test_a_sample_that_is_not_finite_ends_no_evaluation() -> None:
    broken = said("one", value=math.nan)
    assert metrics([said("one", waveform=tone(200.0)), broken])["f0_mean_hz"] == pytest.approx(
        200.0, rel=0.01
    )
    assert (
        metrics([said("one", value=heard(0)), broken], judge=FakeJudge(["one"]))[
            "judge_failure_rate"
        ]
        == 0.5
    )


def test_shape_figures() -> None:
    low, high = tone(120.0, 0.4), tone(240.0, 0.8)
    samples = [
        said("one two", waveform=low, num_codes=10, duration_s=0.5),
        said("你好", waveform=high, num_codes=30, duration_s=0.5, lang="zh", finished=False),
        said("", num_codes=2, waveform=torch.zeros(640), duration_s=0.2),
    ]
    found = metrics(samples, seconds=2.56)
    assert found["tokens_per_unit"] == pytest.approx(42 / 4)
    assert found["duration_ratio"] == pytest.approx(1.28 / 1.2)
    assert found["rtf"] == pytest.approx(2.0)
    assert found["missing_stop_rate"] == pytest.approx(1 / 3)
    assert found["empty_rate"] == pytest.approx(1 / 3)
    assert found["f0_mean_hz"] == pytest.approx(180.0, rel=0.01), "the silent one has no pitch"
    assert found["f0_std_semitones"] < 0.2


def test_inserted_text_counts_where_nothing_was_to_be_said() -> None:
    samples = [said("", value=heard(0)), said("one", value=heard(1))]
    assert metrics(samples, judge=FakeJudge(["no", "one"]))["cer"] == pytest.approx(2 / 3)


def test_batches_add_up_and_reset() -> None:
    judge = FakeJudge(["one twx", "one"])
    samples = [said(value=heard(i % 2), id=str(i)) for i in range(5)]
    whole = metrics(samples, 3.0, judge=judge)
    metric = SpeechEvaluation(judge=judge).new()
    metric.update(samples[:2], 1.0)
    metric.update(samples[2:], 2.0)
    parts = {name: float(value) for name, value in metric.compute().items()}
    assert parts == pytest.approx(whole, nan_ok=True)
    metric.reset()
    assert float(metric.compute()["num_samples"]) == 0
    assert math.isnan(float(metric.compute()["duration_ratio"]))


def test_judges_are_placed_by_the_strategy_and_not_by_the_metric() -> None:
    judges = [FakeJudge(["one"]), FakeJudge(["one"], name="b"), FakeEncoder(), FakeEncoder("c")]
    evaluation = SpeechEvaluation(*judges)  # type: ignore[arg-type]
    assert list(evaluation.judges()) == judges
    metric = evaluation.new()
    assert isinstance(metric, SpeechMetrics)
    assert list(metric.children()) == []


def test_judges_of_one_name_would_listen_as_one() -> None:
    with pytest.raises(
        ValueError, match=r"2 judges, but the name 'fake' comes more than once.*set init_args.name"
    ):
        SpeechEvaluation(FakeJudge(["one"]), FakeJudge(["two"]))


def test_a_judge_without_another_one_held_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    SpeechEvaluation(FakeJudge(["one"]), FakeJudge(["one"], name="b"))
    assert caplog.text == ""
    SpeechEvaluation(FakeJudge(["one"]), encoder=FakeEncoder())
    assert [record.getMessage().split("'")[1] for record in caplog.records] == [
        "fake",
        "fake-encoder",
    ]


def test_a_judge_held_out_is_another_one(tmp_path: Path) -> None:
    folders = speech.judge_folders(tmp_path)
    judges = [CtcJudge(str(folders["judge"]), name) for name in ("asr", "held-out")]
    with pytest.raises(
        ValueError, match="'held-out' is held out, but has the weights of 'asr' that rewards"
    ):
        SpeechEvaluation(*judges)
    with torch.no_grad():
        next(judges[1].parameters()).flatten()[0] += 1.0
    SpeechEvaluation(*judges)
    voices = [EcapaEncoder(str(folders["encoder"]), name) for name in ("speaker", "held-out")]
    with pytest.raises(
        ValueError, match="'held-out' is held out, but has the weights of 'speaker'"
    ):
        SpeechEvaluation(encoder=voices[0], held_out_encoder=voices[1])


def test_text_is_refused() -> None:
    with pytest.raises(JudgeError, match="row 'r1' is text"):
        metrics([Hypothesis(Utterance("r1", (), "one", 1.0), "one")])


def test_speech_is_refused_where_text_is_compared() -> None:
    with pytest.raises(ValueError, match=r"the policy speaks; set model\.init_args\.evaluation to"):
        AsrMetrics().update([said("one")])


def test_gap_alerts() -> None:
    nan = math.nan
    history = {
        "val/dev/judge_gap": [0.02, 0.01, 0.09],
        "val/all/judge_gap": [0.02, 0.09, 0.05],
        "val/dev/similarity_gap": [nan, -0.3, -0.1],
        "val/dev/cer": [0.1, 0.5, 0.9],
        "val/new/judge_gap": [nan, nan, 0.9],
        "val/gone/judge_gap": [0.0, 0.9, nan],
        "val/empty/judge_gap": [],
    }
    alerts = gap_alerts(history)
    assert [alert.split()[0] for alert in alerts] == ["val/dev/judge_gap", "val/dev/similarity_gap"]
    assert alerts[0].startswith(
        "val/dev/judge_gap opened from 0.020 to 0.090: the first judge understands more"
    )
    assert "finds the voice closer" in alerts[1]
    assert gap_alerts(history, tolerance=0.3) == []
    assert len(gap_alerts(history, tolerance=0.0)) == 3

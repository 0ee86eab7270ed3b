from __future__ import annotations

import math

import pytest

from lightning_audiorl.metrics import reward_hacking_alerts

UP = [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("val/long/wer", [0.30, 0.31, 0.40]),
        ("correct_rate", [0.90, 0.88, 0.80]),
        ("deletion_rate", [0.02, 0.03, 0.10]),
        ("length_ratio", [1.02, 0.97, 0.70]),
        ("length_ratio", [0.98, 1.0, 1.3]),
        ("val/keyword_f1", [math.nan, 0.9, 0.5]),
        ("wer", [0.30, 0.20, 0.28]),
        ("val/dev/held_out_cer", [0.30, 0.31, 0.40]),
        ("val/dev/held_out_similarity", [0.80, 0.79, 0.75]),
        ("val/dev/missing_stop_rate", [0.00, 0.00, 0.05]),
    ],
)
def test_reward_up_figure_down(key: str, values: list[float]) -> None:
    (alert,) = reward_hacking_alerts(UP, {key: values})
    assert key in alert
    assert f"{values[-1]:.3f}" in alert
    assert "0.300" in alert


@pytest.mark.parametrize(
    ("rewards", "key", "values"),
    [
        (UP, "wer", [0.40, 0.31, 0.30]),
        (UP, "wer", [0.30, 0.30, 0.31]),
        (UP, "length_ratio", [0.7, 0.9, 1.1]),
        (UP, "correct_rate", [0.8, 0.85, 0.9]),
        (UP, "num_utterances", [5, 50, 500]),
        (UP, "wer", [0.1, 0.2, math.nan]),
        ([0.3, 0.2, 0.1], "wer", [0.3, 0.4, 0.5]),
        ([], "wer", []),
        ([0.1], "wer", [0.5]),
    ],
)
def test_nothing_to_say(rewards: list[float], key: str, values: list[float]) -> None:
    assert reward_hacking_alerts(rewards, {key: values}) == []


def test_tolerances() -> None:
    metrics = {"wer": [0.30, 0.31, 0.34], "cer": [0.1, 0.1, 0.2]}
    assert len(reward_hacking_alerts(UP, metrics)) == 2
    assert len(reward_hacking_alerts(UP, metrics, tolerance=0.05)) == 1
    assert reward_hacking_alerts(UP, metrics, reward_tolerance=0.5) == []


def test_unequal_histories() -> None:
    with pytest.raises(ValueError, match="'wer' has 2 values, the reward 3"):
        reward_hacking_alerts(UP, {"wer": [0.1, 0.2]})

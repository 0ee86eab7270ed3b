"""Clips that are too short or too long: by the settings, else by what the policy takes; before the run begins."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_audiorl.data import AsrDataModule, ManifestRows, TtsDataModule
from lightning_audiorl.data.datamodules.predict import PredictionData
from lightning_audiorl.models.asr.fun_asr_nano import FunAsrNanoPolicy, TinyFunAsrNano
from tests.data.fakes import Rows, write_tone

SECONDS = (0.02, 0.2, 0.4)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Rows m:1 to m:3 of 0.02, 0.2 and 0.4 s."""
    lines = []
    for number, seconds in enumerate(SECONDS):
        path = write_tone(tmp_path / f"{number}.wav", seconds)
        lines.append(json.dumps({"audio_filepath": path.name, "text": "a", "duration": seconds}))
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "m.jsonl")


def in_trainer(data: Any, span_s: tuple[float, float] | None) -> Any:
    """The data module as a trainer holds it that runs a policy of this span."""
    policy = SimpleNamespace(clip_span_s=span_s)
    data.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(policy=policy), world_size=1, global_rank=0
    )
    return data


@pytest.mark.fault(
    "Audio",
    "rows shorter than the model takes",
    "min_duration_s refuses them by name before the run, or leaves them out and counts them",
)
def test_min_duration_s(manifest: str, caplog: pytest.LogCaptureFixture) -> None:
    for sets in ({"train": manifest}, {"val": {"short": manifest}}):
        data = AsrDataModule(min_duration_s=0.1, **sets)
        with pytest.raises(ValueError, match=r"row 'm:1' lasts 0\.020 s, less than min_duration_s"):
            data.train_dataloader() if "train" in sets else data.val_dataloader()

    limits: dict[str, Any] = {"min_duration_s": 0.1, "max_duration_s": 0.3, "on_too_long": "skip"}
    data = AsrDataModule(train=manifest, val={"short": manifest}, **limits)
    with caplog.at_level(logging.WARNING):
        assert [row.id for row in data.rows("train/0")] == ["m:2"]
        assert [row.id for row in data.rows("val/short")] == ["m:2"]
    assert data.num_too_short == {"train/0": 1, "val/short": 1}
    assert data.num_too_long == {"train/0": 1, "val/short": 1}
    assert "val/short: left out 1 rows shorter than 0.1 s" in caplog.text

    with pytest.raises(ValueError, match="all 1 rows are shorter than min_duration_s=1"):
        AsrDataModule(val={"r": Rows([0.5])}, min_duration_s=1.0, on_too_long="skip").rows("val/r")


@pytest.mark.fault(
    "Audio",
    "rows longer or shorter than the policy takes, without a setting that says so",
    "found before the first step, in training and validation; settings of one's own go before",
)
def test_the_limits_are_the_policys(manifest: str) -> None:
    data = in_trainer(AsrDataModule(train=manifest), (0.025, 61.4))
    with pytest.raises(
        ValueError, match=r"row 'm:1' lasts 0\.020 s, less than the 0\.025 s that SimpleNamespace"
    ):
        data.train_dataloader()

    data = in_trainer(AsrDataModule(val={"v": manifest}, on_too_long="skip"), (0.025, 0.3))
    assert [row.id for row in data.rows("val/v")] == ["m:2"]
    data = in_trainer(
        AsrDataModule(val={"v": manifest}, on_too_long="skip", max_duration_s=1.0), (0.025, 0.3)
    )
    assert [row.id for row in data.rows("val/v")] == ["m:2", "m:3"]
    assert len(in_trainer(AsrDataModule(val={"v": manifest}), None).rows("val/v")) == 3


@pytest.mark.fault(
    "Audio",
    "a row that the policy does not take among those to be predicted",
    "named before anything is decoded",
)
def test_predictions_look_at_lengths_first(manifest: str) -> None:
    rows = ManifestRows(manifest)
    survey: Any = SimpleNamespace(durations_s=list(SECONDS))
    parts: Any = SimpleNamespace(done=lambda model: [False] * 3)
    data = PredictionData(rows, survey, parts, 0, False, AsrDataModule())
    in_trainer(data, (0.025, 61.4))
    with pytest.raises(ValueError, match=r"row 'm:1' lasts 0\.020 s, less than the 0\.025 s"):
        data.predict_dataloader()


def test_policies_say_what_they_take() -> None:
    tiny = TinyFunAsrNano(width=32, encoder_layers=1, lm_layers=1, heads=2, max_frames=8)
    assert FunAsrNanoPolicy(tiny).clip_span_s == (0.025, 0.48)


@pytest.mark.fault(
    "Audio",
    "length limits that are no numbers, or between which no clip fits",
    "refused where they are set",
)
@pytest.mark.parametrize("low", [-1.0, 0.0, float("nan"), float("inf"), 31.0])
def test_senseless_limits(low: float) -> None:
    for module in (AsrDataModule, TtsDataModule):
        with pytest.raises(ValueError, match="min_duration_s"):
            module(min_duration_s=low, max_duration_s=30.0)

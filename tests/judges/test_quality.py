from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchaudio.models import squim_objective_model

from lightning_audiorl.judges import (
    JudgeError,
    JudgePanel,
    QualityPredictor,
    SquimQuality,
    TorchmetricsQuality,
)
from lightning_audiorl.judges.models import quality
from tests.judges.fakes import said, tone


class Loudness(QualityPredictor):
    """A predictor whose answer is known: the largest sample; it breaks where none is above 0."""

    range = (-1.0, 1.0)

    def __init__(self) -> None:
        super().__init__("loudness", 8000, min_duration_s=0.0)
        self.num_heard = 0

    def predict(self, waveform: Tensor) -> float:
        self.num_heard += 1
        if waveform.max() <= 0:
            raise RuntimeError("nothing above 0")
        return float(waveform.max())


def test_failures_are_none_and_nothing_said_is_the_lowest() -> None:
    predictor = Loudness()
    samples = [said(value=0.5), said(value=0.0), said(num_codes=0)]
    assert predictor.quality(samples) == [0.5, None, -1.0]
    panel = JudgePanel()
    assert panel.ask(predictor, samples) == [0.5, None, -1.0]
    heard = predictor.num_heard
    assert panel.ask(predictor, samples) == [0.5, None, -1.0]
    assert predictor.num_heard == heard


def small_squim() -> torch.nn.Module:
    return squim_objective_model(
        feat_dim=16,
        win_len=16,
        d_model=16,
        nhead=2,
        hidden_dim=8,
        num_blocks=1,
        rnn_type="LSTM",
        chunk_size=8,
    ).eval()


def test_squim_with_local_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small model of the real class: the right output is read, at 16 kHz."""
    monkeypatch.setattr(quality, "squim_objective_base", small_squim)
    model = small_squim()
    file = tmp_path / "squim.pth"
    torch.save(model.state_dict(), file)
    clip = tone(150.0, 1.0)
    for index, measure in enumerate(("stoi", "pesq")):
        predictor = SquimQuality(str(file), measure)  # type: ignore[arg-type]
        with torch.no_grad():
            expected = float(model(predictor.audible(clip, 8000)[None])[index])
        assert predictor.quality([said(waveform=clip)]) == [pytest.approx(expected, rel=1e-5)]
        assert predictor.range[0] <= expected <= predictor.range[1]
    torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(JudgeError, match="not the weights of SQUIM_OBJECTIVE"):
        SquimQuality(str(file))


def test_missing_weights_and_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file nowhere\.pth"):
        SquimQuality("nowhere.pth")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "librosa" else name
    )
    with pytest.raises(ImportError, match="dnsmos wants the package librosa"):
        TorchmetricsQuality("dnsmos")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights at ~/\.torchmetrics/NISQA/nisqa\.tar"):
        TorchmetricsQuality("nisqa")
    folder = tmp_path / ".torchmetrics" / "DNSMOS" / "DNSMOS"
    folder.mkdir(parents=True)
    (folder / "sig_bak_ovr.onnx").touch()
    with pytest.raises(
        FileNotFoundError, match=r"no weights at ~/\.torchmetrics/DNSMOS/DNSMOS/model_v8\.onnx"
    ):
        TorchmetricsQuality("dnsmos")
    with pytest.raises(ValueError, match="expected one of dnsmos, nisqa, got 'mos'"):
        TorchmetricsQuality("mos")  # type: ignore[arg-type]

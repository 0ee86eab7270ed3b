"""DNSMOS from a local file, and predictors of other packages by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_audiorl.judges import DnsmosQuality, PackageQuality
from lightning_audiorl.judges.models import mos
from lightning_audiorl.judges.models.mos import dnsmos_windows
from tests.judges.fakes import said, tone

WINDOW = 144160


class FakeSession:
    """Rates by the loudest sample of a window: signal, background, overall."""

    def __init__(self, path: str, options: Any) -> None:
        self.shape = [None, 5 if "other" in path else WINDOW]

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "input_1", "shape": self.shape})]

    def run(self, names: None, given: dict[str, Any]) -> list[Any]:
        (window,) = given["input_1"]
        assert window.shape == (WINDOW,)
        assert window.dtype == np.float32
        loudest = float(window.max())
        return [[[loudest, 2 * loudest, 3 * loudest]]]


@pytest.fixture
def onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    class Options:
        intra_op_num_threads = 0

    module = type("onnxruntime", (), {"SessionOptions": Options, "InferenceSession": FakeSession})
    monkeypatch.setattr(mos, "find_spec", lambda name: True)
    monkeypatch.setattr(mos, "import_module", lambda name: module)


@pytest.mark.usefixtures("onnx")
def test_dnsmos_rates_windows_a_second_apart(tmp_path: Path) -> None:
    file = tmp_path / "sig_bak_ovr.onnx"
    file.write_text("weights")
    clip = torch.zeros(16000 * 12)
    clip[16000 * 11] = 0.5
    clip[0] = 0.25
    # Windows from 0, 1 and 2 s hear 0.25, nothing and 0.5.
    assert dnsmos_windows(len(clip)) == (1, [0, 16000, 32000])
    by_hand = [1.60915514 * x - 0.13166888 * x * x - 0.39604546 for x in (0.5, 0.0, 1.0)]
    dnsmos = DnsmosQuality(str(file), "background")
    assert dnsmos.predict(clip) == pytest.approx(sum(by_hand) / 3, abs=1e-6)
    again = pickle.loads(pickle.dumps(dnsmos))
    assert again.predict(clip) == dnsmos.predict(clip)
    assert dnsmos.name == "dnsmos_background"
    # A short clip is doubled, not padded.
    assert dnsmos_windows(16000 * 3) == (4, [0, 16000, 32000])


@pytest.mark.usefixtures("onnx")
def test_what_dnsmos_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"DnsmosQuality.weights: no file nowhere.*speechmos"
    ):
        DnsmosQuality("nowhere.onnx")
    other = tmp_path / "other.onnx"
    other.write_text("weights")
    with pytest.raises(ValueError, match="expected clips of 144160 samples; give sig_bak"):
        DnsmosQuality(str(other))
    with pytest.raises(
        ValueError, match=r"DnsmosQuality.scale: expected one of signal, background"
    ):
        DnsmosQuality(str(other), "p808")  # type: ignore[arg-type]
    monkeypatch.setattr(mos, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"onnxruntime is not installed.*\[judges\]"):
        DnsmosQuality(str(other))


def test_the_real_dnsmos() -> None:
    pytest.importorskip("onnxruntime")
    package = mos.find_spec("speechmos")
    if package is None or package.origin is None:
        pytest.skip("speechmos is not installed")
    file = Path(package.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    noise = 0.1 * torch.randn(16000 * 9, generator=torch.Generator().manual_seed(0))
    samples = [said(waveform=clip) for clip in (tone(120.0, 4.0), noise)]
    voiced, noisy = DnsmosQuality(str(file)).quality(samples)
    assert voiced is not None
    assert noisy is not None
    assert 1.0 < noisy < voiced < 5.0


PREDICTOR = """
import numpy

class Mos:
    def __init__(self, scale=1.0):
        self.scale = scale

    def predict(self, data, sr):
        assert sr == 16000
        assert isinstance(data, numpy.ndarray)
        return numpy.array([self.scale * abs(data).max()])

def loud(waveform):
    return {"nothing": 1}["something"]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_mos_package.py").write_text(PREDICTOR)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("package")
def test_a_predictor_of_another_package() -> None:
    mos_of = PackageQuality(
        "toy_mos_package.Mos",
        {"scale": 2.0},
        waveform="data",
        sample_rate="sr",
        range=[0, 3],
        as_numpy=True,
    )
    assert (mos_of.name, mos_of.range) == ("toy_mos_package", (0.0, 3.0))
    (rating,) = mos_of.quality([said(waveform=tone(120.0))])
    assert rating is not None
    assert 0.5 < rating < 1.5
    with pytest.raises(ValueError, match="makes, a Mos, has no rate"):
        PackageQuality("toy_mos_package.Mos", ask="rate")
    with pytest.raises(ImportError, match="toy_mos_package has no Other"):
        PackageQuality("toy_mos_package.Other")


@pytest.mark.parametrize("make", ["no_such_package_utmos.create_model", "create_model"])
def test_a_missing_package_is_named(make: str) -> None:
    with pytest.raises(ImportError, match=r"PackageQuality.make: the package .* is not installed"):
        PackageQuality(make)

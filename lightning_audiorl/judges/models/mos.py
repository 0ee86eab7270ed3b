"""Predicted opinion scores: DNSMOS from a local file, and predictors of any package by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_audiorl.judges.base import JudgeError
from lightning_audiorl.judges.models.quality import QualityPredictor

#: Samples at 16 kHz that DNSMOS rates at once, 9.01 s; windows move by a second.
_WINDOW = 144160
_RATE_HZ = 16000
# From the network's three outputs to opinion scores: coefficients of the challenge's recipe, highest power first.
_POLYNOMIALS = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
Scale = Literal["overall", "signal", "background"]


def dnsmos_windows(num_samples: int) -> tuple[int, list[int]]:
    """How often a clip at 16 kHz is repeated by DNSMOS, and where its windows begin.

    A clip is doubled until it is as long as a window. Windows begin a second apart, and what follows the last whole one
    is not rated.

    Example:
        >>> dnsmos_windows(16000 * 10), dnsmos_windows(16000 * 5)
        ((1, [0]), (2, [0]))
    """
    times = 1
    while times * num_samples < _WINDOW:
        times *= 2
    num_seconds = times * num_samples // _RATE_HZ
    num_windows = int(num_seconds - _WINDOW / _RATE_HZ) + 1
    return times, [second * _RATE_HZ for second in range(num_windows)]


class DnsmosQuality(QualityPredictor):
    """DNSMOS P.835 (arXiv:2110.01763): how people would rate the noise in a clip, about 1 to 5.

    It was made for calls behind noise suppression and not for synthesis: it hears hiss and clicks, and no wrong word.
    It rates near silence above noise; speech that says nothing gets the lowest value here.

    Args:
        weights: its file ``sig_bak_ovr.onnx``, such as ``speechmos/dnsmos_models/sig_bak_ovr.onnx`` in the package
            speechmos (MIT). Nothing is downloaded.
        scale: the overall rating, or that of the voice or of the background alone.
        name: see Judge.

    Raises:
        FileNotFoundError: no such file.
        ImportError: where the extra ``judges`` is not installed.
        JudgeError: for a file that is another model.
    """

    range = (1.0, 5.0)

    def __init__(self, weights: str, scale: Scale = "overall", name: str | None = None) -> None:
        if scale not in _POLYNOMIALS:
            raise ValueError(
                f"DnsmosQuality.scale: expected one of {', '.join(_POLYNOMIALS)}, got {scale!r}"
            )
        if not Path(weights).expanduser().is_file():
            raise FileNotFoundError(
                f"DnsmosQuality.weights: no file {weights}; sig_bak_ovr.onnx is in the package speechmos (pip install "
                "--no-deps speechmos), below dnsmos_models"
            )
        if find_spec("onnxruntime") is None:
            raise ImportError(
                "DnsmosQuality: onnxruntime is not installed: pip install 'lightning-audiorl[judges]'"
            )

        super().__init__(name or f"dnsmos_{scale}", _RATE_HZ, batch_size=1)
        self.weights = weights
        self.scale = scale
        self._session: Any = self._new_session()

    def _new_session(self) -> Any:
        onnx = import_module("onnxruntime")
        options = onnx.SessionOptions()
        # As many threads as the run has, no more: others train on the same cores.
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnx.InferenceSession(str(Path(self.weights).expanduser()), options)

        shapes = [tensor.shape for tensor in session.get_inputs()]
        if len(shapes) != 1 or shapes[0][-1] != _WINDOW or len(shapes[0]) != 2:
            raise JudgeError(
                f"{self.weights}: a model with inputs {shapes}, expected clips of {_WINDOW} samples; give "
                "sig_bak_ovr.onnx"
            )
        return session

    def __getstate__(self) -> dict[str, Any]:
        # A session does not travel to another process, which makes its own.
        return self.__dict__ | {"_session": None}

    def predict(self, waveform: Tensor) -> float:
        if self._session is None:
            self._session = self._new_session()
        times, firsts = dnsmos_windows(len(waveform))
        clip = waveform.cpu().clamp(-1, 1).repeat(times)

        name = self._session.get_inputs()[0].name
        place = ("signal", "background", "overall").index(self.scale)
        square, linear, constant = _POLYNOMIALS[self.scale]
        ratings = []
        for first in firsts:
            window = clip[None, first : first + _WINDOW]
            raw = float(self._session.run(None, {name: window.numpy()})[0][0][place])
            ratings.append(square * raw * raw + linear * raw + constant)
        return sum(ratings) / len(ratings)


class PackageQuality(QualityPredictor):
    """A predictor of another package, by the names of what makes it and what asks it.

    UTMOSv2 (arXiv:2409.09305; git+https://github.com/sarulab-speech/UTMOSv2, MIT), with its weights on the machine::

        class_path: PackageQuality
        init_args:
          make: utmosv2.create_model
          arguments: {pretrained: true, checkpoint_path: models/utmosv2.pth}
          ask: predict
          waveform: data
          sample_rate: sr

    Args:
        make: class or function, with its module; called once.
        arguments: of it.
        ask: the method of what it makes that is called with each clip; "" calls the object itself.
        waveform: by which name it takes the clip, float32 [num_samples]; "" gives it as the first argument.
        sample_rate: by which name it takes the rate; "" leaves that out.
        sample_rate_hz: that it is given.
        range: lowest and highest value.
        as_numpy: give an array in place of a tensor.
        name: see Judge; by default the package.

    Raises:
        ImportError: where the package is missing, or has nothing of that name.
    """

    def __init__(
        self,
        make: str,
        arguments: dict[str, Any] | None = None,
        ask: str = "predict",
        waveform: str = "",
        sample_rate: str = "",
        sample_rate_hz: int = 16000,
        range: Sequence[float] = (1.0, 5.0),
        as_numpy: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name or make.partition(".")[0], sample_rate_hz, batch_size=1)
        low, high = range
        self.range = (float(low), float(high))
        self.waveform = waveform
        self.sample_rate = sample_rate
        self.as_numpy = as_numpy

        predictor = _named(make)(**arguments or {})
        # A module is a part of the judge, and is placed with it; anything else is asked as it is.
        self.predictor = predictor
        self.ask = ask
        if ask and not hasattr(predictor, ask):
            raise ValueError(
                f"PackageQuality.ask: what {make} makes, a {type(predictor).__name__}, has no {ask}"
            )
        self.freeze()

    def predict(self, waveform: Tensor) -> float:
        clip = waveform.cpu().numpy() if self.as_numpy else waveform
        named: dict[str, Any] = {self.waveform: clip} if self.waveform else {}
        if self.sample_rate:
            named[self.sample_rate] = self.sample_rate_hz
        asked = getattr(self.predictor, self.ask) if self.ask else self.predictor

        answer = asked(**named) if self.waveform else asked(clip, **named)
        value = float(torch.as_tensor(answer).reshape(-1).double().mean())
        if not math.isfinite(value):
            raise JudgeError(f"'{self.name}' predicts {value}")
        return value


def _named(path: str) -> Any:
    """What a dotted name stands for.

    Raises:
        ImportError: where there is none.
    """
    module, _, attribute = path.rpartition(".")
    package = path.partition(".")[0]
    if not module or find_spec(package) is None:
        raise ImportError(
            f"PackageQuality.make: the package {package} of {path} is not installed; install it, with its weights, or "
            "take another predictor"
        )
    found = getattr(import_module(module), attribute, None)
    if found is None:
        raise ImportError(f"PackageQuality.make: {module} has no {attribute}")
    return found

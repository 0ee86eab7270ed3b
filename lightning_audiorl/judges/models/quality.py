"""Named predictors of speech quality, for those who have their weights on the machine. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchaudio.models import squim_objective_base

from lightning_audiorl.judges.base import Judge, JudgeError, speech_of
from lightning_audiorl.judges.silence import says_nothing
from lightning_audiorl.types import Hypothesis
from lightning_audiorl.weights.checkpoints import read_tensors
from lightning_audiorl.weights.tensors import WeightsError, require_fit


class QualityPredictor(Judge[float | None], ABC):
    """Predicts how good speech sounds, without a reference.

    Attributes:
        range: lowest and highest value, about; speech that says nothing gets the lowest.

    Example:
        >>> from lightning_audiorl.types import Speech, Utterance
        >>> class Level(QualityPredictor):
        ...     range = (0.0, 1.0)
        ...
        ...     def predict(self, waveform):
        ...         return float(waveform.square().mean().sqrt())
        >>> speech = Speech(torch.tensor([0.25, -0.25]).repeat(4000), 8000, torch.zeros(25))
        >>> sample = Hypothesis(Utterance("row", (), "one", 1.0), "", speech=speech)
        >>> Level("level", sample_rate_hz=8000).quality([sample])
        [0.25]
    """

    range: tuple[float, float]

    @abstractmethod
    def predict(self, waveform: Tensor) -> float:
        """The quality of one clip [num_samples] at ``sample_rate_hz``."""

    def answers(self, hypotheses: Sequence[Hypothesis]) -> list[float | None]:
        """The values of `quality`."""
        return self.quality(hypotheses)

    @torch.no_grad()
    def quality(self, hypotheses: Sequence[Hypothesis]) -> list[float | None]:
        """One value per sample, higher is better; None where the predictor failed.

        Raises:
            JudgeError: for a hypothesis without speech; for a `range` that is none.
        """
        self._check_range()
        speeches = [speech_of(hypothesis, self.name) for hypothesis in hypotheses]
        spoken = [i for i, speech in enumerate(speeches) if not says_nothing(speech)]

        def listen(index: list[int]) -> list[float]:
            chosen = [speeches[i] for i in index]
            clips = [self.audible(speech.waveform, speech.sample_rate_hz) for speech in chosen]
            values = [self.predict(clip) for clip in clips]
            if not all(map(math.isfinite, values)):
                raise JudgeError(f"the predicted quality is {values}; expected finite numbers")
            return values

        values = self.each(spoken, listen, [hypotheses[i].row.id for i in spoken])
        by_sample = dict(zip(spoken, values, strict=True))
        return [by_sample.get(i, self.range[0]) for i in range(len(speeches))]

    def _check_range(self) -> None:
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise JudgeError(
                f"{type(self).__name__}.range: want two finite numbers, the lower one first, got {self.range}"
            )


class SquimQuality(QualityPredictor):
    """TorchAudio-SQUIM's estimate of an intrusive measure (arXiv:2304.01448).

    Args:
        weights: the file that `torchaudio.pipelines.SQUIM_OBJECTIVE` uses, ``squim_objective_dns2020.pth``; read as
            plain tensors.
        measure: "pesq" (1 to 4.64) or "stoi" (0 to 1).
        name: see Judge.
    """

    def __init__(
        self,
        weights: str,
        measure: Literal["pesq", "stoi"] = "pesq",
        name: str | None = None,
    ) -> None:
        ranges = {"stoi": (0.0, 1.0), "pesq": (1.0, 4.64)}
        if measure not in ranges:
            raise ValueError(
                f"SquimQuality.measure: expected one of {', '.join(ranges)}, got {measure!r}"
            )
        if not Path(weights).expanduser().is_file():
            raise FileNotFoundError(
                f"SquimQuality.weights: no file {weights}; see torchaudio.pipelines.SQUIM_OBJECTIVE"
            )

        # One clip per pass: the model has no mask, padding would count as speech.
        super().__init__(name or f"squim_{measure}", 16000, batch_size=1, min_duration_s=0.5)
        self.model = squim_objective_base()
        tensors = read_tensors(Path(weights).expanduser())
        try:
            require_fit(self.model, tensors, weights)
        except WeightsError as error:
            raise JudgeError(f"{weights}: not the weights of SQUIM_OBJECTIVE: {error}") from error
        self.model.load_state_dict(tensors)
        self.range = ranges[measure]
        # The model's outputs are (stoi, pesq, si-sdr): `ranges` has their order.
        self._output = list(ranges).index(measure)
        self.freeze()

    def predict(self, waveform: Tensor) -> float:
        return float(self.model(waveform[None])[self._output])


#: Without one of these torchmetrics goes to the network.
_DNSMOS_FILES = tuple(
    f"DNSMOS/{name}.onnx"
    for name in ("DNSMOS/model_v8", "DNSMOS/sig_bak_ovr", "pDNSMOS/sig_bak_ovr")
)


class TorchmetricsQuality(QualityPredictor):
    """A predicted mean opinion score of torchmetrics, about 1 to 5.

    Args:
        predictor: "dnsmos" (overall score; wants librosa and onnxruntime) or "nisqa" (wants librosa).
        name: see Judge; by default the predictor's.

    Raises:
        ImportError, FileNotFoundError: when a package, or the weights where torchmetrics looks for them, are missing.
    """

    range = (1.0, 5.0)

    def __init__(self, predictor: Literal["dnsmos", "nisqa"], name: str | None = None) -> None:
        needs = {
            "dnsmos": (("librosa", "onnxruntime", "requests"), _DNSMOS_FILES),
            "nisqa": (("librosa", "requests"), ("NISQA/nisqa.tar",)),
        }
        if predictor not in needs:
            raise ValueError(
                f"TorchmetricsQuality.predictor: expected one of {', '.join(needs)}, got {predictor!r}"
            )

        # Checked here, since torchmetrics would go to the network for weights at the first step.
        packages, files = needs[predictor]
        if missing := [
            package for package in packages if importlib.util.find_spec(package) is None
        ]:
            raise ImportError(
                f"TorchmetricsQuality: {predictor} wants the package {missing[0]}; install it"
            )
        for file in files:
            if not (Path("~/.torchmetrics").expanduser() / file).is_file():
                raise FileNotFoundError(
                    f"TorchmetricsQuality: no weights at ~/.torchmetrics/{file}; put them there"
                )

        super().__init__(name or predictor, 16000, batch_size=1, min_duration_s=1.0)
        self.predictor = predictor

    def predict(self, waveform: Tensor) -> float:
        from torchmetrics.functional.audio import dnsmos, nisqa

        if self.predictor == "dnsmos":
            return float(
                dnsmos.deep_noise_suppression_mean_opinion_score(
                    waveform, self.sample_rate_hz, False
                )[-1]
            )
        return float(
            nisqa.non_intrusive_speech_quality_assessment(waveform, self.sample_rate_hz)[0]
        )

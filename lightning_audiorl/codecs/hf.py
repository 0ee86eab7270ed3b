"""Codecs of transformers with one codebook: Xcodec2 (Llasa), NeuCodec (NeuTTS), and what AutoModel serves beside them.

Upstream pads a batch in ways that reach into its shorter rows, and NeuCodec's mask for them counts samples of another
rate (37 codes for half a second, where 25 are right). So clips are encoded one by one, and rows of codes are decoded
together where they are equally long.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioTokenization,
    NeuCodecFeatureExtractor,
    NeuCodecModel,
    Xcodec2FeatureExtractor,
    Xcodec2Model,
)

from lightning_audiorl import outline
from lightning_audiorl.codecs.base import Codec, CodecError, SpeakerCondition
from lightning_audiorl.weights.families import read_config, require_family, what_it_is
from lightning_audiorl.weights.pretrained import load_pretrained


@dataclass(frozen=True)
class Declared:
    """What a configuration says of its codec; ``hop`` is in samples at ``sample_rate_hz`` for one code."""

    sample_rate_hz: int
    hop: int
    cardinality: int
    num_codebooks: int = 1
    output_sample_rate_hz: int | None = None


def locate(init_from: str) -> str:
    """The folder or hub id that ``init_from`` names.

    Raises:
        FileNotFoundError: for a path that looks local and is not there, or a folder without config.json.

    Example:
        >>> locate("HKUSTAudio/xcodec2")
        'HKUSTAudio/xcodec2'
    """
    path = Path(init_from).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"codec: folder {init_from} has no config.json; give a Hugging Face folder"
            )
        return str(path)
    if init_from.startswith((".", "/", "~")) or init_from.count("/") != 1:
        raise FileNotFoundError(f"codec: no folder {init_from} (a hub id has the form owner/name)")
    return init_from


class AudioTokenizationCodec(Codec):
    """Any model of AutoModelForAudioTokenization that makes one code per frame: a DAC with one codebook, for one.

    Weights are safetensors; no remote code runs.

    Args:
        init_from: a Hugging Face folder or hub id, with its feature extractor.
        revision: hub revision.

    Raises:
        FileNotFoundError: see `locate`.
        CodecError: for a model of another kind, one without discrete codes, or one with several codebooks.
    """

    model_class: ClassVar[Any] = AutoModelForAudioTokenization
    extractor_class: ClassVar[Any] = AutoFeatureExtractor
    #: The ``model_type`` that a configuration must have; "" takes any.
    model_type: ClassVar[str] = ""

    def __init__(self, init_from: str, revision: str | None = None) -> None:
        source = locate(init_from)
        config = read_config(source, revision)
        if self.model_type and config.model_type != self.model_type:
            raise CodecError(
                f"{type(self).__name__}: {init_from} is a model of type {config.model_type!r}, expected "
                f"{self.model_type!r}; it is {what_it_is(config.to_dict())}"
            )

        require_family(config, self.model_class, type(self).__name__, source)
        declared = self.declared(config)
        super().__init__(
            declared.sample_rate_hz,
            declared.sample_rate_hz / declared.hop,
            declared.cardinality,
            declared.num_codebooks,
            declared.output_sample_rate_hz,
        )
        self.require_one_codebook()

        if outline.wanted():
            self.model = outline.from_config(self.model_class, config)
        else:
            self.model, self.extractor = load_pretrained(
                self.model_class, self.extractor_class, source, type(self).__name__, revision
            )
        self.freeze()

    @classmethod
    def declared(cls, config: Any) -> Declared:
        """Rates and sizes of a configuration.

        Raises:
            CodecError: naming what the configuration does not say.
        """

        def first(*names: str) -> int:
            for name in names:
                value = getattr(config, name, None)
                if isinstance(value, int):
                    return value
            raise CodecError(
                f"{cls.__name__}: the configuration of a {config.model_type!r} has no {' or '.join(names)}, so it is "
                "no codec with a codebook of a known size and rate; Xcodec2 and NeuCodec have classes of their own, "
                "for another one write a subclass of Codec"
            )

        return Declared(
            first("sampling_rate", "sample_rate"),
            first("hop_length"),
            first("codebook_size"),
            first("n_codebooks", "num_quantizers"),
        )

    def _encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        expected = self.num_codes(num_samples).tolist()
        rows = []
        for wave, num, length in zip(waveform, num_samples.tolist(), expected, strict=True):
            # A clip too short for a code is not shown to the model at all.
            if length:
                rows.append(self._codes(wave[:num]))
            else:
                rows.append(wave.new_zeros(0, dtype=torch.long))

        if not rows:
            return waveform.new_zeros(0, 0, dtype=torch.long), num_samples.new_zeros(
                0, dtype=torch.long
            )
        lengths = torch.tensor([len(row) for row in rows], device=waveform.device, dtype=torch.long)
        return pad_sequence(rows, batch_first=True), lengths

    def _codes(self, wave: Tensor) -> Tensor:
        """[T] codes of one clip [S]."""
        inputs = self.extractor(
            wave.cpu().numpy(), sampling_rate=self.sample_rate_hz, return_tensors="pt"
        )

        # Extractors give more than some models take, such as a mask.
        known = inspect.signature(self.model.encode).parameters
        given = {name: value.to(wave.device) for name, value in inputs.items() if name in known}
        codes: Tensor = self.model.encode(**given).audio_codes
        if codes.shape[:2] != (1, 1):
            raise CodecError(
                f"{type(self).__name__}: expected codes [1, 1, T] of one clip, got {list(codes.shape)}"
            )
        return codes[0, 0].long()

    def _decode(
        self,
        codes: Tensor,
        lengths: Tensor,
        condition: SpeakerCondition | None,
    ) -> tuple[Tensor, Tensor]:
        per_code = self.output_samples_per_code
        longest = int(lengths.max()) if len(lengths) else 0
        waveform = torch.zeros(len(codes), longest * per_code, device=codes.device)
        for length in sorted({int(length) for length in lengths if length}):
            index = (lengths == length).nonzero()[:, 0]
            decoded = self.model.decode(audio_codes=codes[index, None, :length])
            values = decoded.audio_values.flatten(1).float()

            # Upstream may give some samples more or less than declared, but less than a code's worth.
            wanted = length * per_code
            if abs(values.shape[1] - wanted) >= per_code:
                name = type(self).__name__
                raise CodecError(
                    f"{name}: {length} codes became {values.shape[1]} samples, but {self.frame_rate_hz} "
                    f"codes per second at {self.output_sample_rate_hz} Hz make {wanted}; correct the declared rates"
                )
            num = min(wanted, values.shape[1])
            waveform[index, :num] = values[:, :num]
        return waveform, lengths * per_code


class Xcodec2Codec(AudioTokenizationCodec):
    """Xcodec2, the codec of Llasa (arXiv 2502.04128): 50 codes per second of 65,536, 16 kHz in and out.

    A clip of n samples has n // 320 + 1 codes: upstream adds one sample before it fills up the last code.
    """

    model_class: ClassVar[Any] = Xcodec2Model
    extractor_class: ClassVar[Any] = Xcodec2FeatureExtractor
    model_type: ClassVar[str] = "xcodec2"

    @classmethod
    def declared(cls, config: Any) -> Declared:
        return Declared(config.sampling_rate, config.hop_length, prod(config.quantization_levels))

    def num_codes(self, num_samples: Tensor) -> Tensor:
        return torch.where(num_samples > 0, num_samples // self.samples_per_code + 1, 0)


class NeuCodecCodec(AudioTokenizationCodec):
    """NeuCodec, the codec of NeuTTS: 50 codes per second of 65,536, 16 kHz in and 24 kHz out.

    A clip of n samples has n // 320 codes: its semantic encoder leaves out a last, partial frame.
    """

    model_class: ClassVar[Any] = NeuCodecModel
    extractor_class: ClassVar[Any] = NeuCodecFeatureExtractor
    model_type: ClassVar[str] = "neucodec"

    @classmethod
    def declared(cls, config: Any) -> Declared:
        return Declared(
            config.input_sampling_rate,
            config.encoder_hop_length,
            prod(config.quantization_levels),
            output_sample_rate_hz=config.output_sampling_rate,
        )

    def num_codes(self, num_samples: Tensor) -> Tensor:
        return num_samples // self.samples_per_code

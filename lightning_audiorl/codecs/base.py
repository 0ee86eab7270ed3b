"""What speech synthesis knows of a codec: waveform -> codes -> waveform, and the rates at which that happens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch
from torch import Tensor, nn

from lightning_audiorl.checks import check_count
from lightning_audiorl.fields import Batched, Shape, Shared
from lightning_audiorl.types import MAX_AMPLITUDE

#: How far, in samples, the samples of a code may be from a whole number, for frame rates that have no finite fraction.
_ROUNDING = 0.01


class CodecError(ValueError):
    """A codec that does not keep what it declares, or input that it cannot take."""


@dataclass(frozen=True)
class SpeakerCondition(Batched):
    """The speaker prompts of B rows, for codecs whose decoder wants more than codes.

    Rows may be selected repeatedly: the G samples of a prompt share it.

    Args:
        waveform: [B, S] float32, zeros after a prompt's end.
        num_samples: [B] samples of each prompt; 0 where a row has none.
        sample_rate_hz: of the waveform.
        codes: [B, T] codes of the prompts, where they are at hand.
        lengths: [B] number of those codes.
        embedding: [B, D] speaker embeddings, where the user has an encoder.

    Example:
        >>> condition = SpeakerCondition(torch.zeros(2, 160), torch.tensor([160, 80]), 16000)
        >>> condition.select([1, 1, 0]).num_samples
        tensor([ 80,  80, 160])
    """

    waveform: Annotated[Tensor, Shape("B S")]
    num_samples: Annotated[Tensor, Shape("B")]
    sample_rate_hz: Shared[int]
    codes: Annotated[Tensor | None, Shape("B T")] = None
    lengths: Annotated[Tensor | None, Shape("B")] = None
    embedding: Annotated[Tensor | None, Shape("B D")] = None


def valid(num: Tensor, longest: int) -> Tensor:
    """[B, longest] bool: True on the first ``num[b]`` places of row b.

    Example:
        >>> valid(torch.tensor([2, 0]), 3)
        tensor([[ True,  True, False],
                [False, False, False]])
    """
    return torch.arange(longest, device=num.device) < num[:, None]


class Codec(nn.Module, ABC):
    """Speech as a sequence of discrete codes, one codebook (or several, which a policy refuses).

    A subclass writes `_encode` and `_decode`; the public methods run them without gradients, check what goes in and
    what comes out (shapes, types, lengths, codes in range, the scale of samples), and blank what lies behind a row's
    end. A single row with NaN is left as it is: judges count it as a failure. A row alone gives what it gives in a
    batch. Codecs are frozen: no parameter trains, `train()` leaves them in eval mode; only a codec's own training makes
    an exception.

    Args:
        sample_rate_hz: of the waveform that `encode` reads.
        frame_rate_hz: codes per second.
        cardinality: codes are 0 to cardinality - 1.
        num_codebooks: codes per frame.
        output_sample_rate_hz: of the waveform that `decode` gives; None is that of the input.

    Attributes:
        output_slack: samples by which a decoded row may be longer or shorter than its codes make it; 0 unless a
            subclass says otherwise.

    Raises:
        CodecError: where a code would not stand for a whole number of samples; 24,000 samples and 16.67 codes per
            second (1,440 samples) do.

    Example:
        A codec that keeps the sign of each 10 ms:

        >>> class Signs(Codec):
        ...     def _encode(self, waveform, num_samples):
        ...         lengths = self.num_codes(num_samples)
        ...         padded = torch.nn.functional.pad(waveform, (0, -waveform.shape[1] % self.samples_per_code))
        ...         return (padded.unfold(1, self.samples_per_code, self.samples_per_code).sum(-1) > 0).long(), lengths
        ...
        ...     def _decode(self, codes, lengths, condition):
        ...         signs = (2.0 * codes - 1.0).repeat_interleave(self.output_samples_per_code, dim=1)
        ...         return signs, lengths * self.output_samples_per_code
        >>> codec = Signs(sample_rate_hz=16000, frame_rate_hz=100, cardinality=2)
        >>> clips = torch.ones(2, 320)
        >>> clips[0] = -1.0
        >>> codec.encode(clips, torch.tensor([320, 160]))
        (tensor([[0, 0],
                [1, 0]]), tensor([2, 1]))
    """

    output_slack: ClassVar[int] = 0

    def __init__(
        self,
        sample_rate_hz: int,
        frame_rate_hz: float,
        cardinality: int,
        num_codebooks: int = 1,
        output_sample_rate_hz: int | None = None,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        check_count(f"{kind}.cardinality", cardinality, at_least=1)
        check_count(f"{kind}.num_codebooks", num_codebooks, at_least=1)
        self.sample_rate_hz = sample_rate_hz
        self.frame_rate_hz = frame_rate_hz
        self.cardinality = cardinality
        self.num_codebooks = num_codebooks
        self.output_sample_rate_hz = output_sample_rate_hz or sample_rate_hz
        for rate in (self.sample_rate_hz, self.output_sample_rate_hz):
            self._check_hop(rate)

    def _check_hop(self, rate_hz: int) -> None:
        """See that a code is a whole number of samples, but for the rounding of its rate."""
        rate = self.frame_rate_hz
        samples = rate_hz / rate if math.isfinite(rate) and rate > 0 else 0.0
        if round(samples) < 1 or abs(samples - round(samples)) > _ROUNDING:
            raise CodecError(
                f"{type(self).__name__}: {rate_hz} samples and {rate} codes per second: a code would not be "
                "a whole number of samples; choose a frame rate that divides the sample rate"
            )

    @property
    def samples_per_code(self) -> int:
        """Samples that `encode` reads for one code."""
        return round(self.sample_rate_hz / self.frame_rate_hz)

    @property
    def output_samples_per_code(self) -> int:
        """Samples that `decode` gives for one code."""
        return round(self.output_sample_rate_hz / self.frame_rate_hz)

    def num_codes(self, num_samples: Tensor) -> Tensor:
        """[B] codes that `encode` makes of clips of ``num_samples`` [B]; a last, partial code counts as one."""
        return -(-num_samples // self.samples_per_code)

    @torch.no_grad()
    def encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of B clips.

        Args:
            waveform: [B, S] at ``sample_rate_hz``; what lies behind a clip's end is not read.
            num_samples: [B].

        Returns:
            codes [B, T] int64 (0 behind a row's end) and lengths [B]. A clip of 0 samples has 0 codes.

        Raises:
            CodecError: for several codebooks; for a waveform with NaN, or of another scale; where the codes are not
                what was declared: their shape, type, range, or number at the declared frame rate.
        """
        self.require_one_codebook()
        if (
            waveform.ndim != 2
            or num_samples.shape != waveform.shape[:1]
            or (len(num_samples) and num_samples.max() > waveform.shape[1])
        ):
            raise CodecError(
                f"{type(self).__name__}.encode: want waveform [B, S] and num_samples [B] of at most S, got "
                f"{list(waveform.shape)} and {num_samples.tolist()}"
            )

        # What lies behind a clip's end must not reach its codes, and the rest of the batch must not reach its shape.
        inside = valid(num_samples, waveform.shape[1])
        waveform = waveform.float().masked_fill(~inside, 0.0)
        self._check_input(waveform)
        codes, lengths = self._encode(waveform, num_samples)
        self._check_rows("encode", "codes", codes, lengths, len(waveform))
        self.check_lengths(num_samples, lengths)
        if codes.is_floating_point() or codes.is_complex():
            raise CodecError(
                f"{type(self).__name__}.encode: codes came out as {codes.dtype}, expected whole numbers"
            )

        longest = int(lengths.max()) if len(lengths) else 0
        codes = codes[:, :longest].long()
        codes = codes.masked_fill(~valid(lengths, codes.shape[1]), 0)
        self._check_codes("encode", codes, "Is the declared cardinality that of the codebook?")
        return codes, lengths

    @torch.no_grad()
    def decode(
        self,
        codes: Tensor,
        lengths: Tensor,
        condition: SpeakerCondition | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The waveforms of B rows of codes.

        Args:
            codes: [B, T] integers below ``cardinality``; those behind a row's end are not read.
            lengths: [B] codes of each row; 0 is allowed.
            condition: the speaker prompts; most codecs do without.

        Returns:
            waveform [B, S] float32 at ``output_sample_rate_hz`` (zeros behind a row's end) and num_samples [B].

        Raises:
            CodecError: for several codebooks; for codes that the codec does not have; where the waveform is not what
                was declared: its shape, type, scale, or number of samples at the declared rates.
        """
        self.require_one_codebook()
        if (
            codes.ndim != 2
            or lengths.shape != codes.shape[:1]
            or (len(lengths) and lengths.max() > codes.shape[1])
        ):
            raise CodecError(
                f"{type(self).__name__}.decode: want codes [B, T] and lengths [B] of at most T, got "
                f"{list(codes.shape)} and {lengths.tolist()}"
            )
        if codes.is_floating_point():
            raise CodecError(
                f"{type(self).__name__}.decode: want codes in whole numbers, got {codes.dtype}"
            )

        codes = codes.masked_fill(~valid(lengths, codes.shape[1]), 0)
        self._check_codes(
            "decode", codes, "Are the language model's speech tokens those of this codec?"
        )

        waveform, num_samples = self._decode(codes, lengths, condition)
        self._check_rows("decode", "waveform", waveform, num_samples, len(codes))
        self._check_output_lengths(lengths, num_samples)
        if not waveform.is_floating_point():
            raise CodecError(
                f"{type(self).__name__}.decode: the waveform came out as {waveform.dtype}, expected floats of which 1 "
                "is full scale; divide 16-bit numbers by 32768"
            )

        longest = int(num_samples.max()) if len(num_samples) else 0
        waveform = waveform[:, :longest].float()
        waveform = waveform.masked_fill(~valid(num_samples, waveform.shape[1]), 0.0)
        self._check_scale(waveform, num_samples)
        return waveform, num_samples

    @abstractmethod
    def _encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [B, T] and lengths [B] of clips whose waveform is blank behind their end; called by `encode`."""

    @abstractmethod
    def _decode(
        self,
        codes: Tensor,
        lengths: Tensor,
        condition: SpeakerCondition | None,
    ) -> tuple[Tensor, Tensor]:
        """Waveform [B, S] and num_samples [B] of codes in range, 0 behind each row's end; called by `decode`."""

    def check_lengths(self, num_samples: Tensor, lengths: Tensor) -> None:
        """See that clips of ``num_samples`` [B] came out as ``lengths`` [B] codes, one more or less.

        Raises:
            CodecError: naming what was encoded and what was declared.
        """
        expected = num_samples / self.samples_per_code
        for given, length, want in zip(
            num_samples.tolist(), lengths.tolist(), expected.tolist(), strict=True
        ):
            if abs(length - want) > 1 or (given == 0 and length):
                raise CodecError(
                    f"{type(self).__name__}: {given} samples at {self.sample_rate_hz} Hz became {length} codes, but "
                    f"{self.frame_rate_hz} codes per second are declared, which makes {want:.1f}; correct the "
                    "declared rates, or the lengths that the codec returns"
                )

    def _check_input(self, waveform: Tensor) -> None:
        """See that a waveform is one of audio: finite, of which 1 is full scale."""
        highest = float(waveform.abs().max()) if waveform.numel() else 0.0
        if not highest <= MAX_AMPLITUDE:
            raise CodecError(
                f"{type(self).__name__}.encode: samples reach {highest:.4g}, and full scale is 1 (up to "
                f"{MAX_AMPLITUDE:g} is let through); divide 16-bit numbers by 32768, and look for NaN where it is made"
            )

    def _check_rows(
        self, method: str, what: str, values: Tensor, lengths: Tensor, num_rows: int
    ) -> None:
        """See that B rows came out, each as long as it says."""
        fits = values.ndim == 2 and len(values) == num_rows and lengths.shape == (num_rows,)
        counts = fits and not lengths.is_floating_point()
        if counts and num_rows:
            counts = bool(lengths.min() >= 0) and bool(lengths.max() <= values.shape[1])
        if not counts:
            raise CodecError(
                f"{type(self).__name__}.{method}: of {num_rows} rows, {what} {list(values.shape)} and lengths "
                f"{lengths.tolist()} came out; expected [{num_rows}, N] and {num_rows} whole numbers up to N"
            )

    def _check_codes(self, method: str, codes: Tensor, hint: str) -> None:
        """See that the codes are those of the codebook."""
        if not codes.numel():
            return
        lowest = int(codes.min())
        highest = int(codes.max())
        if not 0 <= lowest <= highest < self.cardinality:
            raise CodecError(
                f"{type(self).__name__}.{method}: codes from {lowest} to {highest}; this codec has 0 "
                f"to {self.cardinality - 1}. {hint}"
            )

    def _check_output_lengths(self, lengths: Tensor, num_samples: Tensor) -> None:
        """See that ``lengths`` [B] codes came out as so many samples as the declared rates make them."""
        per_code = self.output_samples_per_code
        for length, given in zip(lengths.tolist(), num_samples.tolist(), strict=True):
            want = length * per_code
            slack = self.output_slack if length else 0
            if abs(given - want) > slack:
                raise CodecError(
                    f"{type(self).__name__}.decode: {length} codes became {given} samples, but {self.frame_rate_hz} "
                    f"codes per second at {self.output_sample_rate_hz} Hz make {want}; correct the declared rates "
                    "(the output's has a name of its own, output_sample_rate_hz), or declare an output_slack"
                )

    def _check_scale(self, waveform: Tensor, num_samples: Tensor) -> None:
        """See that samples [B, S] are floats about full scale, in one row at least finite ones."""
        if not waveform.numel():
            return

        # One row with NaN costs its sample; of a decoder that gives nothing else no run can live.
        is_finite = waveform.isfinite()
        if not bool((is_finite.all(-1) & (num_samples > 0)).any()):
            raise CodecError(
                f"{type(self).__name__}.decode: the waveform of every row holds NaN or infinite samples; look at the "
                "decoder's weights and precision"
            )

        highest = float(waveform.masked_fill(~is_finite, 0.0).abs().max())
        if highest > MAX_AMPLITUDE:
            raise CodecError(
                f"{type(self).__name__}.decode: samples reach {highest:.4g}, and full scale is 1 (up to "
                f"{MAX_AMPLITUDE:g} is let through); divide 16-bit numbers by 32768"
            )

    def require_one_codebook(self) -> None:
        """Refuse codes that are no plain sequence.

        Raises:
            CodecError: for more than one codebook.
        """
        if self.num_codebooks != 1:
            raise CodecError(
                f"{type(self).__name__} has {self.num_codebooks} codebooks; a policy speaks one code per frame. Take a "
                "codec with one codebook, or a configuration of this one that keeps only its first"
            )

    def freeze(self) -> Self:
        """No gradients, eval mode; a subclass calls it at the end of its constructor."""
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Train mode, which a frozen codec refuses: it stays in eval mode."""
        is_training = any(parameter.requires_grad for parameter in self.parameters())
        return super().train(mode and is_training)

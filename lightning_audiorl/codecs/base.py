"""What speech synthesis knows of a codec: waveform -> codes -> waveform, and the rates at which that happens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from torch import Tensor, nn

from lightning_audiorl.fields import Batched, Shape, Shared


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
    what comes out, and blank what lies behind a row's end. A row alone gives what it gives in a batch. Codecs are
    frozen: no parameter trains, `train()` leaves them in eval mode; only a codec's own training makes an exception.

    Args:
        sample_rate_hz: of the waveform that `encode` reads.
        frame_rate_hz: codes per second.
        cardinality: codes are 0 to cardinality - 1.
        num_codebooks: codes per frame.
        output_sample_rate_hz: of the waveform that `decode` gives; None is that of the input.

    Raises:
        CodecError: where a code would not stand for a whole number of samples.

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

    def __init__(
        self,
        sample_rate_hz: int,
        frame_rate_hz: float,
        cardinality: int,
        num_codebooks: int = 1,
        output_sample_rate_hz: int | None = None,
    ) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.frame_rate_hz = frame_rate_hz
        self.cardinality = cardinality
        self.num_codebooks = num_codebooks
        self.output_sample_rate_hz = output_sample_rate_hz or sample_rate_hz
        for rate in (self.sample_rate_hz, self.output_sample_rate_hz):
            if frame_rate_hz <= 0 or rate % frame_rate_hz:
                raise CodecError(
                    f"{type(self).__name__}: {rate} samples and {frame_rate_hz} codes per second: a code would not be "
                    "a whole number of samples; choose a frame rate that divides the sample rate"
                )

    @property
    def samples_per_code(self) -> int:
        """Samples that `encode` reads for one code."""
        return int(self.sample_rate_hz / self.frame_rate_hz)

    @property
    def output_samples_per_code(self) -> int:
        """Samples that `decode` gives for one code."""
        return int(self.output_sample_rate_hz / self.frame_rate_hz)

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
            CodecError: for several codebooks; where the number of codes does not fit the declared frame rate.
        """
        self.require_one_codebook()
        if waveform.ndim != 2 or num_samples.shape != waveform.shape[:1]:
            raise CodecError(
                f"{type(self).__name__}.encode: want waveform [B, S] and num_samples [B], got {list(waveform.shape)} "
                f"and {list(num_samples.shape)}"
            )

        # What lies behind a clip's end must not reach its codes, and the rest of the batch must not reach its shape.
        inside = valid(num_samples, waveform.shape[1])
        waveform = waveform.float().masked_fill(~inside, 0.0)
        codes, lengths = self._encode(waveform, num_samples)
        self.check_lengths(num_samples, lengths)
        longest = int(lengths.max()) if len(lengths) else 0
        codes = codes[:, :longest].long()
        return codes.masked_fill(~valid(lengths, codes.shape[1]), 0), lengths

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
            CodecError: for several codebooks, for codes that the codec does not have.
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

        codes = codes.masked_fill(~valid(lengths, codes.shape[1]), 0)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.cardinality:
            raise CodecError(
                f"{type(self).__name__}.decode: codes from {int(codes.min())} to {int(codes.max())}; this codec has 0 "
                f"to {self.cardinality - 1}. Are the language model's speech tokens those of this codec?"
            )

        waveform, num_samples = self._decode(codes, lengths, condition)
        longest = int(num_samples.max()) if len(num_samples) else 0
        waveform = waveform[:, :longest].float()
        return waveform.masked_fill(~valid(num_samples, waveform.shape[1]), 0.0), num_samples

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

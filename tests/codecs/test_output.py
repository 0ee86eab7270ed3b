"""What comes out of a codec is held against what it declares."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import DacConfig, DacFeatureExtractor, DacModel

from lightning_audiorl.codecs import AudioTokenizationCodec, Codec, CodecError, SpeakerCondition

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def same(values: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
    return values, num


class Mine(Codec):
    """A codec of somebody's own, whose outputs a test spoils."""

    def __init__(
        self, rate_hz: int, hop: int, decoded: Change = same, encoded: Change = same
    ) -> None:
        super().__init__(rate_hz, rate_hz / hop, 64)
        self.decoded = decoded
        self.encoded = encoded

    def _encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        lengths = self.num_codes(num_samples)
        return self.encoded(torch.ones(len(waveform), int(lengths.max())).long(), lengths)

    def _decode(
        self, codes: Tensor, lengths: Tensor, condition: SpeakerCondition | None
    ) -> tuple[Tensor, Tensor]:
        num = lengths * self.output_samples_per_code
        time = torch.arange(int(num.max()))
        return self.decoded(0.5 * (0.3 * time).sin().repeat(len(codes), 1), num)


class Loose(Mine):
    """One that says that a vocoder's edge may be missing."""

    output_slack = 40


def to_int16(wave: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
    return (wave * 32767).to(torch.int16), num


#: What a decoder does wrong: how, and a word of the message.
WRONG: dict[str, tuple[Change, str]] = {
    "twice the rate": (lambda w, n: (w.repeat_interleave(2, 1), n * 2), "10 codes became 6400"),
    "half the rate": (lambda w, n: (w[:, ::2], n // 2), "became 1600 samples"),
    "one and a half": (lambda w, n: (w.repeat_interleave(2, 1), n * 3 // 2), "make 3200"),
    "one sample more": (lambda w, n: (w.repeat(1, 2), n + 1), "became 3201 samples"),
    "a channel": (lambda w, n: (w[:, None], n), r"waveform \[2, 1, 3200\]"),
    "no batch": (lambda w, n: (w[0], n), r"waveform \[3200\]"),
    "a row too few": (lambda w, n: (w[:1], n[:1]), "of 2 rows"),
    "lengths beyond the waveform": (lambda w, n: (w, n + 1000), r"whole numbers up to N"),
    "lengths of another shape": (lambda w, n: (w, n[:, None]), r"whole numbers up to N"),
    "lengths in fractions": (lambda w, n: (w, n / 7), r"whole numbers up to N"),
    "negative lengths": (lambda w, n: (w, -n), r"whole numbers up to N"),
    "int16": (to_int16, "came out as torch.int16"),
    "whole numbers": (lambda w, n: (w.round().long(), n), "came out as torch.int64"),
    "complex numbers": (lambda w, n: (w + 0j, n), "came out as torch.complex64"),
    "16-bit scale": (lambda w, n: (w * 32767, n), r"samples reach 1\.638e\+04"),
    "1e30": (lambda w, n: (w * 1e30, n), r"full scale is 1"),
    "NaN": (lambda w, n: (w * math.nan, n), "every row holds NaN"),
    "infinity": (lambda w, n: (w / 0.0, n), "every row holds NaN or infinite"),
}


@pytest.mark.fault(
    "Speech",
    "a codec that decodes at another rate, shape, type, length or scale than it declares",
    "an error that names the codec, what was declared and what came",
)
@pytest.mark.parametrize("name", WRONG)
def test_what_a_decoder_does_wrong_is_seen(name: str) -> None:
    change, message = WRONG[name]
    codes = torch.zeros(2, 10).long()
    with pytest.raises(CodecError, match=message) as info:
        Mine(16000, 320, change).decode(codes, torch.tensor([10, 4]))
    assert str(info.value).startswith("Mine.decode: ")


def test_what_is_ordinary_is_let_through() -> None:
    """Clipping, half precision, silence, rows without a code, and one broken row among others."""
    codes = torch.zeros(3, 10).long()
    lengths = torch.tensor([10, 4, 0])
    for change in (same, lambda w, n: (1.7 * w.half(), n), lambda w, n: (0 * w, n)):
        waveform, num = Mine(16000, 320, change).decode(codes, lengths)
        assert (waveform.dtype, num.tolist()) == (torch.float32, [3200, 1280, 0])

    def broken(wave: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
        wave[0, 5] = math.nan
        return wave, num

    waveform, _ = Mine(16000, 320, broken).decode(codes, lengths)
    assert bool(waveform[0].isnan().any())
    assert bool(waveform[1].isfinite().all())
    empty, num = Mine(16000, 320).decode(codes, torch.zeros(3).long())
    assert (empty.shape, num.tolist()) == ((3, 0), [0, 0, 0])


@pytest.mark.fault(
    "Speech",
    "a codec whose vocoder leaves out a few samples",
    "refused, unless its class declares by how many at most",
)
def test_a_declared_slack_is_kept() -> None:
    def shorter(wave: Tensor, num: Tensor) -> tuple[Tensor, Tensor]:
        return wave, num - 40

    codes = torch.zeros(2, 10).long()
    with pytest.raises(CodecError, match="10 codes became 3160 samples"):
        Mine(16000, 320, shorter).decode(codes, torch.tensor([10, 4]))
    assert Loose(16000, 320, shorter).decode(codes, torch.tensor([10, 4]))[1].tolist() == [
        3160,
        1240,
    ]


WRONG_CODES: dict[str, tuple[Change, str]] = {
    "a codebook more": (lambda c, n: (c[:, None], n), r"codes \[2, 1, 10\]"),
    "a row too many": (lambda c, n: (c.repeat(2, 1), n), "of 2 rows"),
    "beyond the codebook": (lambda c, n: (c + 63, n), "codes from 0 to 64; this codec has 0 to 63"),
    "below zero": (lambda c, n: (c - 2, n), "codes from -1"),
    "fractions": (lambda c, n: (c + 0.5, n), "came out as torch.float32"),
    "lengths beyond the codes": (lambda c, n: (c[:, :4], n), "whole numbers up to N"),
}


@pytest.mark.fault(
    "Speech",
    "a codec that encodes into codes of another shape, type or range than it declares",
    "an error that names the codec and what came",
)
@pytest.mark.parametrize("name", WRONG_CODES)
def test_what_an_encoder_does_wrong_is_seen(name: str) -> None:
    change, message = WRONG_CODES[name]
    with pytest.raises(CodecError, match=message) as info:
        Mine(16000, 320, encoded=change).encode(torch.ones(2, 3200), torch.tensor([3200, 1280]))
    assert str(info.value).startswith("Mine.encode: ")


@pytest.mark.fault(
    "Speech",
    "a waveform with NaN, or in 16-bit numbers, given to a codec",
    "an error; it makes no codes of it",
)
def test_what_no_codec_can_encode() -> None:
    num = torch.tensor([3200, 1280])
    for spoilt in (32767 * torch.ones(2, 3200), torch.full((2, 3200), math.nan)):
        with pytest.raises(CodecError, match=r"Mine\.encode: samples reach"):
            Mine(16000, 320).encode(spoilt, num)
    with pytest.raises(CodecError, match="divide 16-bit numbers by 32768"):
        Mine(16000, 320).encode((32767 * torch.ones(2, 3200)).to(torch.int16), num)


@pytest.mark.fault(
    "Speech",
    "a codec with a whole hop whose codes per second have no finite fraction (24000 / 1440)",
    "taken, with its hop to the sample",
)
def test_any_whole_hop_is_taken() -> None:
    for rate_hz in (8000, 16000, 22050, 24000, 44100, 48000):
        for hop in (1, 7, 49, 160, 275, 320, 441, 600, 640, 900, 960, 1440, 1920, 2048):
            codec = Mine(rate_hz, hop)
            assert codec.samples_per_code == hop
            assert codec.output_samples_per_code == hop

    written = Codec.__init__.__get__(Mine.__new__(Mine))
    written(24000, 16.6667, 64)
    assert Mine(24000, 1440).decode(torch.zeros(1, 3).long(), torch.tensor([3]))[1].tolist() == [
        4320
    ]


@pytest.mark.parametrize("rate", [16.7, 0.0, -1.0, math.nan, math.inf, 1e9])
def test_rates_of_no_whole_hop_are_refused(rate: float) -> None:
    class Other(Mine):
        def __init__(self) -> None:
            Codec.__init__(self, 24000, rate, 64)

    with pytest.raises(CodecError, match="a code would not be a whole number of samples"):
        Other()


@pytest.mark.fault(
    "Speech",
    "a codec of transformers with 16.67 codes per second",
    "loaded, with its hop to the sample",
)
def test_a_transformers_codec_with_such_a_hop(tmp_path: Path) -> None:
    config = DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=[3, 4, 10, 12],
        decoder_hidden_size=16,
        upsampling_ratios=[12, 10, 4, 3],
        n_codebooks=1,
        codebook_size=8,
        codebook_dim=2,
        hidden_size=64,
        sampling_rate=24000,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DacModel(config).save_pretrained(tmp_path)
    DacFeatureExtractor(sampling_rate=24000, hop_length=1440).save_pretrained(tmp_path)
    codec = AudioTokenizationCodec(str(tmp_path))
    assert codec.samples_per_code == 1440
    _, num = codec.decode(torch.tensor([[3, 4, 1]]), torch.tensor([3]))
    assert num.tolist() == [4320]

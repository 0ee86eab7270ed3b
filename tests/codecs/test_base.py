"""What a codec declares is held against what it does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_audiorl.codecs import Codec, CodecError, SpeakerCondition
from tests.helpers import assert_close

RATE_HZ = 1000


class Levels(Codec):
    """100 codes per second: each is the mean of ten samples in tenths; ``num_extra`` codes too many."""

    def __init__(
        self, frame_rate_hz: float = 100.0, num_codebooks: int = 1, num_extra: int = 0
    ) -> None:
        super().__init__(
            RATE_HZ, frame_rate_hz, 11, num_codebooks, output_sample_rate_hz=2 * RATE_HZ
        )
        self.num_extra = num_extra
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.freeze()

    def _encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.nn.functional.pad(waveform, (0, 10 * (1 + self.num_extra)))
        means = padded.unfold(1, 10, 10).mean(-1) * self.weight
        return (means * 10).round().int(), self.num_codes(num_samples) + self.num_extra

    def _decode(
        self, codes: Tensor, lengths: Tensor, condition: SpeakerCondition | None
    ) -> tuple[Tensor, Tensor]:
        return (codes / 10 * self.weight).repeat_interleave(
            20, dim=1
        ), lengths * self.output_samples_per_code


def clips() -> tuple[Tensor, Tensor]:
    """Three clips of 25, 10 and 0 samples; NaN behind their ends."""
    waveform = torch.full((3, 25), torch.nan)
    waveform[0] = 0.5
    waveform[1, :10] = 0.3
    return waveform, torch.tensor([25, 10, 0])


def test_codes_of_clips_and_back() -> None:
    codec = Levels()
    codes, lengths = codec.encode(*clips())
    assert codes.dtype == torch.int64
    assert lengths.tolist() == [3, 1, 0]
    assert codes.tolist() == [
        [5, 5, 2],
        [3, 0, 0],
        [0, 0, 0],
    ]  # 2.5 rounds to 2: the last code is half silence
    waveform, num_samples = codec.decode(
        codes + torch.tensor([[0], [0], [99]]), lengths
    )  # 99: behind the end
    assert num_samples.tolist() == [60, 20, 0]
    assert waveform.shape == (3, 60)
    assert_close(waveform[0], torch.tensor([0.5] * 40 + [0.2] * 20))
    assert_close(waveform[1], torch.tensor([0.3] * 20 + [0.0] * 40))
    assert not waveform[2].any()


def test_nothing_to_encode_and_nothing_to_decode() -> None:
    codes, lengths = Levels().encode(torch.zeros(2, 0), torch.zeros(2, dtype=torch.long))
    assert (codes.shape, lengths.tolist()) == ((2, 0), [0, 0])
    waveform, num_samples = Levels().decode(codes, lengths)
    assert (waveform.shape, num_samples.tolist()) == ((2, 0), [0, 0])


def test_frozen_without_gradients() -> None:
    codec = torch.nn.ModuleList([Levels()]).train()[0]
    assert isinstance(codec, Levels)
    assert not codec.training
    assert not any(p.requires_grad for p in codec.parameters())
    codec.requires_grad_(True)
    assert not codec.decode(*codec.encode(*clips()))[0].requires_grad
    assert codec.train().training  # its own training may


def test_too_many_codes_are_seen() -> None:
    with pytest.raises(
        CodecError, match=r"10 samples at 1000 Hz became 3 codes, but 100.0 codes .* makes 1.0"
    ) as info:
        Levels(num_extra=2).encode(*(x[1:2] for x in clips()))
    assert "correct the declared rates" in str(info.value)
    with pytest.raises(CodecError, match="0 samples at 1000 Hz became 1 codes"):
        Levels(num_extra=1).encode(*(x[2:] for x in clips()))


def test_several_codebooks_are_refused() -> None:
    codec = Levels(num_codebooks=4)
    with pytest.raises(CodecError, match="4 codebooks; a policy speaks one code per frame"):
        codec.encode(*clips())
    with pytest.raises(CodecError, match="4 codebooks"):
        codec.decode(torch.zeros(1, 2, dtype=torch.long), torch.tensor([2]))


@pytest.mark.parametrize("code", [-1, 11])
def test_unknown_codes_are_refused(code: int) -> None:
    with pytest.raises(
        CodecError, match=r"this codec has 0 to 10. Are the language model's speech tokens"
    ):
        Levels().decode(torch.tensor([[3, code]]), torch.tensor([2]))


def test_shapes_and_rates_are_checked() -> None:
    with pytest.raises(CodecError, match=r"want waveform \[B, S\]"):
        Levels().encode(torch.zeros(5), torch.tensor([5]))
    with pytest.raises(CodecError, match=r"lengths \[B\] of at most T"):
        Levels().decode(torch.zeros(1, 2, dtype=torch.long), torch.tensor([3]))
    with pytest.raises(CodecError, match="choose a frame rate that divides the sample rate"):
        Levels(frame_rate_hz=30.0)
    assert Levels(frame_rate_hz=12.5).samples_per_code == 80


def test_a_group_shares_its_condition() -> None:
    condition = SpeakerCondition(
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2, 1]), 16000
    )
    group = condition.select([0, 0, 1]).to("cpu")
    assert group.waveform.tolist() == [[1, 2], [1, 2], [3, 4]]
    assert (group.num_samples.tolist(), group.sample_rate_hz, group.embedding) == (
        [2, 2, 1],
        16000,
        None,
    )

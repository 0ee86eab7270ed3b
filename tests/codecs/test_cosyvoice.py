"""The adapter for CosyVoice2, over networks that are simple enough to follow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_audiorl.codecs import CodecError, CosyVoice2Codec, SpeakerCondition
from tests.helpers import assert_close


class Simple(CosyVoice2Codec):
    """A code is the mean of its 640 samples; speech is the code, plus what the prompt and the noise add."""

    def __init__(self) -> None:
        super().__init__()
        self.num_prompts = 0

    def tokens(self, waveform: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(waveform, (0, -len(waveform) % 640))
        return padded.unfold(0, 640, 640).mean(1).round().int()

    def features(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        self.num_prompts += 1
        num_frames = (
            len(waveform) // 320
        )  # upstream's front end has one frame less or more than codes times two
        return torch.full((num_frames, 80), float(waveform.mean())), waveform.mean()[None]

    def speak(
        self, codes: Tensor, prompt_codes: Tensor, prompt_mel: Tensor, embedding: Tensor
    ) -> Tensor:
        assert len(prompt_mel) == 2 * len(prompt_codes) > 0
        return codes.repeat_interleave(960) + 10 * embedding + 0.01 * torch.rand(len(codes) * 960)


def condition(embedding: Tensor | None = None) -> SpeakerCondition:
    """Prompts of 1.5 codes of ones, and of 2 codes of twos."""
    waveform = torch.ones(2, 1280) * torch.tensor([[1.0], [2.0]])
    return SpeakerCondition(waveform, torch.tensor([960, 1280]), 16000, embedding=embedding)


def test_speech_in_the_voice_of_the_prompt() -> None:
    codec = Simple()
    codes, lengths = codec.encode(
        torch.tensor([3.0, 7.0]).repeat_interleave(640)[None], torch.tensor([1280])
    )
    assert (codes.tolist(), lengths.tolist()) == ([[3, 7]], [2])
    state = torch.get_rng_state()
    rows = condition().select([0, 0, 1])
    waveform, num_samples = codec.decode(codes.expand(3, 2), torch.tensor([2, 1, 2]), rows)
    assert torch.equal(torch.get_rng_state(), state)
    assert num_samples.tolist() == [1920, 960, 1920]
    assert codec.num_prompts == 2  # once per group
    assert waveform[:, 0].round().tolist() == [13, 13, 23]
    assert waveform[:, 1900].round().tolist() == [17, 0, 27]
    torch.rand(7)
    alone, _ = codec.decode(codes, lengths, condition().select([1]))
    assert_close(alone[0], waveform[2], "exact")


def test_an_embedding_of_the_users_counts() -> None:
    embedding = torch.tensor([[5.0], [6.0]])
    waveform, _ = Simple().decode(
        torch.tensor([[1], [1]]), torch.tensor([1, 1]), condition(embedding)
    )
    assert waveform[:, 0].round().tolist() == [51, 61]


def test_no_prompt_no_voice() -> None:
    codes, lengths = torch.tensor([[1], [1]]), torch.tensor([1, 1])
    with pytest.raises(CodecError, match="give every row a speaker prompt"):
        Simple().decode(codes, lengths)
    nobody = SpeakerCondition(torch.ones(2, 640), torch.tensor([640, 0]), 16000)
    with pytest.raises(CodecError, match="row 1 of the batch has no speaker prompt"):
        Simple().decode(codes, lengths, nobody)

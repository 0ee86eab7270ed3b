from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.rewards import DifferentiableMix, HeadLikelihood, TextLikelihood
from lightning_audiorl.token2text import Token2Text
from lightning_audiorl.types import Utterance
from tests.helpers import assert_close

ROWS = [
    Utterance("a", (), "one", 1.0, speaker="ann"),
    Utterance("b", (), "two", 1.0, speaker="bob"),
]
CODES, LENGTHS = torch.tensor([[3, 1, 4, 1], [2, 6, 0, 0]]), torch.tensor([4, 2])


def make(labels: dict[str, list[str]] | None = None) -> Token2Text:
    return Token2Text(
        8, "enotw ", labels, width=16, dilations=(1,), heads=2, decoder_layers=1, codec_hash="ours"
    )


def test_a_mix_is_the_weighted_sum_of_its_parts() -> None:
    network = make({"speaker": ["ann", "bob"]})
    rewards: list[Any] = [
        TextLikelihood(weight=0.5),
        TextLikelihood("ctc", 2.0, "ctc"),
        HeadLikelihood(weight=0.3),
        HeadLikelihood(weight=0.0, name="only logged"),
    ]
    mix = DifferentiableMix(network, rewards)
    embedded = network.embed(CODES).detach().requires_grad_(True)
    total, parts = mix.score(embedded, LENGTHS, ROWS)
    encoded = network.encode(embedded, LENGTHS)
    expected = {
        "text": network.text_log_likelihood(encoded, network.targets(ROWS)),
        "ctc": network.ctc_log_likelihood(encoded, network.targets(ROWS)),
        "speaker": network.head_log_likelihood("speaker", encoded, torch.tensor([0, 1])),
    }
    for name, value in expected.items():
        assert_close(parts[name], value.detach(), "exact")
        assert not parts[name].requires_grad
    weighted = 0.5 * expected["text"] + 2 * expected["ctc"] + 0.3 * expected["speaker"]
    assert_close(total.detach(), weighted.detach())
    total.sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad.abs().sum(-1) > 0).tolist() == [[True] * 4, [True, True, False, False]]
    assert all(p.grad is None for p in network.parameters())


def test_a_trained_folder_is_read_frozen(tmp_path: Path) -> None:
    make().save(str(tmp_path))
    mix = DifferentiableMix(str(tmp_path))
    assert [reward.name for reward in mix.rewards] == ["text"]
    assert not any(p.requires_grad for p in mix.network.parameters())
    assert not mix.network.training
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        DifferentiableMix(str(tmp_path / "elsewhere"))


def test_codecs_must_agree() -> None:
    mix = DifferentiableMix(make())
    mix.check_codec(8, "ours")
    with pytest.raises(ValueError, match="reads 8 codes, the policy speaks 9"):
        mix.check_codec(9, "ours")
    with pytest.raises(ValueError, match="another codec of 8 codes"):
        mix.check_codec(8, "theirs")


def test_rows_that_cannot_be_scored_are_named() -> None:
    mix = DifferentiableMix(make({"speaker": ["ann", "bob"]}), [TextLikelihood(), HeadLikelihood()])
    mix.check(ROWS)
    with pytest.raises(ValueError, match="row 'a': its text has 'i'"):
        mix.check([replace(ROWS[0], text="six")])
    with pytest.raises(ValueError, match="row 'b': its speaker is ''"):
        mix.check([ROWS[0], replace(ROWS[1], speaker="")])


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="no head 'mood', only \\['speaker'\\]"):
        DifferentiableMix(make({"speaker": ["ann", "bob"]}), [HeadLikelihood("mood")])
    with pytest.raises(ValueError, match="names must differ"):
        DifferentiableMix(make(), [TextLikelihood(), TextLikelihood("ctc")])
    with pytest.raises(ValueError, match="some weight must be above 0"):
        DifferentiableMix(make(), [TextLikelihood(weight=0.0)])
    with pytest.raises(ValueError, match="finite weight >= 0"):
        TextLikelihood(weight=-1.0)
    with pytest.raises(ValueError, match="'decoder' or 'ctc'"):
        TextLikelihood("greedy")  # type: ignore[arg-type]

"""Draws over a large vocabulary are the tokens that float64 sums over all of it give, near every edge, too."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models.decoding import inverse
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform


def log_probs_of(num_rows: int, vocab_size: int, sharpness: float) -> Tensor:
    generator = keyed_generator("inverse", num_rows, vocab_size)
    return torch.log_softmax(sharpness * torch.randn(num_rows, vocab_size, generator=generator), -1)


def summed(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """A naive loop: the first token up to which more than ``uniform`` of the mass lies."""
    cumulative = log_probs.double().exp().cumsum(-1)
    tokens = []
    for row, share in zip(cumulative, uniform, strict=True):
        beyond = (row > share * row[-1]).nonzero()
        tokens.append(int(beyond[0]) if len(beyond) else len(row) - 1)
    return torch.tensor(tokens)


# Not a multiple of a block, and one that is; nearly even, usual, and with nearly all of the mass on a token.
@pytest.mark.parametrize("vocab_size", [5001, 8192])
@pytest.mark.parametrize("sharpness", [0.01, 2.0, 12.0])
def test_draws_over_blocks_are_those_over_all(vocab_size: int, sharpness: float) -> None:
    log_probs = log_probs_of(256, vocab_size, sharpness)
    log_probs[:, [0, 63, 64, 4000, vocab_size - 1]] = -torch.inf
    uniform = keyed_uniform(256, "draws")
    uniform[:2] = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    tokens = inverse.drawn_tokens(log_probs, uniform)
    assert torch.equal(tokens, summed(log_probs, uniform))
    assert torch.isfinite(log_probs.gather(-1, tokens[:, None])).all()


def test_a_draw_at_an_edge_is_seen_not_to_be_sure() -> None:
    log_probs = log_probs_of(1, 4096, 1.0).expand(4096, -1).contiguous()
    cumulative = log_probs[0].double().exp().cumsum(-1)

    # Each row's draw is at the very edge between two tokens, or a float64's rounding beside it.
    edges = cumulative / cumulative[-1]
    for uniform in (edges, edges - 2**-52, edges + 2**-52):
        uniform = uniform.clamp(0, 1 - 2**-53)
        tokens = inverse.drawn_tokens(log_probs, uniform)
        assert torch.equal(tokens, summed(log_probs, uniform))


def test_float32_sums_alone_would_draw_other_tokens() -> None:
    log_probs = log_probs_of(1, 4096, 1.0).expand(4096, -1).contiguous()
    cumulative = log_probs[0].double().exp().cumsum(-1)
    uniform = (cumulative / cumulative[-1]).clamp(0, 1 - 2**-53)
    with mock.patch.object(inverse, "_MARGIN", -1.0):
        tokens = inverse.drawn_tokens(log_probs, uniform)
    assert not torch.equal(tokens, summed(log_probs, uniform))


def test_most_rows_of_a_model_that_has_learnt_are_drawn_by_blocks() -> None:
    log_probs = log_probs_of(512, 32_000, 4.0)
    _, is_sure = inverse._by_blocks(log_probs, keyed_uniform(512, "sure"))
    assert is_sure.float().mean() > 0.9


def test_what_is_no_number_is_drawn_as_ever() -> None:
    log_probs = torch.full((2, 5000), torch.nan)
    tokens = inverse.drawn_tokens(log_probs, torch.tensor([0.1, 0.9], dtype=torch.float64))
    assert torch.equal(tokens, inverse._by_all(log_probs, torch.tensor([0.1, 0.9]).double()))

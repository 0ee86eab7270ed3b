"""The head in pieces of the vocabulary gives the head's logits, and is left alone where it is more than a product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_audiorl.models.decoding import thin_head
from lightning_audiorl.models.decoding.thin_head import thin_product
from lightning_audiorl.ops.randomness import keyed_generator


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=keyed_generator("states", *shape))


def head(vocab_size: int, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(48, vocab_size, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(states(vocab_size, 48))
    return layer


@pytest.mark.parametrize("vocab_size", [4096, 5003])
@pytest.mark.parametrize("num_rows", [1, 5, 64])
@torch.no_grad()
def test_pieces_give_the_heads_logits(vocab_size: int, num_rows: int) -> None:
    layer = head(vocab_size)
    hidden = states(num_rows, 48)
    assert thin_head._is_thin(layer.weight, hidden)
    torch.testing.assert_close(thin_product(layer, hidden), layer(hidden), atol=1e-5, rtol=1e-6)


@torch.no_grad()
def test_a_head_that_is_more_than_a_product_is_called() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    hidden = states(3, 48)
    scaled = Scaled(48, 5000, bias=False)
    assert torch.equal(thin_product(scaled, hidden), scaled(hidden))

    with_bias = head(5000, bias=True)
    assert torch.equal(thin_product(with_bias, hidden), with_bias(hidden))

    hooked = head(5000)
    hooked.register_forward_hook(lambda module, args, out: out + 1)
    assert torch.equal(thin_product(hooked, hidden), hooked(hidden))

    replaced = head(5000)
    replaced.forward = lambda x: torch.zeros(len(x), 5000)  # type: ignore[method-assign]
    assert not thin_product(replaced, hidden).any()


def test_a_gradient_passes_the_head() -> None:
    layer = head(5000)
    thin_product(layer, states(3, 48)).sum().backward()
    assert layer.weight.grad is not None


@torch.no_grad()
def test_autocast_sees_the_head() -> None:
    layer = head(5000)
    with torch.autocast("cpu", torch.bfloat16):
        assert thin_product(layer, states(3, 48)).dtype == torch.bfloat16

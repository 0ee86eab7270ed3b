"""What the head computed once and is kept for the backward pass: the same bits, within a bound."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_audiorl.ops import logprobs, token_log_probs
from tests.helpers import assert_close

VOCABULARY = 1000


class Head(nn.Linear):
    """Counts the positions of its calls, and forbids a token."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(3, VOCABULARY)
        self.rows: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.rows.append(len(hidden))
        return super().forward(hidden).index_fill(-1, torch.tensor([7]), -torch.inf)


def run(
    monkeypatch: pytest.MonkeyPatch, kept_bytes: int, **kwargs: bool
) -> tuple[list[Tensor], list[int], int]:
    """40 positions, 4 at a time: values and gradients, positions of each call, chunks held in between."""
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 4 * 4 * VOCABULARY)
    monkeypatch.setattr(logprobs, "KEPT_BYTES", kept_bytes)
    head = Head()
    hidden = torch.randn(2, 20, 3).requires_grad_()
    tokens = torch.randint(8, VOCABULARY, (2, 20))
    keep = torch.ones_like(tokens, dtype=torch.bool)
    weights = torch.randn(2, 20)

    held: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.shape) or x, lambda x: x):
        out = token_log_probs(hidden, head, tokens, keep, 0.7, **kwargs)
    (out.log_probs * weights).sum().backward()

    entropy = torch.zeros(()) if out.entropy is None else out.entropy.detach()
    results = [out.log_probs.detach(), entropy, hidden.grad, head.weight.grad, head.bias.grad]
    return results, head.rows, held.count(torch.Size([4, VOCABULARY]))


@pytest.mark.parametrize(
    "kwargs", [{}, {"with_entropy": True}, {"with_entropy": True, "learns_entropy": False}]
)
def test_what_is_kept_has_the_bits_of_what_is_computed_again(
    kwargs: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk_bytes = 4 * 4 * VOCABULARY
    again, rows, held = run(monkeypatch, 0, **kwargs)
    assert rows == [0] + [4] * 20
    assert held == 0
    for num_kept in (1, 3, 10, 11):
        kept, fewer, held = run(monkeypatch, num_kept * chunk_bytes + chunk_bytes // 2, **kwargs)
        for one, other in zip(kept, again, strict=True):
            assert_close(one, other, "exact")

        # One tensor as wide as the vocabulary for each chunk that fits within the bound.
        num_kept = min(num_kept, 10)
        assert fewer == [0] + [4] * (20 - num_kept)
        assert held == num_kept


def test_an_entropy_without_a_gradient_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    learns, *_ = run(monkeypatch, 0, with_entropy=True)
    logged, *_ = run(monkeypatch, 0, with_entropy=True, learns_entropy=False)
    for one, other in zip(logged, learns, strict=True):
        assert_close(one, other, "exact")


def test_an_entropy_that_is_only_logged_carries_no_graph() -> None:
    hidden = torch.randn(1, 3, 3).requires_grad_()
    tokens = torch.zeros(1, 3, dtype=torch.long)
    keep = torch.ones_like(tokens, dtype=torch.bool)
    out = token_log_probs(hidden, Head(), tokens, keep, with_entropy=True, learns_entropy=False)
    assert out.entropy is not None
    assert not out.entropy.requires_grad
    assert out.log_probs.requires_grad


def test_a_chunk_size_of_ones_own_keeps_nothing() -> None:
    head = Head()
    hidden = torch.randn(2, 20, 3).requires_grad_()
    tokens = torch.zeros(2, 20, dtype=torch.long)
    keep = torch.ones_like(tokens, dtype=torch.bool)
    out = token_log_probs(hidden, head, tokens, keep, chunk_size=8)
    out.log_probs.sum().backward()
    assert head.rows == [8] * 10

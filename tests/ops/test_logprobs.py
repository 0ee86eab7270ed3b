from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from lightning_audiorl.ops import lengths_to_keep, logprobs, token_log_probs
from tests.allocations import AllocationWatch
from tests.helpers import assert_close, assert_gradients_close

INF, NAN = float("inf"), float("nan")
FORBIDDEN = [2, 5]


class Head(nn.Linear):
    """A linear head that forbids two of its tokens and counts its calls and rows."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(4, 7, dtype=dtype)
        self.rows: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.rows.append(len(hidden))
        return super().forward(hidden).index_fill(-1, torch.tensor(FORBIDDEN), -INF)


def make(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Head, Tensor, Tensor]:
    torch.manual_seed(0)
    head = Head(dtype)
    tokens = torch.tensor([0, 1, 3, 4, 6])[torch.randint(5, (3, 5))]
    return (
        torch.randn(3, 5, 4, dtype=dtype),
        head,
        tokens,
        lengths_to_keep(torch.tensor([5, 2, 3]), 5),
    )


def run_backward(
    hidden: Tensor, head: Head, *args, **kwargs
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden = hidden.clone().requires_grad_()
    head.zero_grad()
    out = token_log_probs(hidden, head, *args, with_entropy=True, **kwargs)
    (out.log_probs.sum() + 0.5 * out.entropy.sum()).backward()
    return out.log_probs.detach(), out.entropy.detach(), hidden.grad, head.weight.grad.clone()


def test_worked_numbers():
    """Two tokens at odds 1:3, the third forbidden."""
    logits = torch.tensor([0.0, math.log(3), -INF]).expand(1, 2, 3)
    keep = torch.tensor([[True, False]])
    out = token_log_probs(logits, nn.Identity(), torch.tensor([[1, 99]]), keep, with_entropy=True)
    assert_close(out.log_probs, [[math.log(0.75), 0]])
    assert_close(out.entropy, [[-0.25 * math.log(0.25) - 0.75 * math.log(0.75), 0]])
    sharp = token_log_probs(logits, nn.Identity(), torch.tensor([[0, 0]]), keep, temperature=0.5)
    assert_close(sharp.log_probs, [[math.log(0.1), 0]])
    assert sharp.entropy is None
    greedy = token_log_probs(logits, nn.Identity(), torch.tensor([[1, 0]]), keep, temperature=0.0)
    assert_close(greedy.log_probs, out.log_probs, "exact")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_naive_loop(temperature):
    hidden, head, tokens, keep = make(torch.float64)
    out = token_log_probs(hidden, head, tokens, keep, temperature, with_entropy=True)
    for row in range(3):
        for t in range(5):
            if not keep[row, t]:
                assert out.log_probs[row, t] == out.entropy[row, t] == 0
                continue
            weights = [
                math.exp(logit / temperature) for logit in head(hidden[row, t : t + 1])[0].tolist()
            ]
            share = [weight / sum(weights) for weight in weights]
            assert_close(out.log_probs[row, t], math.log(share[tokens[row, t]]), "float64")
            assert_close(
                out.entropy[row, t], -sum(p * math.log(p) for p in share if p > 0), "float64"
            )


def test_parity_with_trl():
    hidden, head, tokens, _ = make()
    logits = nn.functional.linear(hidden, head.weight, head.bias)
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    out = token_log_probs(logits, nn.Identity(), tokens, everywhere, 0.7, with_entropy=True)
    assert_close(out.log_probs, selective_log_softmax(logits, tokens, temperature=0.7))
    assert_close(out.entropy, entropy_from_logits(logits / 0.7))


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 64])
def test_chunks_change_nothing(chunk_size):
    hidden, head, tokens, keep = make()
    whole = run_backward(hidden, head, tokens, keep, 0.7)
    chunked = run_backward(hidden, head, tokens, keep, 0.7, chunk_size=chunk_size)
    for one, other in zip(whole[:2], chunked[:2], strict=True):
        assert_close(other, one)
    for one, other in zip(whole[2:], chunked[2:], strict=True):
        assert_gradients_close(other, one)


def test_chunks_bound_what_the_head_sees_and_recompute():
    hidden, head, tokens, keep = make()
    run_backward(hidden, head, tokens, keep, chunk_size=4)
    assert sorted(head.rows) == sorted([4, 4, 2] * 2), (
        "10 kept positions, once forward and once in the backward pass"
    )


@pytest.mark.parametrize("with_entropy", [False, True])
def test_large_vocabularies_are_chunked_by_themselves(with_entropy, monkeypatch):
    """40 positions over 1,000 tokens are 160 kB of logits; with 16 kB for a chunk, 4 positions go at a time."""
    torch.manual_seed(0)
    hidden, tokens = torch.randn(2, 20, 4), torch.randint(1000, (2, 20))
    keep = torch.ones_like(tokens, dtype=torch.bool)
    head = nn.Linear(4, 1000)
    largest, results = {}, []
    monkeypatch.setattr(logprobs, "KEPT_BYTES", 0)
    for chunk_bytes in (logprobs.CHUNK_BYTES, 16_000):
        monkeypatch.setattr(logprobs, "CHUNK_BYTES", chunk_bytes)
        hidden.grad = None
        head.zero_grad()
        hidden.requires_grad_()
        with AllocationWatch() as watch:
            out = token_log_probs(hidden, head, tokens, keep, with_entropy=with_entropy)
            held = watch.held_bytes
            out.log_probs.sum().backward()
        largest[chunk_bytes] = watch.largest
        results.append((out.log_probs.detach(), hidden.grad, head.weight.grad.clone()))
        assert (held < 16_000) == (chunk_bytes == 16_000)
    assert largest == {logprobs.CHUNK_BYTES: (4, 1000), 64 * 2**20: (40, 1000)}
    assert_close(results[1][0], results[0][0])
    for one, other in zip(results[1][1:], results[0][1:], strict=True):
        assert_gradients_close(one, other)


def test_small_vocabularies_go_at_once():
    hidden, head, tokens, keep = make()
    run_backward(hidden, head, tokens, keep)
    assert head.rows == [0, 10], "no position to learn V, then all of them, once"
    run_backward(hidden, head, tokens, torch.zeros_like(keep))
    assert head.rows == [0, 10, 0, 0]


def test_gradients_of_either_output_alone():
    """GRPO reports the entropy and trains on the log-probs; a regulariser would do the reverse."""
    hidden, head, tokens, keep = make(torch.float64)
    gradients = {}
    for weights in ((1.0, 0.0), (0.0, 1.0), (2.0, -3.0)):
        leaf = hidden.clone().requires_grad_()
        out = token_log_probs(leaf, head, tokens, keep, 0.7, with_entropy=True)
        chosen = [
            w * x.sum() for w, x in zip(weights, (out.log_probs, out.entropy), strict=True) if w
        ]
        (gradients[weights],) = torch.autograd.grad(sum(chosen), leaf)
    assert_close(gradients[2.0, -3.0], 2 * gradients[1.0, 0.0] - 3 * gradients[0.0, 1.0], "float64")
    assert gradients[0.0, 1.0].norm() > 0


def test_large_gradients_of_forbidden_tokens_stay_finite():
    hidden, head, tokens, keep = make()
    hidden.requires_grad_()
    never = torch.zeros(7).index_fill(0, torch.tensor(FORBIDDEN), -INF)
    out = token_log_probs(
        hidden,
        lambda x: nn.functional.linear(x, head.weight) + never,
        tokens,
        keep,
        with_entropy=True,
    )
    (1e20 * (out.entropy.sum() + out.log_probs.sum())).backward()
    assert hidden.grad.isfinite().all()
    assert hidden.grad.norm() > 1e18


def test_no_logits_are_held_with_chunks():
    hidden, head, tokens, keep = make()
    hidden.requires_grad_()
    held: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.shape) or x, lambda x: x):
        token_log_probs(hidden, head, tokens, keep, chunk_size=4, with_entropy=True)
        assert all(shape[-1:] != (7,) for shape in held)
        token_log_probs(hidden, head, tokens, keep, chunk_size=0)
        assert any(shape[-1:] == (7,) for shape in held), (
            "without chunks they are held: the check above can fail"
        )


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_same_bits_with_and_without_gradients(chunk_size):
    hidden, head, tokens, keep = make()
    with_grad = token_log_probs(
        hidden, head, tokens, keep, 0.7, chunk_size=chunk_size, with_entropy=True
    )
    assert with_grad.log_probs.requires_grad
    with torch.no_grad():
        without = token_log_probs(
            hidden, head, tokens, keep, 0.7, chunk_size=chunk_size, with_entropy=True
        )
    assert_close(without.log_probs, with_grad.log_probs.detach(), "exact")
    assert_close(without.entropy, with_grad.entropy.detach(), "exact")


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_masked_places_are_never_read(chunk_size):
    hidden, head, tokens, keep = make()
    clean = run_backward(hidden, head, tokens, keep, chunk_size=chunk_size)
    poisoned = hidden.masked_fill(~keep.unsqueeze(-1), NAN)
    spoilt = run_backward(
        poisoned, head, tokens.masked_fill(~keep, -100), keep, chunk_size=chunk_size
    )
    for one, other in zip(clean, spoilt, strict=True):
        assert_close(other, one, "exact")


def test_forbidden_tokens():
    hidden, head, tokens, keep = make()
    *_, hidden_grad, weight_grad = run_backward(hidden, head, tokens, keep)
    assert hidden_grad.isfinite().all()
    assert weight_grad[FORBIDDEN].eq(0).all()
    out = token_log_probs(hidden, head, torch.full_like(tokens, FORBIDDEN[0]), keep)
    assert out.log_probs[keep].isneginf().all()


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_support_renormalises(chunk_size):
    hidden, head, tokens, keep = make(torch.float64)
    support = torch.stack([tokens, (tokens == 0).long(), torch.full_like(tokens, -1)], -1)
    support[0, 0] = torch.tensor([-1, tokens[0, 0], -1])
    out = token_log_probs(hidden, head, tokens, keep, 0.7, support, chunk_size, with_entropy=True)
    for row, t in keep.nonzero().tolist():
        logits = (head(hidden[row, t : t + 1])[0] / 0.7).tolist()
        weights = {
            token: math.exp(logits[token]) for token in support[row, t].tolist() if token >= 0
        }
        share = {token: weight / sum(weights.values()) for token, weight in weights.items()}
        assert_close(out.log_probs[row, t], math.log(share[int(tokens[row, t])]), "float64")
        assert_close(out.entropy[row, t], -sum(p * math.log(p) for p in share.values()), "float64")
    assert out.log_probs[0, 0] == 0, "the only token left is certain"


def test_gradcheck():
    hidden, head, tokens, keep = make(torch.float64)
    support = torch.stack([tokens, (tokens + 1) % 2, torch.full_like(tokens, -1)], -1)
    support[..., 1].masked_fill_(support[..., 1] == tokens, -1)
    for chosen in (None, support):

        def outputs(hidden: Tensor, chosen: Tensor | None = chosen) -> tuple[Tensor, Tensor]:
            out = token_log_probs(
                hidden, head, tokens, keep, 0.7, chosen, chunk_size=3, with_entropy=True
            )
            return out.log_probs, out.entropy

        assert torch.autograd.gradcheck(outputs, hidden.requires_grad_())


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_nothing_kept_still_carries_a_graph(chunk_size):
    hidden, head, tokens, keep = make()
    log_probs, entropy, hidden_grad, weight_grad = run_backward(
        hidden, head, tokens, torch.zeros_like(keep), chunk_size=chunk_size
    )
    for tensor in (log_probs, entropy, hidden_grad, weight_grad):
        assert_close(tensor, torch.zeros_like(tensor), "exact")


def test_float32_from_half_precision_logits():
    hidden, head, tokens, keep = make()
    half = token_log_probs(hidden.bfloat16(), head.bfloat16(), tokens, keep, with_entropy=True)
    assert half.log_probs.dtype == half.entropy.dtype == torch.float32
    logits = head(hidden.bfloat16()[keep]).float().log_softmax(-1)
    assert_close(
        half.log_probs[keep], logits.gather(-1, tokens[keep].unsqueeze(-1)).squeeze(-1), "exact"
    )


def test_bad_input():
    hidden, head, tokens, keep = make()
    with pytest.raises(ValueError, match=r"got \[3, 5, 4\], \[3, 5\], \[3, 4\]"):
        token_log_probs(hidden, head, tokens, keep[:, :4])
    with pytest.raises(ValueError, match="temperature >= 0"):
        token_log_probs(hidden, head, tokens, keep, temperature=-1.0)
    with pytest.raises(ValueError, match="not in its support"):
        token_log_probs(hidden, head, tokens, keep, support=torch.full((3, 5, 2), FORBIDDEN[0]))

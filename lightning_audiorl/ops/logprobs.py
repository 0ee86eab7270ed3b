"""Log-probs and entropy of sampled tokens from hidden states, without holding the logits of all positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]

#: Most bytes that the float32 logits of one chunk take where no chunk size is given.
CHUNK_BYTES = 64 * 2**20

#: Most bytes of float32 probabilities that are kept from the forward to the backward pass where no chunk size is
#: given; what is beyond it is computed twice.
KEPT_BYTES = 128 * 2**20

# Stands for -inf where a log-prob is multiplied with its probability; exp of it is 0, in float64 too.
_FLOOR = -1000.0


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probs of tokens and, when asked for, the entropy of the distributions they were drawn from.

    Args:
        log_probs: [rows, T] float32 (float64 for float64 logits), in nats; 0 where ``keep`` is False.
        entropy: the same shape, in nats; None unless asked for.
    """

    log_probs: Tensor
    entropy: Tensor | None = None


def token_log_probs(
    hidden: Tensor,
    head: Head,
    tokens: Tensor,
    keep: Tensor,
    temperature: float = 1.0,
    support: Tensor | None = None,
    chunk_size: int | None = None,
    with_entropy: bool = False,
    learns_entropy: bool = True,
) -> TokenLogProbs:
    """Score ``tokens`` under softmax(head(hidden) / temperature), at kept positions only.

    Example:
        >>> head = torch.nn.Identity()  # the states are logits over two tokens
        >>> hidden = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log()
        >>> tokens = torch.tensor([[1, 0]])
        >>> keep = torch.tensor([[True, False]])
        >>> token_log_probs(hidden, head, tokens, keep).log_probs.exp()
        tensor([[0.7500, 1.0000]])

    Args:
        hidden: [rows, T, D]; the state at t predicts the token at t. Masked places are never read.
        head: [N, D] -> [N, V] logits; -inf forbids a token.
        tokens: [rows, T] int64.
        keep: [rows, T] bool.
        temperature: that of the sampler; 0 (greedy) is scored at 1.
        support: [rows, T, K] int64, -1 padded: the tokens that truncation kept at each step; the distribution is
            renormalised over them.
        chunk_size: positions per call of the head: 0 is all at once, None as many as `CHUNK_BYTES` of float32 logits
            allow (the head is then asked for no position at all, to learn V). Where there is more than one chunk and
            gradients are on, each is recomputed in the backward pass, so that logits of one chunk only are held; with
            None the last ones, of `KEPT_BYTES` together, are kept instead. The number of calls follows from the number
            of kept positions, so a head that communicates (FSDP) must be gathered before.
        with_entropy: also return the entropy.
        learns_entropy: whether the entropy carries a gradient. Without, probabilities are computed once for both.

    Returns:
        Values bit-identical with and without gradients; with a graph even when nothing is kept.

    Raises:
        ValueError: for shapes that do not fit, a negative temperature or chunk size, or a kept token that is not in
            its support.
    """
    _check(hidden, tokens, keep, support, temperature, chunk_size)

    # The head is as wide as the vocabulary: padding is not worth its logits.
    flat_hidden = hidden[keep]
    flat_tokens = tokens[keep]
    flat_support = None if support is None else support[keep]
    if flat_support is not None:
        is_supported = (flat_support == flat_tokens.unsqueeze(-1)).any(-1)
        if not is_supported.all():
            raise ValueError(
                "token_log_probs: a kept token is not in its support; pass the support of the same rollout"
            )

    def score(hidden: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(hidden)
        target = flat_tokens[index]
        if flat_support is not None:
            # The distribution is over the K tokens of the support; the target is its own place among them.
            allowed = flat_support[index]
            logits = logits.gather(-1, allowed.clamp(min=0))
            logits = logits.masked_fill(allowed < 0, -float("inf"))
            target = (allowed == target.unsqueeze(-1)).int().argmax(-1)
        return _Score.apply(logits, target, temperature, with_entropy, learns_entropy)

    num_kept = 0
    if chunk_size is None:
        chunk_size, num_kept = _chunks(flat_hidden, head)
    chunks = over_chunks(score, (flat_hidden,), chunk_size, num_kept)

    log_probs = scatter(torch.cat([log_prob for log_prob, _ in chunks]), keep)
    if not with_entropy:
        return TokenLogProbs(log_probs)
    entropy = scatter(torch.cat([entropy for _, entropy in chunks]), keep)
    return TokenLogProbs(log_probs, entropy)


@torch.no_grad()
def _chunks(hidden: Tensor, head: Head) -> tuple[int, int]:
    """Positions of a chunk, 0 where all fit into `CHUNK_BYTES`; and how many chunks fit into `KEPT_BYTES`."""
    position_bytes = 4 * head(hidden[:0]).shape[-1]
    chunk_size = max(1, CHUNK_BYTES // position_bytes)
    if chunk_size >= len(hidden):
        return 0, 0
    return chunk_size, KEPT_BYTES // (chunk_size * position_bytes)


class _Score(torch.autograd.Function):
    """Logits [N, V] and targets [N] -> log-probs [N] and entropies [N] (zeros unless asked for).

    Holds one tensor of their size for the backward pass; the logits themselves can go. It is the log-softmax or, where
    only the entropy's value is asked for, the probabilities which that takes anyway.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        temperature: float,
        with_entropy: bool,
        learns_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        log_p = scaled_logits(logits, temperature).log_softmax(-1)
        log_prob = log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        entropy = torch.zeros_like(log_prob)
        kept = log_p
        if with_entropy:
            # 0 * -inf would be NaN for a token that is forbidden.
            log_p.clamp_(min=_FLOOR)
            p = log_p.exp()
            if learns_entropy:
                entropy = p.mul_(log_p).sum(-1).neg_()
            else:
                entropy = log_p.mul_(p).sum(-1).neg_()
                kept = p
                ctx.mark_non_differentiable(entropy)

        ctx.save_for_backward(kept, target, entropy)
        ctx.keeps_p = kept is not log_p
        # Temperature 0 is scored at 1, as in `scaled_logits`.
        ctx.temperature = temperature or 1.0
        ctx.dtype = logits.dtype
        # The gradient of an entropy that nobody uses stays None: a tensor of zeros would cost a pass over the logits.
        ctx.set_materialize_grads(False)
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_log_prob: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """d log p(t) / dx = onehot(t) - p;  d entropy / dx = -p * (log p + entropy); both over the temperature."""
        if grad_log_prob is None and grad_entropy is None:
            return None, None, None, None, None

        kept, target, entropy = ctx.saved_tensors
        if grad_log_prob is None:
            grad_log_prob = torch.zeros_like(entropy)
        else:
            grad_log_prob = grad_log_prob / ctx.temperature
        of_log_prob = grad_log_prob[:, None]

        # In place wherever it can be: [N, V] is the largest tensor of an update.
        if ctx.keeps_p:
            grad = kept * -of_log_prob
        elif grad_entropy is None:
            grad = kept.exp().mul_(-of_log_prob)
        else:
            of_entropy = (grad_entropy / ctx.temperature)[:, None]
            grad = (kept + entropy[:, None]).mul_(of_entropy).add_(of_log_prob)
            grad = grad.mul_(kept.exp()).neg_()
        grad = grad.scatter_add_(-1, target[:, None], of_log_prob)
        return grad.to(ctx.dtype), None, None, None, None


def scaled_logits(logits: Tensor, temperature: float) -> Tensor:
    """``logits / temperature`` in float32 at least; temperature 0 (greedy) counts as 1.

    Example:
        >>> scaled_logits(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), temperature=0.5)
        tensor([2., 4.])
    """
    # Two policies differ by less than bfloat16 can tell; float64 stays, for gradient checks.
    if logits.dtype != torch.float64:
        logits = logits.float()
    return logits if temperature in (0.0, 1.0) else logits / temperature


def over_chunks(
    function: Callable[..., tuple[Tensor, Tensor]],
    states: Sequence[Tensor],
    chunk_size: int,
    num_kept: int = 0,
) -> list[tuple[Tensor, Tensor]]:
    """``function(*state chunks, index)`` over slices of the first dimension of ``states``, in order.

    Example:
        >>> states = torch.tensor([1.0, 2.0, 3.0])
        >>> over_chunks(lambda state, index: (state * 10, index), (states,), chunk_size=2)
        [(tensor([10., 20.]), tensor([0, 1])), (tensor([30.]), tensor([2]))]

    Args:
        function: called with a chunk of each state and the chunk's [n] int64 places in the whole.
        states: tensors of one length N.
        chunk_size: places per call; 0 calls it once, plainly. Otherwise calls are checkpointed where gradients are on.
        num_kept: the last so many calls are plain, too: the backward pass begins with them.
    """
    index = torch.arange(states[0].shape[0], device=states[0].device)
    if chunk_size == 0:
        return [function(*states, index)]

    chunks = list(zip(*(tensor.split(chunk_size) for tensor in (*states, index)), strict=True))
    num_again = max(0, len(chunks) - num_kept) if torch.is_grad_enabled() else 0

    # Reentrant checkpoints give no gradient at all where only the head's weights want one.
    out = [checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks[:num_again]]
    return out + [function(*chunk) for chunk in chunks[num_again:]]


def scatter(values: Tensor, keep: Tensor) -> Tensor:
    """[N] values of the N kept places -> the shape of ``keep``, 0 elsewhere.

    Example:
        >>> scatter(torch.tensor([5.0, 7.0]), torch.tensor([[True, False], [False, True]]))
        tensor([[5., 0.],
                [0., 7.]])
    """
    return values.new_zeros(keep.shape).masked_scatter(keep, values)


def _check(
    hidden: Tensor,
    tokens: Tensor,
    keep: Tensor,
    support: Tensor | None,
    temperature: float,
    chunk_size: int | None,
) -> None:
    shape = hidden.shape[:2]
    fits = hidden.ndim == 3 and tokens.shape == shape and keep.shape == shape
    support_fits = support is None or (support.ndim == 3 and support.shape[:2] == shape)
    if not fits or not support_fits:
        raise ValueError(
            "token_log_probs: expected hidden [rows, T, D], tokens and keep [rows, T], support [rows, T, K] or None; "
            f"got {list(hidden.shape)}, {list(tokens.shape)}, {list(keep.shape)}, "
            f"{None if support is None else list(support.shape)}"
        )
    if temperature < 0 or (chunk_size or 0) < 0:
        raise ValueError(
            f"token_log_probs: want temperature >= 0 and chunk_size >= 0, got {temperature}, {chunk_size}"
        )

"""Our own sampling loop: keyed draws, exact truncation, log-probs under the sampling distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightning_audiorl.models.decoding.inverse import drawn_tokens
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.ops.randomness import keyed_uniform
from lightning_audiorl.types import Decoding, Rollout


class DecodeState(Protocol):
    """A decoder that stands after the prompt (or after the last token given) of some rows."""

    hidden: Tensor
    """[rows, D] hidden state that predicts the next token."""

    def advance(self, tokens: Tensor) -> None:
        """Append ``tokens`` [rows] and move ``hidden`` on."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""


@dataclass(frozen=True)
class Draw:
    """One token for each row.

    Args:
        tokens: [rows] int64.
        log_probs: [rows] float32 under the distribution that they were drawn from.
        support: [rows, K] the tokens that truncation left, padded with -1; None without truncation.
    """

    tokens: Tensor
    log_probs: Tensor
    support: Tensor | None


def _kept(logits: Tensor, decoding: Decoding) -> Tensor | None:
    """[rows, V] bool: the tokens that top-k and top-p leave; None when both are off."""
    if decoding.temperature == 0 or (decoding.top_k == 0 and decoding.top_p >= 1.0):
        return None

    # Stable, so that of equally likely tokens the same ones are kept on every device.
    order = torch.argsort(logits, dim=-1, descending=True, stable=True)
    ranked = logits.gather(-1, order)
    keep = torch.isfinite(ranked)

    if decoding.top_k:
        keep[:, decoding.top_k :] = False
    if decoding.top_p < 1.0:
        remaining = ranked.masked_fill(~keep, -torch.inf)
        probs = torch.softmax(remaining.double(), dim=-1)
        # The mass before a token, so that the one that reaches top_p is still kept.
        keep &= (probs.cumsum(-1) - probs) < decoding.top_p

    return torch.zeros_like(keep).scatter(-1, order, keep)


def _padded_indices(kept: Tensor) -> Tensor:
    """[rows, V] bool -> [rows, K] indices of the True places, padded with -1."""
    width = int(kept.sum(-1).max())
    # Kept ones first, in their own order.
    order = torch.argsort((~kept).to(torch.uint8), dim=-1, stable=True)
    index = order[:, :width]
    return torch.where(kept.gather(-1, index), index, -1)


def draw(logits: Tensor, uniform: Tensor, decoding: Decoding) -> Draw:
    """One token per row by the inverse of the cumulative distribution.

    Example:
        >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> uniform = torch.tensor([0.6], dtype=torch.float64)
        >>> draw(logits, uniform, Decoding()).tokens
        tensor([1])
        >>> draw(logits, uniform, Decoding(temperature=0)).tokens
        tensor([0])
        >>> draw(logits, uniform, Decoding(top_k=1)).support
        tensor([[0]])

    Args:
        logits: [rows, V]; -inf where a token is not allowed.
        uniform: [rows] float64 in [0, 1); not read when greedy.
        decoding: temperature and truncation.
    """
    logits = logits.float()
    if decoding.temperature not in (0.0, 1.0):
        logits = logits / decoding.temperature
    kept = _kept(logits, decoding)
    if kept is not None:
        logits = logits.masked_fill(~kept, -torch.inf)
    log_probs = torch.log_softmax(logits, dim=-1)

    if decoding.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        tokens = drawn_tokens(log_probs, uniform)

    chosen = log_probs.gather(-1, tokens[:, None]).squeeze(-1)
    support = None if kept is None else _padded_indices(kept)
    return Draw(tokens, chosen, support)


def keyed_uniforms(
    ids: Sequence[str], group_size: int, caps: Sequence[int], key: SampleKey
) -> Tensor:
    """[B*G, max cap] float64 draws; row b*G+g depends on (key, ids[b], g) alone.

    Example:
        >>> key = SampleKey(seed=0, rl_step=3)
        >>> both = keyed_uniforms(["a", "b"], group_size=2, caps=[4, 5], key=key)
        >>> alone = keyed_uniforms(["b"], group_size=2, caps=[5], key=key)
        >>> bool((both[2:] == alone).all())
        True
    """
    out = torch.zeros(len(ids) * group_size, max(caps), dtype=torch.float64)
    for b, (prompt_id, cap) in enumerate(zip(ids, caps, strict=True)):
        for g in range(group_size):
            out[b * group_size + g, :cap] = keyed_uniform(
                cap, key.purpose, key.seed, key.rl_step, prompt_id, g
            )
    return out


def _stack_support(steps: list[tuple[Tensor, Tensor]], rows: int) -> Tensor:
    """[rows, T, K] of T steps' (rows drawn for, their support), padded with -1."""
    width = max(index.shape[-1] for _, index in steps)
    shape = (rows, len(steps), width)
    out = torch.full(shape, -1, dtype=torch.long, device=steps[0][1].device)
    for t, (at, index) in enumerate(steps):
        out[at, t, : index.shape[-1]] = index
    return out


class _Completions:
    """What has been drawn so far, for B*G rows of at most ``length`` tokens.

    Args:
        num_rows: B*G.
        length: the largest cap.
        fill: a valid token, which stands where nothing was drawn.
        device: of the model.
    """

    def __init__(self, num_rows: int, length: int, fill: int, device: torch.device) -> None:
        self.tokens = torch.full((num_rows, length), fill, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(num_rows, length, device=device)
        self.keep = torch.zeros(num_rows, length, dtype=torch.bool, device=device)
        self.finished = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.supports: list[tuple[Tensor, Tensor]] = []

    def append(self, t: int, rows: Tensor, alive: Tensor, drawn: Draw) -> None:
        """Enter the tokens drawn at step ``t`` for ``rows``; those of rows that are not alive are dropped."""
        live = rows[alive]
        self.tokens[live, t] = drawn.tokens[alive]
        self.log_probs[live, t] = drawn.log_probs[alive]
        self.keep[live, t] = True
        if drawn.support is not None:
            self.supports.append((live, drawn.support[alive]))

    def rollout(self, num_prompts: int, group_size: int) -> Rollout:
        """All completions, as wide as the longest."""
        width = int(self.keep.sum(-1).max())
        shape = (num_prompts, group_size, width)
        support = None
        if self.supports:
            stacked = _stack_support(self.supports, len(self.tokens))
            support = stacked[:, :width].reshape(*shape, -1)
        return Rollout(
            self.tokens[:, :width].reshape(shape),
            self.keep[:, :width].reshape(shape),
            self.log_probs[:, :width].reshape(shape),
            self.finished.reshape(shape[:2]),
            support,
        )


@torch.no_grad()
def sample(
    state: DecodeState,
    head: Callable[[Tensor], Tensor],
    stop_ids: Sequence[int],
    ids: Sequence[str],
    group_size: int,
    caps: Sequence[int],
    decoding: Decoding,
    key: SampleKey,
    ended: Callable[[Tensor], Tensor] | None = None,
) -> Rollout:
    """Continue each row until a stop token or its cap.

    Finished rows leave the batch as soon as they are half of it; no draw depends on who else is in the batch.

    Args:
        state: stands after the prompts of B*G rows, prompt by prompt.
        head: hidden [rows, D] -> logits [rows, V].
        stop_ids: tokens that end a completion; the one drawn is kept.
        ids: B prompt ids.
        group_size: G.
        caps: B length caps in tokens, stop token included.
        decoding: temperature and truncation.
        key: names the rollout.
        ended: tokens [rows] just drawn for ``state`` -> [rows] bool, which of them end their completion; by default
            those of ``stop_ids``.
    """
    device = state.hidden.device
    num_rows = len(ids) * group_size
    uniforms = keyed_uniforms(ids, group_size, caps, key).to(device)
    cap = torch.tensor(caps, device=device).repeat_interleave(group_size)
    stops = torch.tensor(list(stop_ids), device=device)
    completions = _Completions(num_rows, max(caps), int(stops[0]), device)

    # Of the rows that are still in the batch: which of the whole each is, and whether it goes on.
    rows = torch.arange(num_rows, device=device)
    alive = torch.ones(num_rows, dtype=torch.bool, device=device)
    for t in range(max(caps)):
        drawn = draw(head(state.hidden), uniforms[rows, t], decoding)
        completions.append(t, rows, alive, drawn)

        stopped = torch.isin(drawn.tokens, stops) if ended is None else ended(drawn.tokens)
        stopped = stopped & alive
        completions.finished[rows[stopped]] = True
        alive = alive & ~stopped & (cap[rows] > t + 1)
        num_alive = int(alive.sum())
        if num_alive == 0:
            break

        # Taking rows out copies the cache, which pays once half of them are done.
        next_tokens = drawn.tokens
        if num_alive <= len(rows) // 2:
            chosen = alive.nonzero().squeeze(-1)
            state.select(chosen)
            rows = rows[chosen]
            next_tokens = next_tokens[chosen]
            alive = alive[chosen]
        state.advance(next_tokens)

    return completions.rollout(len(ids), group_size)

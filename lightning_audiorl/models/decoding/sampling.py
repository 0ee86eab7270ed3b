"""Our own sampling loop: keyed draws, exact truncation, log-probs under the sampling distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

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
class _Draw:
    tokens: Tensor
    log_probs: Tensor
    support: Tensor | None


def _kept(logits: Tensor, decoding: Decoding) -> Tensor | None:
    """[rows, V] bool: the tokens that top-k and top-p leave; None when both are off."""
    if decoding.temperature == 0 or (decoding.top_k == 0 and decoding.top_p >= 1.0):
        return None
    order = torch.argsort(logits, dim=-1, descending=True, stable=True)
    ranked = logits.gather(-1, order)
    keep = torch.isfinite(ranked)
    if decoding.top_k:
        keep[:, decoding.top_k :] = False
    if decoding.top_p < 1.0:
        probs = torch.softmax(ranked.masked_fill(~keep, -torch.inf).double(), dim=-1)
        keep &= (probs.cumsum(-1) - probs) < decoding.top_p
    return torch.zeros_like(keep).scatter(-1, order, keep)


def _padded_indices(kept: Tensor) -> Tensor:
    """[rows, V] bool -> [rows, K] indices of the True places, padded with -1."""
    width = int(kept.sum(-1).max())
    index = torch.argsort((~kept).to(torch.uint8), dim=-1, stable=True)[:, :width]
    return torch.where(kept.gather(-1, index), index, -1)


def draw(logits: Tensor, uniform: Tensor, decoding: Decoding) -> _Draw:
    """One token per row by the inverse of the cumulative distribution.

    Args:
        logits: [rows, V]; -inf where a token is not allowed.
        uniform: [rows] float64 in [0, 1); not read when greedy.
        decoding: temperature and truncation.
    """
    logits = logits.float()
    if decoding.temperature > 0:
        logits = logits / decoding.temperature
    kept = _kept(logits, decoding)
    if kept is not None:
        logits = logits.masked_fill(~kept, -torch.inf)
    log_probs = torch.log_softmax(logits, dim=-1)
    if decoding.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        cumulative = log_probs.double().exp().cumsum(-1)
        target = uniform[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    chosen = log_probs.gather(-1, tokens[:, None]).squeeze(-1)
    return _Draw(tokens, chosen, None if kept is None else _padded_indices(kept))


def keyed_uniforms(ids: Sequence[str], group_size: int, caps: Sequence[int], key: SampleKey) -> Tensor:
    """[B*G, max cap] float64 draws; row b*G+g depends on (key, ids[b], g) alone."""
    out = torch.zeros(len(ids) * group_size, max(caps), dtype=torch.float64)
    for b, (prompt_id, cap) in enumerate(zip(ids, caps, strict=True)):
        for g in range(group_size):
            out[b * group_size + g, :cap] = keyed_uniform(cap, key.purpose, key.seed, key.rl_step, prompt_id, g)
    return out


def _stack_support(steps: list[tuple[Tensor, Tensor]], rows: int) -> Tensor:
    width = max(index.shape[-1] for _, index in steps)
    out = torch.full((rows, len(steps), width), -1, dtype=torch.long, device=steps[0][1].device)
    for t, (at, index) in enumerate(steps):
        out[at, t, : index.shape[-1]] = index
    return out


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
    """
    num_rows, device = len(ids) * group_size, state.hidden.device
    uniforms = keyed_uniforms(ids, group_size, caps, key).to(device)
    cap = torch.tensor(caps, device=device).repeat_interleave(group_size)
    stops = torch.tensor(list(stop_ids), device=device)
    tokens = torch.full((num_rows, max(caps)), int(stops[0]), dtype=torch.long, device=device)
    log_probs = torch.zeros(num_rows, max(caps), device=device)
    keep = torch.zeros(num_rows, max(caps), dtype=torch.bool, device=device)
    finished = torch.zeros(num_rows, dtype=torch.bool, device=device)
    supports: list[tuple[Tensor, Tensor]] = []
    rows = torch.arange(num_rows, device=device)
    alive = torch.ones(num_rows, dtype=torch.bool, device=device)
    for t in range(max(caps)):
        drawn = draw(head(state.hidden), uniforms[rows, t], decoding)
        live = rows[alive]
        tokens[live, t], log_probs[live, t], keep[live, t] = drawn.tokens[alive], drawn.log_probs[alive], True
        if drawn.support is not None:
            supports.append((live, drawn.support[alive]))
        stopped = torch.isin(drawn.tokens, stops) & alive
        finished[rows[stopped]] = True
        alive = alive & ~stopped & (cap[rows] > t + 1)
        num_alive = int(alive.sum())
        if num_alive == 0:
            break
        next_tokens = drawn.tokens
        if num_alive <= len(rows) // 2:
            chosen = alive.nonzero().squeeze(-1)
            state.select(chosen)
            rows, next_tokens, alive = rows[chosen], next_tokens[chosen], alive[chosen]
        state.advance(next_tokens)
    width = int(keep.sum(-1).max())
    shape = (len(ids), group_size, width)
    return Rollout(
        tokens[:, :width].reshape(shape),
        keep[:, :width].reshape(shape),
        log_probs[:, :width].reshape(shape),
        finished.reshape(shape[:2]),
        _stack_support(supports, num_rows)[:, :width].reshape(*shape, -1) if supports else None,
    )

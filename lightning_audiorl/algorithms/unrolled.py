"""A differentiable rollout of a few steps: the language model reads its own relaxed codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lightning_audiorl.algorithms.relaxation import RelaxedChunk
from lightning_audiorl.models.policy import Context, Policy
from lightning_audiorl.ops.logprobs import over_chunks, scatter


def unrolled_states(
    chunk: RelaxedChunk, context: Context, tokens: Tensor, read: Tensor, chunk_size: Callable[[Tensor], int]
) -> Tensor:
    """As `Policy.hidden`, but the first ``chunk.how.unrolled`` codes of each sample are read relaxed.

    The relaxed code of position t, ``u_t @ table`` with the language model's own embeddings, is what the model reads
    at t + 1, so that the gradient of whatever is made of later positions flows through it into the distribution at t.
    The draws are those of the position's key, the same as without. Each such code takes a forward pass of its own over
    the prompt and the codes before it, which is held for the backward pass; their logits are not.

    Where `Relaxation.keeps_values`, what is returned has the values of `Policy.hidden`. Samples that are not read, and
    codes that nothing read follows, stay as they are.

    Args:
        chunk: of the read positions, sample by sample.
        context: B prompts.
        tokens: [B, G, T], the own samples.
        read: [B*G, T] bool.
        chunk_size: of [n, D] states, positions per call of the head; 0 takes all at once.

    Returns:
        [B*G, T, D] with a graph.
    """
    policy, how = chunk.policy, chunk.how
    end = policy.code_to_token.new_tensor(policy.stop_ids[:1])
    table = policy.embedded(torch.cat([policy.code_to_token, end]))
    of_model = replace(chunk, table=table.to(torch.promote_types(table.dtype, torch.float32)), reference=None)
    place = scatter(torch.arange(len(chunk.own), device=read.device), read)
    follows = scatter(chunk.spoken, read)[:, :-1] & read[:, 1:]
    inputs = policy.embedded(tokens[:, :, :-1])

    def relaxed(states: Tensor, places: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        return of_model(states, places)

    for t in range(min(how.unrolled, follows.shape[1])):
        rows = follows[:, t].nonzero().squeeze(-1)
        if not len(rows):
            continue
        states = policy.hidden_of(context, inputs[:, :, :t])[rows, t]
        parts = over_chunks(relaxed, (states, place[rows, t]), chunk_size(states) or len(rows))
        code = torch.cat([part[0] for part in parts]).to(inputs.dtype)
        where = rows, torch.full_like(rows, t)
        flat = inputs.flatten(0, 1)
        if how.keeps_values:  # whatever the precision of the product
            code = flat[where].detach() + (code - code.detach())
        inputs = flat.index_put(where, code).view_as(inputs)
    hidden: Tensor = policy.hidden_of(context, inputs)
    return hidden


def require_unrollable(policy: Policy, who: str) -> None:
    """See that a policy reads points between its tokens.

    Raises:
        ValueError: for one that does not.
    """
    missing = [name for name in ("embedded", "hidden_of") if not hasattr(policy, name)]
    if missing:
        raise ValueError(
            f"{who}: relaxation.unrolled wants a policy that reads relaxed codes, such as SpeechLMPolicy; "
            f"{type(policy).__name__} has no {', '.join(missing)}. Set it to 0"
        )

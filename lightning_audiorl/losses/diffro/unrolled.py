"""A differentiable rollout of a few steps: the language model reads its own relaxed codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lightning_audiorl.losses.diffro.relaxation import RelaxedChunk
from lightning_audiorl.models.policy import Context
from lightning_audiorl.ops.logprobs import over_chunks, scatter


def unrolled_states(
    chunk: RelaxedChunk,
    context: Context,
    tokens: Tensor,
    used: Tensor,
    chunk_size: Callable[[Tensor], int],
) -> Tensor:
    """Hidden states as of `Policy.hidden`, but the first ``chunk.how.unrolled`` codes of each sample are read relaxed.

    The relaxed code of position t, ``u_t @ table`` with the language model's own embeddings, is what the model reads
    at t + 1, so that the gradient of whatever is made of later positions flows through it into the distribution at t.
    The draws are those of the position's key, the same as without. Each such code takes a forward pass of its own over
    the prompt and the codes before it, which is held for the backward pass; their logits are not.

    Where `Relaxation.keeps_values`, what is returned has the values of `Policy.hidden`. Samples that are not used, and
    codes that nothing read follows, stay as they are.

    Args:
        chunk: of the used positions, sample by sample.
        context: B prompts.
        tokens: [B, G, T], the own samples.
        used: [B*G, T] bool.
        chunk_size: of [n, D] states, positions per call of the head; 0 takes all at once.

    Returns:
        [B*G, T, D] with a graph.
    """
    policy = chunk.policy
    how = chunk.how

    # The same relaxation, but of the language model's own embeddings, the stop token's in the last row.
    stop = policy.code_to_token.new_tensor(policy.stop_ids[:1])
    table = policy.embedded(torch.cat([policy.code_to_token, stop]))
    wide_table = table.to(torch.promote_types(table.dtype, torch.float32))
    of_model = replace(chunk, table=wide_table, reference=None)

    def relaxed(states: Tensor, places: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        return of_model(states, places)

    place = scatter(torch.arange(len(chunk.own), device=used.device), used)
    is_followed = scatter(chunk.spoken, used)[:, :-1] & used[:, 1:]
    inputs = policy.embedded(tokens[:, :, :-1])

    for t in range(min(how.unrolled, is_followed.shape[1])):
        samples = is_followed[:, t].nonzero().squeeze(-1)
        if not len(samples):
            continue

        states = policy.hidden_of(context, inputs[:, :, :t])[samples, t]
        chunks = over_chunks(
            relaxed, (states, place[samples, t]), chunk_size(states) or len(samples)
        )
        code = torch.cat([embedded for embedded, _ in chunks]).to(inputs.dtype)

        where = (samples, torch.full_like(samples, t))
        flat = inputs.flatten(0, 1)
        if how.keeps_values:  # whatever the precision of the product
            code = flat[where].detach() + (code - code.detach())
        inputs = flat.index_put(where, code).view_as(inputs)

    return policy.hidden_of(context, inputs)

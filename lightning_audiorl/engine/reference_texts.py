"""How probable a policy finds the reference texts of encoded prompts: one pass without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.models.policy import Context, Policy
from lightning_audiorl.types import Rollout, Utterance


def is_empty(row: Utterance) -> bool:
    """Whether the right answer to a row is no text at all.

    Example:
        >>> is_empty(Utterance("noise", (), "", 1.0)), is_empty(Utterance("speech", (), "one", 1.0))
        (True, False)
    """
    return not row.text.strip()


@torch.no_grad()
def reference_log_probs(
    policy: Policy,
    context: Context,
    texts: Sequence[str],
    temperature: float = 1.0,
    chunk_size: int | None = None,
    batch_size: int = 0,
) -> list[float]:
    """Log-probability of each text with its stop token, in nats, as the policy samples.

    Args:
        policy: in eval mode.
        context: B encoded prompts.
        texts: B.
        temperature: of the distribution; 0 (greedy) is scored at 1.
        chunk_size: positions per call of the head; see `ops.token_log_probs`.
        batch_size: prompts per pass; 0 takes all at once.

    Returns:
        B sums over tokens; NaN for a text that the policy cannot write: outside its vocabulary, longer than it has
        places for, or with a token that is never sampled.
    """
    sums: list[float] = []
    size = batch_size or len(texts)
    for start in range(0, len(texts), size):
        index = list(range(start, min(start + size, len(texts))))
        part = context if len(index) == len(texts) else context.select(index)
        targets, is_text = _targets(policy, part, [texts[i] for i in index])

        scored = ops.token_log_probs(
            policy.hidden(part, targets),
            policy.head,
            targets.tokens.flatten(0, 1),
            targets.keep.flatten(0, 1),
            temperature,
            chunk_size=chunk_size,
        )
        per_text = scored.log_probs.double().sum(-1)
        # A token that is never sampled has the log-probability -inf: no mean could hold it.
        is_text = is_text & per_text.isfinite().cpu()
        sums += per_text.cpu().masked_fill(~is_text, float("nan")).tolist()
    return sums


def _targets(policy: Policy, context: Context, texts: Sequence[str]) -> tuple[Rollout, Tensor]:
    """The texts as targets, and [B] bool, which of them are texts that the policy has tokens for."""
    try:
        return policy.targets(context, texts), torch.ones(len(texts), dtype=torch.bool)
    except ValueError:
        pass

    # Some text is at fault, and is passed over; the empty one stands in its place.
    is_text = []
    for i, text in enumerate(texts):
        try:
            policy.targets(context.select([i]), [text])
        except ValueError:
            is_text.append(False)
        else:
            is_text.append(True)
    written = [text if ok else "" for text, ok in zip(texts, is_text, strict=True)]
    return policy.targets(context, written), torch.tensor(is_text)

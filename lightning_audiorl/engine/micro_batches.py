"""Which groups go through the model together: neighbours in length, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_audiorl.engine.distributed import equal_passes
from lightning_audiorl.losses import MicroBatch, RLStep
from lightning_audiorl.strategies import RLStrategy


def micro_batches(
    prompt_lengths: Sequence[int],
    completion_lengths: Sequence[int],
    group_size: int,
    max_tokens: int | None = None,
    max_prompts: int | None = None,
) -> list[list[int]]:
    """Split B groups into pieces, a group always whole.

    A piece of n groups costs ``n * (longest prompt + group_size * longest completion)`` tokens, padding included.

    Args:
        prompt_lengths: B, in tokens.
        completion_lengths: B, the longest completion of each group in tokens.
        group_size: G.
        max_tokens: most padded tokens in a piece; a group that is larger has a piece of its own. None or 0 is no limit.
        max_prompts: most groups in a piece. None or 0 is no limit.

    Returns:
        Indices of the groups, each in exactly one piece. Without a limit one piece in the given order; else shortest
        groups first.

    Raises:
        ValueError: for lists of unequal lengths or negative limits.

    Example:
        >>> micro_batches([10, 50, 12], [5, 5, 5], group_size=4, max_tokens=70)
        [[0, 2], [1]]
    """
    num = len(prompt_lengths)
    if len(completion_lengths) != num:
        raise ValueError(
            f"micro_batches: {num} prompt lengths, {len(completion_lengths)} completion lengths"
        )
    if min(max_tokens or 0, max_prompts or 0) < 0 or group_size < 1:
        raise ValueError(
            "micro_batches: want max_tokens >= 0, max_prompts >= 0, group_size >= 1; "
            f"got {max_tokens}, {max_prompts}, {group_size}"
        )

    def cost(piece: list[int]) -> int:
        longest_prompt = max(prompt_lengths[i] for i in piece)
        longest_completion = max(completion_lengths[i] for i in piece)
        return len(piece) * (longest_prompt + group_size * longest_completion)

    def fits(piece: list[int]) -> bool:
        return (not max_prompts or len(piece) <= max_prompts) and (
            not max_tokens or cost(piece) <= max_tokens
        )

    if num == 0:
        return []
    whole = list(range(num))
    if fits(whole):
        return [whole]

    # Neighbours in length share a piece, so that little of it is padding.
    pieces: list[list[int]] = []
    for i in sorted(whole, key=lambda i: (cost([i]), completion_lengths[i], i)):
        if pieces and fits([*pieces[-1], i]):
            pieces[-1].append(i)
        else:
            pieces.append([i])
    return pieces


def step_micro_batches(
    step: RLStep,
    strategy: RLStrategy,
    max_tokens: int | None = None,
    max_prompts: int | None = None,
) -> Iterator[MicroBatch]:
    """The groups of a step in pieces of neighbouring lengths, as many on every rank as its strategy wants.

    Args:
        step: B prompts, G samples each.
        strategy: through which ranks agree.
        max_tokens, max_prompts: see `micro_batches`.
    """
    context = step.context
    rollout = step.rollout
    longest = rollout.lengths.amax(-1).tolist()
    group_size = rollout.tokens.shape[1]
    pieces = micro_batches(context.prompt_lengths, longest, group_size, max_tokens, max_prompts)

    for index, counts in equal_passes(strategy, pieces):
        rows = tuple(step.batch.rows[i] for i in index)
        # The whole step is taken as it is: nothing is copied.
        if index == list(range(len(context))):
            yield MicroBatch(index, rows, context, rollout, float(counts))
        else:
            yield MicroBatch(
                index, rows, context.select(index), rollout.select(index), float(counts)
            )

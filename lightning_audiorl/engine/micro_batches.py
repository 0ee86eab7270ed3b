"""Which groups go through the model together: neighbours in length, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence


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
    """
    num = len(prompt_lengths)
    if len(completion_lengths) != num:
        raise ValueError(f"micro_batches: {num} prompt lengths, {len(completion_lengths)} completion lengths")
    if min(max_tokens or 0, max_prompts or 0) < 0 or group_size < 1:
        raise ValueError(
            "micro_batches: want max_tokens >= 0, max_prompts >= 0, group_size >= 1; "
            f"got {max_tokens}, {max_prompts}, {group_size}"
        )

    def cost(piece: list[int]) -> int:
        longest_prompt = max(prompt_lengths[i] for i in piece)
        longest_completion = max(completion_lengths[i] for i in piece)
        return len(piece) * (longest_prompt + group_size * longest_completion)

    if num == 0:
        return []
    whole = list(range(num))
    if (not max_prompts or num <= max_prompts) and (not max_tokens or cost(whole) <= max_tokens):
        return [whole]
    pieces: list[list[int]] = []
    for i in sorted(whole, key=lambda i: (cost([i]), completion_lengths[i], i)):
        last = pieces[-1] if pieces else []
        fits = bool(last) and (not max_prompts or len(last) < max_prompts)
        if fits and (not max_tokens or cost([*last, i]) <= max_tokens):
            last.append(i)
        else:
            pieces.append([i])
    return pieces

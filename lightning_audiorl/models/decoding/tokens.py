"""Texts to target tokens and completions back to texts, for every family with a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl.types import Rollout


def allowed_tokens(
    tokenizer: PreTrainedTokenizerBase, vocab_size: int, stop_ids: Sequence[int]
) -> Tensor:
    """[V] bool: text tokens and stop tokens; not the other special tokens, nor ids the tokenizer does not know.

    Example:
        >>> from lightning_audiorl.models.tiny import word_tokenizer
        >>> tokenizer = word_tokenizer(["yes", "no"])  # five special tokens before them, 2 is the stop token
        >>> allowed_tokens(tokenizer, vocab_size=8, stop_ids=[2]).nonzero().flatten().tolist()
        [2, 5, 6]
    """
    allowed = torch.zeros(vocab_size, dtype=torch.bool)
    # An embedding is often padded to more rows than the tokenizer has tokens.
    allowed[: min(vocab_size, len(tokenizer))] = True

    allowed[[i for i in tokenizer.all_special_ids if i < vocab_size]] = False
    # mistral-common's has a method in its place, which raises; all its control tokens are special.
    added = tokenizer.added_tokens_decoder
    tokens = {} if callable(added) else added
    special = [i for i, token in tokens.items() if token.special and i < vocab_size]
    allowed[special] = False

    # Last: stop tokens are special tokens, too.
    allowed[list(stop_ids)] = True
    return allowed


def padded(
    rows: Sequence[Sequence[int]], fill: int, device: torch.device, side: Literal["left", "right"]
) -> tuple[Tensor, Tensor]:
    """Prompts as ids [B, P] and their keep mask [B, P] int64, padded on ``side`` with ``fill``.

    Example:
        >>> ids, keep = padded([[5, 6], [7]], 0, torch.device("cpu"), "left")
        >>> ids.tolist(), keep.tolist()
        ([[5, 6], [0, 7]], [[1, 1], [0, 1]])
    """
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), fill, dtype=torch.long)
    keep = torch.zeros(len(rows), longest, dtype=torch.long)
    for b, row in enumerate(rows):
        start = longest - len(row) if side == "left" else 0
        ids[b, start : start + len(row)] = torch.tensor(row)
        keep[b, start : start + len(row)] = 1
    return ids.to(device), keep.to(device)


def decode_groups(tokenizer: PreTrainedTokenizerBase, rollout: Rollout) -> list[list[str]]:
    """B lists of G texts without special tokens.

    Example:
        >>> from lightning_audiorl.models.tiny import word_tokenizer
        >>> rollout = targets_of([[5, 6, 2], [2]], fill=2, device=torch.device("cpu"))
        >>> decode_groups(word_tokenizer(["yes", "no"]), rollout)
        [['yes no'], ['']]
    """
    groups = []
    for tokens, lengths in zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True):
        rows = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
        groups.append(
            [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]
        )
    return groups


def target_rollout(
    tokenizer: PreTrainedTokenizerBase,
    allowed: Tensor,
    ids: Sequence[str],
    texts: Sequence[str],
    stop_id: int,
) -> Rollout:
    """Reference texts as a rollout of G=1, the stop token appended.

    Example:
        >>> from lightning_audiorl.models.tiny import word_tokenizer
        >>> tokenizer = word_tokenizer(["yes", "no"])
        >>> allowed = allowed_tokens(tokenizer, 7, [2])
        >>> target_rollout(tokenizer, allowed, ["a", "b"], ["yes no", ""], stop_id=2).tokens.tolist()
        [[[5, 6, 2]], [[2, 2, 2]]]

    Raises:
        ValueError: where a text holds a token that the model may not produce (for a word-level tokenizer: a word
            outside its vocabulary).
    """
    # On the host, where a look at each token costs nothing.
    permitted = allowed.cpu()
    rows = []
    for row_id, text in zip(ids, texts, strict=True):
        row = tokenizer.encode(text, add_special_tokens=False)
        bad = [token for token in row if not permitted[token]]
        if bad:
            raise ValueError(
                f"row {row_id!r}: text {text!r} is outside the tokenizer's vocabulary (gives token "
                f"{tokenizer.convert_ids_to_tokens(bad[0])!r}); normalise the text or use another tokenizer"
            )
        rows.append([*row, stop_id])
    return targets_of(rows, stop_id, allowed.device)


def targets_of(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> Rollout:
    """Target tokens, stop token included, as a rollout of G=1: log-probs zero, every completion finished.

    Example:
        >>> rollout = targets_of([[7, 2], [2]], fill=2, device=torch.device("cpu"))
        >>> rollout.tokens.tolist(), rollout.lengths.tolist()
        ([[[7, 2]], [[2, 2]]], [[2], [1]])
    """
    ids, mask = padded(rows, fill, device, "right")
    tokens = ids[:, None]
    keep = mask[:, None].bool()
    log_probs = torch.zeros_like(tokens, dtype=torch.float32)
    return Rollout(tokens, keep, log_probs, torch.ones_like(keep[..., 0]))

"""A recogniser of transformers that may write nothing but the words of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from lightning_audiorl.judges.base import JudgeError

_Branch = dict[int, "_Branch"]
"""By token, what may come behind it within a word; nothing where the word has ended."""


class ClosedVocabulary(LogitsProcessor):
    """Keeps ``generate`` to words of a list, any number of them in any order. For one call.

    It reads how the tokenizer writes each word behind a space. Words are told apart as far as their tokens are: of two
    words one of which begins with all tokens of the other, both can be written.

    Args:
        tokenizer: of the model.
        words: that may be written, as it writes them.
        ends: tokens that end a transcript.

    Raises:
        ValueError: for a word that the tokenizer has no token for.
    """

    def __init__(self, tokenizer: Any, words: Sequence[str], ends: Sequence[int]) -> None:
        self.ends = list(ends)
        self.root: _Branch = {}
        self.last: set[tuple[int, ...]] = set()
        for word in words:
            tokens = tokenizer.encode(f" {word}", add_special_tokens=False)
            if not tokens:
                raise ValueError(f"TransformersJudge.words: {word!r} has no token")
            self.last.add(tuple(tokens))
            branch = self.root
            for token in tokens:
                branch = branch.setdefault(token, {})
        self._num_prompt: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores of tokens that may come next; all others are minus infinity.

        Args:
            input_ids: [B, T], those of the prompt among them.
            scores: [B, vocabulary].

        Raises:
            JudgeError: where the model itself suppresses all that may come next.
        """
        if self._num_prompt is None:
            self._num_prompt = input_ids.shape[1]
        kept = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(input_ids[:, self._num_prompt :].tolist()):
            allowed = self.after(tokens)
            kept[row, allowed] = scores[row, allowed]
        if not bool(kept.isfinite().any(-1).all()):
            raise JudgeError("the model's own settings suppress every token of the words")
        return kept

    def after(self, tokens: Sequence[int]) -> list[int]:
        """What may come behind the tokens of a transcript."""
        branch = self.root
        word: tuple[int, ...] = ()
        for token in tokens:
            # Behind an end there is padding alone.
            if token in self.ends:
                return self.ends
            if token not in branch:
                branch, word = self.root, ()
            branch = branch[token]
            word = (*word, token)

        if not word:
            return [*self.root, *self.ends]
        if word in self.last:
            return [*branch, *self.root, *self.ends]
        return list(branch)

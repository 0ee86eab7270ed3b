"""Texts to tokens and back, on tokenizers that can be computed in the head."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AddedToken, PreTrainedTokenizerFast

from lightning_audiorl.models.decoding.tokens import allowed_tokens, decode_groups, padded
from lightning_audiorl.models.tiny import word_tokenizer
from lightning_audiorl.types import Rollout
from tests.models.families import batch_of, make


def test_special_tokens_and_ids_beyond_the_tokenizer_are_not_allowed() -> None:
    tokenizer = word_tokenizer(["yes", "no"])
    tokenizer.add_tokens([AddedToken("<|odd|>", special=True), "maybe"])
    assert tokenizer.convert_tokens_to_ids(["yes", "no", "<|odd|>", "maybe"]) == [5, 6, 7, 8]
    assert allowed_tokens(tokenizer, 12, [2]).nonzero().squeeze(-1).tolist() == [2, 5, 6, 8]
    assert allowed_tokens(tokenizer, 6, [2, 4]).nonzero().squeeze(-1).tolist() == [2, 4, 5]


def test_prompts_are_padded_on_the_left() -> None:
    ids, keep = padded([[7], [8, 9, 8]], 2, torch.device("cpu"), "left")
    assert ids.tolist() == [[2, 2, 7], [8, 9, 8]]
    assert keep.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_decoding_reads_kept_tokens_only() -> None:
    tokens = torch.tensor([[[5, 6, 2], [6, 2, 5]]])
    keep = torch.tensor([[[True, True, True], [True, True, False]]])
    rollout = Rollout(tokens, keep, torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    assert decode_groups(word_tokenizer(["yes", "no"]), rollout) == [["yes no", "no"]]


def test_whisper_begins_its_transcripts_with_a_space_but_not_the_empty_one() -> None:
    tokenizer = Tokenizer(
        BPE({letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, [])
    )
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    policy = make("whisper")
    context = policy.encode(batch_of(["a", "b"]))
    policy.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    policy.allowed = policy._writable = torch.ones(256, dtype=torch.bool)
    targets = policy.targets(context, ["ab", ""])
    assert targets.lengths.tolist() == [[4], [1]]
    assert policy.tokenizer.convert_ids_to_tokens(targets.tokens[0, 0, :3].tolist()) == [
        "Ġ",
        "a",
        "b",
    ]

"""Dataclasses over prompts: shapes are checked where they are made, prompts are selected, joined and moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import torch
from torch import Tensor

from lightning_audiorl.fields import Batched, PerPrompt, Shape
from lightning_audiorl.ops.join import join_rollouts
from lightning_audiorl.types import PromptBatch, Rollout, Scores, Utterance


def rollout_of(rows: list[list[int]], width: int, num_kept: int = 0) -> Rollout:
    """Prompts with G=1; a row is its tokens. With ``num_kept`` there is a support of so many tokens."""
    tokens = torch.full((len(rows), 1, width), 99)
    keep = torch.zeros(len(rows), 1, width, dtype=torch.bool)
    for b, row in enumerate(rows):
        tokens[b, 0, : len(row)] = torch.tensor(row)
        keep[b, 0, : len(row)] = True
    support = tokens[..., None].repeat(1, 1, 1, num_kept) if num_kept else None
    return Rollout(
        tokens, keep, tokens.float(), torch.ones(len(rows), 1, dtype=torch.bool), support
    )


def batch_of(names: str, lengths: list[int], with_targets: bool = False) -> PromptBatch:
    waveform = torch.zeros(len(names), max(lengths))
    for row, length in zip(waveform, lengths, strict=True):
        row[:length] = length
    rows = tuple(Utterance(name, (), name, 1.0) for name in names)
    num_samples = torch.tensor(lengths)
    targets = (waveform + 1, num_samples) if with_targets else (None, None)
    return PromptBatch(waveform, num_samples, 16000, rows, *targets)


@dataclass(frozen=True)
class Step(Batched):
    batch: PromptBatch
    rollout: Rollout
    scores: Scores
    hypotheses: PerPrompt[list[str]]
    features: Annotated[Tensor, Shape("B D", on_host=True)]


def step_of(names: str, failures: dict[str, int]) -> Step:
    num = len(names)
    rows = [[i] * (i + 1) for i in range(num)]
    total = torch.arange(float(num))[:, None]
    scores = Scores(total, total > -1, {"wer": -total}, failures)
    batch = batch_of(names, [10 * (i + 1) for i in range(num)])
    return Step(batch, rollout_of(rows, num), scores, list(names), torch.ones(num, 2))


def test_selected_rows_are_cut_to_the_longest() -> None:
    rollout = rollout_of([[1], [2, 3, 4], [5, 6]], width=3, num_kept=2).select([2, 0])
    assert rollout.tokens.tolist() == [[[5, 6]], [[1, 99]]]
    assert rollout.support is not None
    assert rollout.support.shape == (2, 1, 2, 2)
    batch = batch_of("abc", [1, 4, 2], with_targets=True).select([2, 0])
    assert batch.waveform.tolist() == [[2, 2], [1, 0]]
    assert batch.target_waveform is not None
    assert batch.target_waveform.shape == (2, 2)
    assert batch.ids == ["c", "a"]


def test_a_completion_keeps_one_token_and_a_clip_none() -> None:
    assert rollout_of([[], [1, 2]], width=2).select([0]).tokens.shape == (1, 1, 1)
    assert batch_of("ab", [0, 3]).select([0]).waveform.shape == (1, 0)


def test_joined_rows_are_padded_to_the_longest() -> None:
    short, long = rollout_of([[1]], width=1, num_kept=1), rollout_of([[2, 3]], width=2, num_kept=2)
    both = join_rollouts([([1], short), ([0], long)])
    assert both.tokens.tolist() == [[[2, 3]], [[1, 0]]]
    assert both.keep.tolist() == [[[True, True]], [[True, False]]]
    assert both.support is not None
    assert both.support[1, 0].tolist() == [[1, -1], [-1, -1]]
    # What stands behind the longest row is not cut by joining.
    assert join_rollouts([([0], rollout_of([[1]], width=4))]).tokens.shape == (1, 1, 4)


def test_some_with_and_others_without_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"PromptBatch.join: some have target_waveform, others have none"
    ):
        batch_of("a", [3]).join([batch_of("b", [3], with_targets=True)])


def test_what_holds_others_goes_with_them() -> None:
    whole = step_of("ab", {"wer": 1}).join([step_of("c", {"wer": 2, "mos": 1})])
    assert whole.batch.ids == whole.hypotheses == ["a", "b", "c"]
    assert whole.scores.failures == {"wer": 3, "mos": 1}
    assert whole.scores.parts["wer"].flatten().tolist() == [0, -1, 0]
    first = whole.select([0])
    assert first.rollout.tokens.shape == (1, 1, 1)
    assert first.batch.waveform.shape == (1, 10)
    assert first.scores.failures == whole.scores.failures


def test_what_stays_on_the_host_is_not_moved() -> None:
    step = step_of("ab", {})
    moved = step.to("meta")
    assert moved.rollout.tokens.device.type == moved.scores.parts["wer"].device.type == "meta"
    assert moved.features is step.features
    assert all(tensor is not step.features for tensor in step.tensors())
    held = [step.features, *step.batch.tensors(), *step.rollout.tensors(), *step.scores.tensors()]
    assert step.num_bytes == sum(tensor.nbytes for tensor in held)


def test_shapes_are_checked() -> None:
    rollout = rollout_of([[1, 2]], width=2)
    with pytest.raises(ValueError, match=r"Rollout.tokens: expected shape \[B, G, T\], got \[2\]"):
        Rollout(rollout.tokens[0, 0], rollout.keep, rollout.log_probs, rollout.finished)
    with pytest.raises(
        ValueError, match=r"Rollout.support: expected shape \[1, 1, 2, K\], got \[1, 1, 2\]"
    ):
        Rollout(rollout.tokens, rollout.keep, rollout.log_probs, rollout.finished, rollout.tokens)
    with pytest.raises(
        ValueError, match=r"Scores.parts\[wer\]: expected shape \[2, 3\], got \[2, 2\]"
    ):
        Scores(torch.zeros(2, 3), torch.ones(2, 3).bool(), {"wer": torch.zeros(2, 2)})
    with pytest.raises(
        ValueError, match=r"PromptBatch.waveform: expected shape \[1, S\], got \[2, 5\]"
    ):
        PromptBatch(torch.zeros(2, 5), torch.zeros(2), 16000, (Utterance("a", (), "a", 1.0),))

"""The reference text as one more sample of its group: what it adds, and that it teaches what is never sampled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.losses import GroupAdvantages, ReferenceSample
from lightning_audiorl.ops import MWER, DrGRPO, token_log_probs
from lightning_audiorl.types import Scores
from tests.algorithms.tiny import SHORT, Judge, fit, make_batch, make_grpo


def scores_of(rewards: list[list[float]]) -> Scores:
    total = torch.tensor(rewards)
    return Scores(total, torch.ones_like(total, dtype=torch.bool), {})


ROLLOUT: Any = None  # no filter looks at it


def test_the_advantage_is_that_among_one_sample_more() -> None:
    rule = GroupAdvantages("centred", reference=ReferenceSample())
    scores = scores_of([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    advantages, _ = rule.estimate(scores, ROLLOUT, torch.tensor([1.0, float("nan")]))
    assert advantages.values.tolist() == [[-0.25, -0.25, -0.25], [0.0, -1.0, 1.0]]
    assert advantages.reference is not None
    assert advantages.reference[0].item() == 0.75
    assert advantages.reference[1].isnan()
    # What is logged of groups is that of the policy's own samples.
    assert advantages.num_zero_variance == 1


def test_it_is_left_out_where_a_sample_is_good_enough() -> None:
    rule = GroupAdvantages("centred", reference=ReferenceSample(only_below=0.5))
    scores = scores_of([[0.0, 0.6], [0.0, 0.4]])
    advantages, _ = rule.estimate(scores, ROLLOUT, torch.tensor([1.0, 1.0]))
    assert advantages.reference is not None
    assert advantages.reference.isnan().tolist() == [True, False]
    assert advantages.values[0].tolist() == pytest.approx([-0.3, 0.3])


def test_shaping_has_the_gradient_of_its_paper() -> None:
    log_probs = torch.tensor([[[-1.0, -6.0]]], requires_grad=True)
    ReferenceSample(shaping=0.1).terms(log_probs, torch.tensor([2.0])).sum().backward()
    probability = log_probs.detach().exp()
    expected = 2.0 * 0.1 * probability / (probability + 0.1) ** 2
    assert torch.allclose(log_probs.grad, expected)  # type: ignore[arg-type]


def log_probs_of(module: Any, rollout: Any) -> Tensor:
    """[B, G], of whole texts, with the graph."""
    policy = module.policy
    context = policy.encode(make_batch())
    scored = token_log_probs(
        policy.hidden(context, rollout),
        policy.head,
        rollout.tokens.flatten(0, 1),
        rollout.keep.flatten(0, 1),
    )
    return scored.log_probs.sum(-1).view(rollout.tokens.shape[:2])


def test_the_gradient_is_that_of_the_sum_written_out() -> None:
    """Over G + 1 samples, each against the mean of all of them, divided by as many."""
    module = make_grpo(
        None, Judge(), beta=0.0, objective=DrGRPO(), reference_sample=ReferenceSample()
    )
    written_out = make_grpo(None, Judge(), beta=0.0, objective=DrGRPO())
    recorder = fit(module)
    step = module.last_step
    assert step is not None

    texts = [row.text for row in step.batch.rows]
    targets = written_out.policy.targets(written_out.policy.encode(make_batch()), texts)
    rewards = torch.cat([step.scores.total, torch.tensor([[float(len(t))] for t in texts])], dim=1)
    advantages = rewards - rewards.mean(-1, keepdim=True)
    with written_out.policy.evaluating():
        log_probs = torch.cat(
            [log_probs_of(written_out, step.rollout), log_probs_of(written_out, targets)], dim=1
        )
        loss = -(advantages * log_probs).sum() / (rewards.numel() * SHORT.max_new_tokens)
        loss.backward()

    assert recorder.gradients
    for name, parameter in written_out.policy.trainable().items():
        assert torch.allclose(recorder.gradients[0][name], parameter.grad, atol=1e-5), name
    assert module.step_metrics["reference/texts"] == len(texts)


@pytest.mark.parametrize("size", [0, 1])
def test_micro_batches_change_nothing(size: int) -> None:
    module = make_grpo(None, Judge(), reference_sample=ReferenceSample(), micro_batch_size=size)
    whole = make_grpo(None, Judge(), reference_sample=ReferenceSample())
    fit(module)
    fit(whole)
    for name, parameter in whole.policy.trainable().items():
        assert torch.allclose(parameter, module.policy.trainable()[name], atol=1e-6), name


def test_a_text_that_is_never_sampled_is_learnt() -> None:
    """All groups are flat without it: nothing is learnt; with it the text becomes likely."""

    def log_prob(module: Any) -> float:
        batch = make_batch()
        texts = [row.text for row in batch.rows]
        with torch.no_grad(), module.policy.evaluating():
            targets = module.policy.targets(module.policy.encode(batch), texts)
            return float(log_probs_of(module, targets).sum())

    found = {}
    for name, settings in {"plain": {}, "with": {"reference_sample": ReferenceSample()}}.items():
        reward = Judge(lambda text: float(text in ("one two", "one two three")))
        module = make_grpo(None, reward, beta=0.0, num_steps=8, **settings)
        before = log_prob(module)
        fit(module)
        found[name] = log_prob(module) - before
    assert found["with"] > 1.0
    assert found["plain"] < found["with"] / 4


def test_a_row_whose_text_cannot_be_written_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_grpo(None, Judge(), reference_sample=ReferenceSample())
    targets = module.policy.targets

    def refusing(context: Any, texts: list[str]) -> Any:
        if "one two" in texts:
            raise ValueError("outside the tokenizer's vocabulary")
        return targets(context, texts)

    monkeypatch.setattr(module.policy, "targets", refusing)
    fit(module)
    assert module.last_step is not None
    advantages = module.last_step.advantages.reference
    assert advantages is not None
    assert advantages.isnan().tolist() == [False, True, False]
    assert module.step_metrics["reference/texts"] == 2


def test_a_row_whose_text_is_never_sampled_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whisper's checkpoints suppress signs that texts have; a text of probability 0 made the loss infinite."""
    module = make_grpo(None, Judge(), reference_sample=ReferenceSample())
    policy = module.policy
    written = policy.allowed.clone()
    monkeypatch.setattr(type(policy), "writable", property(lambda self: written))
    policy.allowed[policy.tokenizer.get_vocab()["three"]] = False

    fit(module)
    assert module.last_step is not None
    texts = [row.text for row in module.last_step.batch.rows]
    advantages = module.last_step.advantages.reference
    assert advantages is not None
    assert advantages.isnan().tolist() == ["three" in text for text in texts]
    assert 0 < module.step_metrics["reference/texts"] < len(texts)
    assert module.step_metrics["skipped_updates"] == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="MWER weighs the samples of a group"):
        make_grpo(objective=MWER(), beta=0.0, reference_sample=ReferenceSample())
    with pytest.raises(ValueError, match="shaping: want a finite number above 0"):
        ReferenceSample(shaping=0.0)

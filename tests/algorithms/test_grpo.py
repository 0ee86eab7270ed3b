from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from lightning_audiorl import ops
from lightning_audiorl.algorithms import Optim
from lightning_audiorl.models import Finetune, Reference
from lightning_audiorl.types import Decoding
from tests.algorithms.tiny import (
    FINETUNES,
    SHORT,
    Judge,
    Recorder,
    fit,
    flat,
    make_batch,
    make_grpo,
    make_policy,
    trainable,
)
from tests.helpers import assert_close, assert_gradients_close

OBJECTIVES = {
    kind.__name__: kind for kind in (ops.GRPO, ops.DrGRPO, ops.DAPO, ops.GSPO, ops.CISPO, ops.MWER)
}


@pytest.mark.parametrize(
    ("group_size", "num_updates", "sizes"),
    [(2, 1, (0, 0)), (5, 1, (1, 1)), (2, 3, (0, 2)), (5, 3, (2, 0))],
)
def test_each_clip_is_encoded_once_per_step(
    group_size: int, num_updates: int, sizes: tuple[int, int]
) -> None:
    rollout, micro = sizes
    policy = make_policy()
    module = make_grpo(
        policy,
        num_steps=2,
        group_size=group_size,
        num_updates=num_updates,
        rollout_batch_size=rollout,
        micro_batch_size=micro,
    )
    recorder = fit(module)
    assert policy.num_encoded == 2 * len(make_batch())
    assert len(recorder.gradients) == 2 * num_updates
    assert module.rl_step == 2


@pytest.mark.parametrize(
    "decoding",
    [
        SHORT,
        Decoding(temperature=0.7, max_new_tokens=6),
        Decoding(top_k=3, max_new_tokens=6),
        Decoding(top_p=0.4, max_new_tokens=6),
        Decoding(temperature=1.5, top_k=5, top_p=0.8, max_new_tokens=6),
    ],
    ids=["plain", "cool", "top_k", "top_p", "all"],
)
def test_rollout_and_update_score_alike(decoding: Decoding) -> None:
    """On policy the ratio is 1, also under truncation; so are the weights against a sampler that is another engine."""
    module = make_grpo(
        decoding=decoding, sampler_cap=2.0, rollout_batch_size=1, micro_batch_size=2, num_steps=2
    )
    recorder = fit(module)
    step = module.last_step
    (prepared,) = recorder.prepared
    assert step is not None
    assert prepared.old_log_probs is not None
    assert prepared.weights is not None
    assert (step.rollout.support is None) == (decoding.top_k == 0 and decoding.top_p == 1)
    keep = step.rollout.keep
    assert_close(prepared.old_log_probs[keep], step.rollout.log_probs[keep], "policy")
    assert_close(prepared.weights[keep], torch.ones(int(keep.sum())), "policy")
    assert recorder.metrics[0]["clip_low"] == recorder.metrics[0]["clip_high"] == 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pieces_of_a_step_change_nothing(name: str) -> None:
    """Same hypotheses, loss and gradient in whichever passes prompts are sampled and updated."""
    batch = make_batch((0.4, 0.9, 0.25, 0.6))
    by_duration = Decoding(tokens_per_second=8.0, min_cap=1)

    def step(rollout_size: int, micro_size: int) -> tuple[Any, Recorder]:
        module = make_grpo(
            objective=OBJECTIVES[name](),
            decoding=by_duration,
            rollout_batch_size=rollout_size,
            micro_batch_size=micro_size,
            num_updates=2,
            sampler_cap=2.0,
        )
        return module, fit(module, [batch])

    module, whole = step(0, 0)
    assert module.last_step.rollout.lengths.amax(-1).tolist() == [4, 8, 3, 5]
    assert whole.metrics[0]["loss"] != 0
    for sizes in ((1, 1), (3, 2)):
        other, pieces = step(*sizes)
        first, second = module.last_step.rollout, other.last_step.rollout
        assert torch.equal(first.keep, second.keep)
        assert torch.equal(first.tokens[first.keep], second.tokens[second.keep])
        assert torch.equal(first.finished, second.finished)
        assert module.last_step.groups == other.last_step.groups
        for k in range(2):
            assert_gradients_close(pieces.gradient(k), whole.gradient(k), 3e-5 if k else 1e-5)
        assert_close(pieces.metrics[0]["loss"], whole.metrics[0]["loss"], "policy")


def test_inner_updates() -> None:
    """K updates move the ratio; old log-probs are those of before the first; the schedule steps once."""
    settings = {"optim": Optim(lr=0.02, max_grad_norm=0.0, schedule="linear"), "num_steps": 2}
    policy = make_policy()
    module = make_grpo(policy, num_updates=3, **settings)
    recorder = fit(module)
    single = fit(make_grpo(**settings))
    step = module.last_step
    (prepared,) = recorder.prepared
    assert step is not None
    assert prepared.old_log_probs is not None
    keep = step.rollout.keep
    assert_close(prepared.old_log_probs[keep], step.rollout.log_probs[keep], "policy")
    with torch.no_grad(), policy.evaluating():
        after = module.loss_settings.token_log_probs(step.context, step.rollout).log_probs
    assert (after - step.rollout.log_probs)[keep].abs().max() > 0.2
    assert recorder.metrics[0]["clip_low"] + recorder.metrics[0]["clip_high"] > 0
    assert single.metrics[0]["clip_low"] + single.metrics[0]["clip_high"] == 0
    assert_gradients_close(recorder.gradient(0), single.gradient(0))
    assert not torch.equal(recorder.gradient(1), recorder.gradient(0))
    assert recorder.lrs == pytest.approx([0.02] * 3 + [0.01] * 3)


@pytest.mark.parametrize("micro_batch_size", [0, 2])
@pytest.mark.parametrize("finetune", FINETUNES)
def test_kl_is_exactly_zero_at_the_start(finetune: str, micro_batch_size: int) -> None:
    module = make_grpo(
        make_policy(FINETUNES[finetune]), num_steps=2, micro_batch_size=micro_batch_size
    )
    recorder = fit(module)
    assert recorder.metrics[0]["kl"] == 0.0
    assert recorder.metrics[1]["kl"] > 0.0
    assert "seconds/reference" in recorder.metrics[0]
    assert module.reference is not None
    assert (module.reference.num_bytes == 0) == (finetune == "lora")


def test_bfloat16_autocast_follows_float32() -> None:
    """Reference and inner updates see the weights of their moment, not casts that autocast kept."""
    settings = {"optim": Optim(lr=0.01, max_grad_norm=0.0), "num_updates": 2, "num_steps": 2}
    exact, rounded = (
        fit(make_grpo(**settings), precision=kind) for kind in ("32-true", "bf16-mixed")
    )
    for k in range(2):
        assert_gradients_close(rounded.gradient(k), exact.gradient(k), 0.1)
    assert rounded.metrics[0]["kl"] == pytest.approx(exact.metrics[0]["kl"], rel=0.1)
    assert fit(make_grpo(), precision="bf16-mixed").metrics[0]["kl"] == 0.0


def test_reference_under_an_autocast_that_caches() -> None:
    policy, batch = make_policy().eval(), make_batch()
    reference = Reference(policy)

    def logits() -> torch.Tensor:
        context = policy.encode(batch)
        hidden = policy.hidden(context, policy.targets(context, batch.texts))
        return policy.head(hidden)[..., policy.allowed]

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        start = logits()
    for parameter in policy.trainable().values():
        parameter.data = parameter.data * 1.1
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        now = logits()
        with reference.swapped_in(policy):
            assert_close(logits(), start, "exact")
        assert_close(logits(), now, "exact")
    assert (now - start).abs().max() > 0.1


def test_dropout_is_off_in_rl() -> None:
    """On policy the ratio is 1 and the KL 0, though adapters that are in use have dropout."""
    policy = make_policy(Finetune(projector=False, lm="lora", lora_rank=4, lora_dropout=0.5))
    for name, parameter in policy.trainable().items():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    module = make_grpo(policy.train(), sampler_cap=2.0)
    recorder = fit(module)
    step = module.last_step
    (prepared,) = recorder.prepared
    assert step is not None
    assert prepared.old_log_probs is not None
    keep = step.rollout.keep
    assert_close(prepared.old_log_probs[keep], step.rollout.log_probs[keep], "policy")
    assert recorder.metrics[0]["kl"] == 0.0
    assert policy.training


def test_without_beta_there_is_no_reference() -> None:
    module = make_grpo(beta=0.0)
    recorder = fit(module)
    assert module.reference is None
    assert "kl" not in recorder.metrics[0]
    assert "seconds/reference" not in recorder.metrics[0]
    assert recorder.metrics[0]["grad_norm"] > 0


def test_validation_before_a_fit_leaves_the_reference_there() -> None:
    from lightning import Trainer
    from torch.utils.data import DataLoader

    module = make_grpo(num_steps=2)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    loader = DataLoader([make_batch()], batch_size=None)  # type: ignore[arg-type]
    Trainer(accelerator="cpu", **quiet).validate(module, loader, verbose=False)
    assert module.reference is None
    assert fit(module).metrics[1]["kl"] > 0
    kept = module.reference
    module.num_steps = 4
    fit(module)
    assert module.reference is kept


def test_gradient_clipping() -> None:
    free, clipped = fit(make_grpo()), fit(make_grpo(optim=Optim(max_grad_norm=0.01)))
    assert free.metrics[0]["grad_norm"] == pytest.approx(float(free.gradient().norm()), rel=1e-5)
    assert clipped.metrics[0]["grad_norm"] == free.metrics[0]["grad_norm"] > 0.01
    assert_gradients_close(
        clipped.gradient(), free.gradient() * 0.01 / free.gradient().norm(), 1e-4
    )


@pytest.mark.parametrize(
    "objective", [ops.GRPO(), ops.DAPO(), ops.MWER()], ids=["GRPO", "DAPO", "MWER"]
)
def test_equal_rewards_move_nothing(objective: ops.Objective) -> None:
    """After a step that filled the optimiser's momentum; the step is counted all the same."""
    calls = itertools.count()
    judge = Judge(lambda text: len(text) if next(calls) < 12 else 1.0)
    optim = Optim(lr=1e-2, weight_decay=0.1)
    module = make_grpo(
        make_policy(), judge, num_steps=3, beta=0.0, objective=objective, optim=optim
    )
    recorder = fit(module)
    first, second, third = recorder.metrics
    assert [m["zero_variance_share"] for m in recorder.metrics] == [0, 1, 1]
    assert (first["skipped_updates"], second["skipped_updates"]) == (0, 1)
    assert second["loss"] == second["grad_norm"] == 0
    assert second["used_share"] == (0 if objective.drop_zero_variance else 1)
    assert third["lr"] == first["lr"]
    assert module.rl_step == 3
    assert_close(flat(recorder.weights[1]), flat(recorder.weights[0]), "exact")
    assert not torch.equal(flat(recorder.weights[0]), flat(recorder.before[0]))


def test_equal_rewards_still_pull_towards_the_reference() -> None:
    calls = itertools.count()
    judge = Judge(lambda text: len(text) if next(calls) < 12 else 1.0)
    recorder = fit(make_grpo(make_policy(), judge, num_steps=2))
    assert recorder.metrics[1]["zero_variance_share"] == 1
    assert recorder.metrics[1]["grad_norm"] > 0
    assert recorder.metrics[1]["skipped_updates"] == 0


def test_groups_without_variance_leave_the_divisor_where_asked() -> None:
    """DAPO: the gradient is that of the other groups alone."""
    batch = make_batch()
    calls = itertools.count()
    some = Judge(lambda text: 1.0 if next(calls) < 4 else len(text))
    dropped = fit(make_grpo(make_policy(), some, objective=ops.DAPO(), beta=0.0), [batch])
    others = fit(make_grpo(objective=ops.DAPO(), beta=0.0), [batch.select([1, 2])])
    assert dropped.metrics[0]["zero_variance_share"] == pytest.approx(1 / 3)
    assert dropped.metrics[0]["used_share"] == pytest.approx(2 / 3)
    assert_gradients_close(dropped.gradient(), others.gradient())


def test_failed_rewards_leave_the_step() -> None:
    """Row a loses a sample; row b all but one, and with them itself."""
    failing = {0, 4, 5, 6}
    calls = itertools.count()
    judge = Judge(lambda text: math.nan if next(calls) in failing else len(text))
    module = make_grpo(make_policy(), judge, objective=ops.GRPO(advantage="centred"))
    recorder = fit(module)
    step, metrics = module.last_step, recorder.metrics[0]
    assert step is not None
    assert step.scores.valid.flatten().logical_not().nonzero().flatten().tolist() == sorted(failing)
    assert step.advantages.used.tolist() == [[False, True, True, True], [False] * 4, [True] * 4]
    assert metrics["reward_failures/judge"] == 4
    assert metrics["invalid_share"] == pytest.approx(4 / 12)
    assert metrics["dropped_group_share"] == pytest.approx(1 / 3)
    assert metrics["used_share"] == pytest.approx(7 / 12)
    valid = step.scores.total[step.scores.valid]
    assert (
        metrics["reward/mean"] == metrics["reward/judge/mean"] == pytest.approx(float(valid.mean()))
    )
    assert math.isfinite(metrics["loss"])
    assert recorder.gradient().isfinite().all()
    lengths = [float(len(h.text)) for h in step.groups[0][1:]]
    assert step.advantages.values[0, 1:].tolist() == pytest.approx(
        [x - sum(lengths) / 3 for x in lengths]
    )
    assert step.advantages.values[0, 0] == 0


def test_a_step_without_any_valid_sample() -> None:
    """Two rewards fail on one half of the samples each."""
    even, odd = itertools.count(), itertools.count()
    rewards = [
        Judge(lambda text: math.nan if next(even) % 2 == 0 else 1.0, name="even"),
        Judge(lambda text: math.nan if next(odd) % 2 == 1 else 1.0, name="odd"),
    ]
    policy = make_policy()
    start = trainable(policy)
    module = make_grpo(policy, *rewards, num_steps=2)
    recorder = fit(module)
    metrics = recorder.metrics[0]
    assert (
        metrics["invalid_share"]
        == metrics["dropped_group_share"]
        == metrics["skipped_updates"]
        == 1
    )
    assert metrics["used_share"] == metrics["loss"] == metrics["grad_norm"] == 0
    assert math.isnan(metrics["reward/mean"])
    assert metrics["reward_failures/even"] == metrics["reward_failures/odd"] == 6
    assert module.rl_step == 2
    assert_close(flat(trainable(policy)), flat(start), "exact")


def test_a_logged_reward_that_fails_hides_no_figure() -> None:
    calls = itertools.count()
    watched = Judge(lambda text: math.nan if next(calls) == 0 else 2.0, weight=0.0, name="watched")
    metrics = fit(make_grpo(make_policy(), Judge(), watched)).metrics[0]
    assert metrics["invalid_share"] == 0
    assert metrics["reward_failures/watched"] == 1
    assert metrics["reward/watched/mean"] == 2.0
    assert metrics["reward/watched/std"] == 0.0


def test_a_gradient_that_is_not_finite_is_not_taken() -> None:
    policy = make_policy()
    start = trainable(policy)
    recorder = Recorder()

    class Spoil(Recorder):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            next(iter(policy.trainable().values())).register_hook(lambda g: g * math.nan)

    fit(make_grpo(policy), None, recorder, Spoil())
    assert recorder.metrics[0]["skipped_updates"] == 1
    assert math.isnan(recorder.metrics[0]["grad_norm"])
    assert_close(flat(trainable(policy)), flat(start), "exact")


def test_reward_rises_on_a_toy_task() -> None:
    """Say "seven" as often as you can."""
    judge = Judge(lambda text: text.split().count("seven"))
    module = make_grpo(
        make_policy(), judge, num_steps=12, group_size=8, beta=0.0, optim=Optim(lr=5e-3)
    )
    rewards = [m["reward/mean"] for m in fit(module).metrics]
    assert sum(rewards[-3:]) / 3 > 3 * sum(rewards[:3]) / 3


def test_every_step_draws_anew() -> None:
    drawn = []
    module = make_grpo(num_steps=2, optim=Optim(lr=1e-12))
    collect = module.collect_rollouts
    module.collect_rollouts = lambda batch: (drawn.append(samples := collect(batch)), samples)[1]  # type: ignore[method-assign]
    fit(module)
    assert drawn[0].batch.ids == drawn[1].batch.ids
    assert drawn[0].groups != drawn[1].groups


def test_same_seed_same_run_and_another_seed_another() -> None:
    first, again, other = (fit(make_grpo(num_steps=2, seed=seed)) for seed in (3, 3, 4))
    assert_close(flat(first.weights[-1]), flat(again.weights[-1]), "exact")
    assert not torch.equal(flat(first.weights[-1]), flat(other.weights[-1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 1}, "group_size must be at least 2, got 1"),
        ({"decoding": Decoding(temperature=0.0)}, "temperature is 0"),
        ({"num_updates": 0}, "num_updates: want a whole number of at least 1"),
        ({"beta": -0.1}, "beta: want a finite number at least 0"),
        ({"micro_batch_size": -1}, "batch sizes >= 0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_grpo(**settings)


def test_a_trainable_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finetune\.encoder to false"):
        fit(make_grpo(make_policy(Finetune(encoder=True))))

"""`RLModule` with losses given to it: several at once, one of one's own, and what is said of one that is wrong."""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.engine import Optim, RLModule, Sampler
from lightning_audiorl.losses import (
    CrossEntropy,
    DiffROLoss,
    Loss,
    MicroBatch,
    PolicyGradient,
    Prepared,
    RLStep,
    Scorer,
    WeightedGradients,
)
from lightning_audiorl.rewards import RewardMix
from tests.algorithms import speaking, tiny
from tests.algorithms.tiny import Judge, Recorder, fit, make_policy
from tests.helpers import assert_close
from tests.models.families import make
from tests.models.test_speech_lm import with_targets

Computed = tuple[Any, dict[str, Tensor]]


def make_run(*losses: Any, **settings: Any) -> RLModule:
    """One step in micro-batches of one prompt; gradients unclipped."""
    settings = {
        "num_steps": 1,
        "rewards": RewardMix([Judge()]),
        "sampler": Sampler(4, tiny.SHORT),
        "optim": Optim(lr=1e-3, max_grad_norm=0.0),
        "micro_batch_size": 1,
    } | settings
    return RLModule(make_policy(), losses=list(losses), **settings)


class Likelihood(Loss[Prepared]):
    """Mean negative log-likelihood of all samples."""

    name = "likelihood"

    def prepare(self, step: RLStep, scorer: Scorer) -> Prepared:
        valid = step.scores.valid
        return Prepared(used=valid, count=float(valid.sum()))

    def compute(self, prepared: Prepared, micro_batch: MicroBatch, divisor: float) -> Computed:
        samples = micro_batch.samples
        log_probs = self.settings.token_log_probs(micro_batch.context, samples).log_probs
        loss = -ops.masked_sum(log_probs, samples.keep) / divisor
        return loss, {"loss": loss.detach()}


# --- several losses in one run


def test_a_supervised_term_beside_grpo() -> None:
    """Its gradient is divided by its own tokens, GRPO's by GRPO's samples, whichever comes first."""
    grpo = fit(make_run(PolicyGradient(beta=0.1)))
    sft = fit(make_run(CrossEntropy(), rewards=None))
    combiner = WeightedGradients(0.5)
    both = fit(make_run(PolicyGradient(beta=0.1), CrossEntropy(), combiner=combiner))
    assert_gradients_add_up(both, grpo.gradient() + 0.5 * sft.gradient())
    assert both.metrics[0]["loss"] == grpo.metrics[0]["loss"]
    for name in ("loss", "tokens", "perplexity"):
        assert both.metrics[0][f"sft/{name}"] == sft.metrics[0][name]

    reverse = fit(make_run(CrossEntropy(), PolicyGradient(beta=0.1), combiner=combiner))
    assert_gradients_add_up(reverse, sft.gradient() + 0.5 * grpo.gradient())
    assert reverse.metrics[0]["loss"] == sft.metrics[0]["loss"]
    assert reverse.metrics[0]["grpo/kl"] == grpo.metrics[0]["kl"]


def assert_gradients_add_up(run: Recorder, expected: Tensor) -> None:
    assert float((run.gradient() - expected).norm() / expected.norm()) < 1e-5


def speak(*losses: Loss[Any], **settings: Any) -> Recorder:
    settings = {"rewards": RewardMix([speaking.Codes()])} | settings
    module = RLModule(
        make("speech_lm"),
        1,
        losses=losses,
        sampler=Sampler(4, speaking.SHORT),
        optim=Optim(lr=1e-3, max_grad_norm=0.0),
        micro_batch_size=1,
        **settings,
    )
    return fit(module, [with_targets(speaking.make_batch())])


def test_three_losses_share_one_rollout() -> None:
    apart = [
        speak(PolicyGradient()),
        speak(DiffROLoss(speaking.make_mix(), beta=0.0)),
        speak(CrossEntropy()),
    ]
    diffro = DiffROLoss(speaking.make_mix(), beta=0.0)
    run = speak(PolicyGradient(), diffro, CrossEntropy())
    first, second, third = (one.gradient() for one in apart)
    assert_gradients_add_up(run, first + second + third)

    metrics = run.metrics[0]
    for name, gradient in (("grpo", first), ("diffro", second), ("sft", third)):
        assert metrics[f"grad_norm/{name}"] == pytest.approx(float(gradient.norm()), rel=1e-5)
    for name, gradient in (("diffro", second), ("sft", third)):
        cosine = float(first @ gradient / (first.norm() * gradient.norm()))
        assert metrics[f"grad_cosine/{name}"] == pytest.approx(cosine, abs=1e-5)


def test_no_metric_of_one_loss_hides_that_of_another() -> None:
    class Second(DiffROLoss):
        name = "second"

    alone = speak(DiffROLoss(speaking.make_mix(), beta=0.0), rewards=None).metrics[0]
    mix = speaking.make_mix()
    with torch.no_grad():
        mix.network.write.weight.mul_(2.0)
    two = speak(DiffROLoss(speaking.make_mix(), beta=0.0), Second(mix, beta=0.0), rewards=None)
    for name in ("reward/diffro/total", "tau", "stop_rate", "dropped/diffro/invalid"):
        assert two.metrics[0][name] == alone[name]
        assert f"second/{name}" in two.metrics[0]
    assert two.metrics[0]["second/reward/diffro/total"] != alone["reward/diffro/total"]


def test_a_run_goes_on_with_its_own_losses_alone(tmp_path: Path) -> None:
    """Whole and resumed runs end at the same weights; another list of losses is another run."""
    file = str(tmp_path / "one.ckpt")

    class Save(tiny.Recorder):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            if pl_module.rl_step == 1:
                trainer.save_checkpoint(file)

    def both() -> RLModule:
        return make_run(PolicyGradient(beta=0.1), CrossEntropy(), num_steps=2, num_updates=2)

    whole = fit(both(), None, Save())
    resumed = fit(both(), [tiny.make_batch()], ckpt_path=file)
    for name, value in whole.weights[-1].items():
        assert torch.equal(resumed.weights[-1][name], value)

    said = r"a run with the losses grpo, sft, not grpo; to begin a new run"
    with pytest.raises(ValueError, match=said):
        fit(make_run(PolicyGradient(beta=0.1), num_steps=2), ckpt_path=file)


# --- a loss of one's own


def test_the_example_of_the_docstring_learns_what_it_says() -> None:
    """REINFORCE: minus the mean over samples of reward times log-likelihood; a failed reward is left out."""
    assert Loss.__doc__ is not None
    (code,) = re.findall(r"( +class Reinforce.*?)\n\n? *$", Loss.__doc__, re.DOTALL)
    names: dict[str, Any] = {"Loss": Loss, "Prepared": Prepared, "ops": ops}
    exec(textwrap.dedent(code), names)

    class SomeFail(Judge):
        def score(self, hypotheses: Any) -> list[float]:
            scores = super().score(hypotheses)
            return [math.nan if number % 5 == 1 else s for number, s in enumerate(scores)]

    module = make_run(names["Reinforce"](), rewards=RewardMix([SomeFail()]))
    assert_finite_and_expected(module)


def assert_finite_and_expected(module: RLModule) -> None:
    recorder = fit(module)
    step = module.last_step
    assert step is not None
    valid = step.scores.valid
    assert 0 < int(valid.sum()) < valid.numel()
    likelihood = (step.rollout.log_probs * step.rollout.keep).sum(-1)
    expected = -(step.scores.total * likelihood)[valid].mean()
    assert recorder.metrics[0]["loss"] == pytest.approx(float(expected), rel=1e-4)
    assert recorder.metrics[0]["skipped_updates"] == 0


def test_a_loss_that_is_not_finite_moves_nothing_and_is_counted() -> None:
    class NotFinite(Likelihood):
        name = "broken"

        def compute(self, *args: Any) -> Computed:
            loss, sums = super().compute(*args)
            return loss * math.nan, sums

    alone = fit(make_run(NotFinite()))
    assert alone.metrics[0]["skipped_updates"] == 1
    assert alone.gradients == []

    # Beside another loss it is left out, and the other trains on.
    beside = fit(make_run(Likelihood(), NotFinite()))
    assert beside.metrics[0]["broken/skipped"] == 1
    assert beside.metrics[0]["skipped_updates"] == 0
    assert_close(beside.gradient(), fit(make_run(Likelihood())).gradient(), "exact")


@pytest.mark.parametrize("count", [0.0, None])
def test_nothing_used_moves_nothing(count: float | None) -> None:
    class Nothing(Likelihood):
        sum_names = ("loss", "tokens")

        def prepare(self, step: RLStep, scorer: Scorer) -> Prepared:
            used = torch.zeros_like(step.scores.valid)
            return Prepared(used=used if count is not None else None, count=count)

        def compute(self, *args: Any) -> Computed:
            loss, sums = super().compute(*args)
            return loss * 0, sums | {"tokens": torch.tensor(0.0)}

    metrics = fit(make_run(Nothing())).metrics[0]
    assert metrics["skipped_updates"] == 1
    assert metrics["grad_norm"] == 0


class Prepares(Likelihood):
    """Returns ``result`` of [B, G] samples from `prepare`."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def prepare(self, step: RLStep, scorer: Scorer) -> Any:
        return self.result(step.scores.valid, scorer)


class Computes(Likelihood):
    """Returns ``result`` of the right loss from `compute`."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def compute(self, *args: Any) -> Any:
        loss, sums = super().compute(*args)
        return self.result(loss, sums)


PREPARED = {
    "expected a Prepared, got NoneType": lambda valid, _: None,
    r"Prepared.used: expected shape \[B, G\], got \[3\]": lambda valid, _: Prepared(
        used=valid.any(-1), count=1.0
    ),
    r"used must be bool of shape \[3, 4\], got torch.bool of \[3, 2\]": lambda valid, _: Prepared(
        used=valid[:, :2], count=1.0
    ),
    r"used must be bool of shape \[3, 4\], got torch.float32": lambda valid, _: Prepared(
        used=valid.float(), count=1.0
    ),
    "count must be finite and not negative, got nan": lambda valid, _: Prepared(count=math.nan),
    r"divided by the sum 'tokens' \(count_name\), which is not in sum_names": (
        lambda valid, _: Prepared()
    ),
    "have its needs_reference return True": lambda _, scorer: scorer.reference_log_probs(),
}
COMPUTED = {
    r"sums \['kl'\] are not in sum_names \('loss',\); add them": lambda loss, sums: (
        loss,
        sums | {"kl": loss.detach()},
    ),
    "must be a 0-d tensor, got float": lambda loss, sums: (float(loss), sums),
    r"must be a 0-d tensor, got \[2\]": lambda loss, sums: (loss.expand(2), sums),
    "the loss has no graph to go backward through": lambda loss, sums: (loss.detach(), sums),
}


@pytest.mark.parametrize("said", PREPARED)
def test_mistakes_in_prepare(said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        fit(make_run(Prepares(PREPARED[said])))


@pytest.mark.parametrize("said", COMPUTED)
def test_mistakes_in_compute(said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^Computes.compute: .*{said}"):
        fit(make_run(Computes(COMPUTED[said])))


def test_mistakes_in_the_list() -> None:
    class Nameless(Loss[Prepared]):
        prepare = Likelihood.prepare
        compute = Likelihood.compute

    for losses, said in (
        ([], r"at least one loss, got \[\]"),
        ([PolicyGradient], "expected instances of Loss, got the class PolicyGradient"),
        ([PolicyGradient(), PolicyGradient()], "two have the name 'grpo'"),
        ([Nameless()], "Nameless: set `name`"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            make_run(*losses)
    with pytest.raises(TypeError, match="losses: expected a list, got CrossEntropy"):
        RLModule(make_policy(), 1, losses=CrossEntropy())  # type: ignore[arg-type]


def test_what_the_presets_take_is_in_their_signatures() -> None:
    """No ``*args, **kwargs``: an editor shows every setting, with a type and a default."""
    from lightning_audiorl.algorithms import GRPO, SFT, DiffRO, GRPODiffRO

    # The settings of build a3a158b, by the class that took them.
    run = "policy num_steps optim eval_decodings keywords seed log_every_n_steps keep_context evaluation"
    sampled = (
        "rewards group_size decoding rollout_batch_size max_refills num_updates max_tokens beta"
    )
    passes = "micro_batch_size chunk_size"
    grpo = "objective kl sampler_cap filters"
    relaxed = "differentiable relaxation diffro_filters"
    both = "diffro_weight normalise diffro_beta"
    earlier = {
        SFT: [run, passes],
        GRPO: [run, passes, sampled, grpo],
        DiffRO: [run, passes, sampled, relaxed],
        GRPODiffRO: [run, passes, sampled, grpo, relaxed, both],
    }
    for kind, settings in earlier.items():
        parameters = inspect.signature(kind).parameters
        assert set(" ".join(settings).split()) <= parameters.keys()
        assert list(parameters)[:2] == ["policy", "num_steps"]
        for parameter in parameters.values():
            assert parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
            assert parameter.annotation is not parameter.empty

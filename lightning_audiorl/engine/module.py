"""The loop: one LightningModule that runs the five stages of an RL step around whatever losses it is given.

    encode -> rollout -> reward -> reference -> update

Read `RLModule.training_step` first; the methods it calls follow in the order of the stages. What is learnt is the
losses' business (`lightning_audiorl.losses`); phases, micro-batches, ranks and the optimizer live here, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from lightning import Callback, LightningModule
from torch import Tensor, nn

from lightning_audiorl.engine import checkpointing
from lightning_audiorl.engine.curves import Curves
from lightning_audiorl.engine.distributed import gather_metrics, raise_on_all_ranks
from lightning_audiorl.engine.dynamic_sampling import RefillingData, refill
from lightning_audiorl.engine.evaluation_hooks import EvaluationHooks
from lightning_audiorl.engine.evaluator import EvalDecoding, Evaluator
from lightning_audiorl.engine.loss_checks import check_losses, check_prepared
from lightning_audiorl.engine.micro_batches import step_micro_batches
from lightning_audiorl.engine.optim import Optim, step_schedule
from lightning_audiorl.engine.rarely_right import RarelyRight
from lightning_audiorl.engine.resuming import FollowSettings, reopen_epoch
from lightning_audiorl.engine.rollout import RewardScorer, Sampler, sampled_metrics, unrewarded
from lightning_audiorl.engine.run_parts import encode_phase, run_parts
from lightning_audiorl.engine.scoring import StepScorer
from lightning_audiorl.engine.step_costs import run_costs
from lightning_audiorl.engine.trainer_checks import check_trainer
from lightning_audiorl.engine.update import Updater
from lightning_audiorl.engine.update_watch import UpdateWatch
from lightning_audiorl.judges.base import Judge
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.losses import (
    GroupAdvantages,
    Loss,
    LossSettings,
    MicroBatch,
    Prepared,
    RLStep,
    ScoredRollout,
    WeightedGradients,
)
from lightning_audiorl.metrics import AsrEvaluation, SetEvaluation
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.models.reference import Reference, content_hash
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.strategies import Part, RLStrategy, rl_strategy
from lightning_audiorl.strategies.phases import Phase, PhaseClock
from lightning_audiorl.types import PromptBatch


class RLModule(EvaluationHooks, LightningModule):
    """Manual optimisation: one ``training_step`` is one RL step.

    Args:
        policy: the model that trains.
        num_steps: RL steps of the run; the schedule ends there, and so does the run.
        losses: what is minimised. The first one names its metrics plainly, the others after themselves.
        combiner: how the gradients of several losses become one; default their sum.
        rewards: of the samples; None where no loss looks at rewards.
        judges: by name, for rewards and evaluation to refer to. Each is held, placed and asked once.
        sampler: how samples are drawn.
        max_refills: rounds in which prompts whose samples have no signal (all advantages 0) are replaced by further
            ones of the training mix (dynamic sampling, DAPO); what is left then stays. 0 is off. Of several losses the
            first says what has a signal.
        num_updates: K inner updates per rollout.
        micro_batch_size: prompts (whole groups) per forward and backward pass; 0 is no limit.
        max_tokens: padded tokens per forward and backward pass, a prompt counted once per group; 0 is no limit.
        chunk_size: positions per call of the head; None keeps one chunk's logits small, 0 takes all at once.
        optim: optimiser and schedule.
        eval_decodings: by name; the first is the one whose metrics carry no name. Default: greedy.
        keywords: words of special value in every row, for the keyword metrics of `AsrEvaluation`.
        evaluation: what is measured on evaluation sets; default `AsrEvaluation`.
        seed: keys every draw of the run.
        log_every_n_steps: RL steps between two points of a training curve.
        reference_logprob_every_n_steps: how far apart steps are that measure the reference texts; see `RarelyRight`.
        keep_context: encoded prompts stay on the device for the whole step, whatever the strategy's placement.

    Attributes:
        last_step: what the last RL step learnt from; None before the first, and where nothing was rewarded.
        prepared: what each loss took from the step at hand; empty outside its update.
        context: the encoded prompts of the step at hand; None outside a step.
        rl_step: RL steps done.
        step_metrics: metrics of the last RL step by log key.
        evaluations: one record per evaluation: ``rl_step``, ``kind`` ("val" or "test") and ``results``, metrics by set.
        last_hypotheses: groups of the last evaluation by set, the first 64 rows, under the first decoding.
        clock: the present phase, and the seconds of each in this step.
        reference: the weights that training began from; None where no reference phase runs.
        start_hash: content hash of the policy when training began.
    """

    #: Whether a step samples from the policy; supervised training does not.
    samples_from_policy: ClassVar[bool] = True

    def __init__(
        self,
        policy: Policy,
        num_steps: int,
        *,
        losses: Sequence[Loss],
        combiner: WeightedGradients | None = None,
        rewards: RewardMix | None = None,
        judges: dict[str, Judge] | None = None,
        sampler: Sampler | None = None,
        max_refills: int = 0,
        num_updates: int = 1,
        micro_batch_size: int = 0,
        max_tokens: int = 0,
        chunk_size: int | None = None,
        optim: Optim | None = None,
        eval_decodings: dict[str, EvalDecoding] | None = None,
        keywords: list[str] | None = None,
        evaluation: SetEvaluation | None = None,
        seed: int = 0,
        log_every_n_steps: int = 1,
        reference_logprob_every_n_steps: int = 10,
        keep_context: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= num_steps < float("inf"):
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        if log_every_n_steps < 1 or min(micro_batch_size, max_tokens, max_refills) < 0:
            raise ValueError("want log_every_n_steps >= 1, batch sizes >= 0 and max_refills >= 0")
        check_losses(losses, sampler, policy)

        # A step has many backward passes, and a checkpoint only the tensors that train.
        self.automatic_optimization = False
        self.strict_loading = False

        self.policy = policy
        self.num_steps = num_steps
        self.losses = list(losses)
        self.combiner = combiner or WeightedGradients()
        self.rewards = rewards
        self.sampler = sampler or Sampler()
        self.max_refills = max_refills
        self.num_updates = num_updates
        self.micro_batch_size = micro_batch_size
        self.max_tokens = max_tokens

        self.optim = optim or Optim()
        self.update_watch = UpdateWatch(self.optim.max_skipped_updates)
        self.panel = JudgePanel(judges)
        self.evaluation = (evaluation or AsrEvaluation(keywords)).with_panel(self.panel)
        if rewards is not None:
            rewards.seat_judges(self.panel)

        self.evaluator = Evaluator(
            eval_decodings or {"greedy": EvalDecoding()}, self.evaluation, self.panel
        )
        self.seed = seed
        self.log_every = log_every_n_steps
        self.keep_context = keep_context

        self.loss_settings = LossSettings(
            policy, self.sampler.decoding, num_updates, chunk_size, algorithm=type(self).__name__
        )
        for loss in self.losses:
            loss.bind(self.loss_settings)
            if loss.needs_rewards and rewards is None:
                raise ValueError(
                    f"{type(self).__name__}: {loss.needs_rewards} looks at rewards; set rewards, or leave it out"
                )

        # The first loss that says how rewards become advantages decides for all.
        of_losses = [loss.advantages for loss in self.losses if loss.advantages is not None]
        self.advantages = of_losses[0] if of_losses else GroupAdvantages()
        self.rarely_right = RarelyRight(self, reference_logprob_every_n_steps)
        self.curves = Curves()

        self.rl_step = 0
        self.clock = PhaseClock()
        self.evaluations: list[dict[str, Any]] = []
        self.reference: Reference | None = None
        self.start_hash: str | None = None
        self.step_metrics: dict[str, float] = {}
        self.ledger_table: str | None = None
        self.context: Context | None = None
        self.last_step: RLStep | None = None
        self.prepared: list[Prepared] = []
        self._has_begun = False
        self._begins = False
        self._stage = ""

    # --- one RL step

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """One RL step: encode, rollout, reward, reference, update."""
        # The last step's encoded prompts need not be held beside the new ones.
        self.last_step = None

        # Eval mode for rollout and update alike: with dropout in one of them the ratio would not be 1 on policy.
        with self.policy.evaluating():
            with raise_on_all_ranks(self.strategy, "the rollout"):
                samples = self.collect_rollouts(batch)
            step = self.refilled_step(samples)

            with raise_on_all_ranks(self.strategy, "scoring"):
                self.prepared = self.prepare(step)

            metrics = sampled_metrics(step, is_rewarded=self.rewards is not None)
            metrics |= self.rarely_right.metrics(step, self.strategy)
            self.last_step = step if self.rewards is not None else None

            metrics |= self.update(step, self.prepared)
            # Hidden states of the reference may be among it: they need not be held until the next step.
            self.prepared = []

        self.show_progress(metrics)
        self.finish_step(metrics, weight=len(batch))

    def collect_rollouts(self, batch: PromptBatch) -> ScoredRollout:
        """Phases encode, rollout and reward: G samples of each prompt, and their rewards."""
        for loss in self.losses:
            loss.check_rows(batch.rows)

        with self.phase(encode_phase(self.policy, batch, self.strategy)), torch.no_grad():
            context = self.policy.encode(batch)
        self.context = context

        with self.phase("rollout"):
            rollout = self.sampler.sample(
                self.policy, batch, context, SampleKey(self.seed, self.rl_step)
            )
            self.rarely_right.look(batch, context, self.rl_step)

        if self.rewards is None:
            return ScoredRollout(
                batch, context, rollout, unrewarded(rollout), [[] for _ in batch.rows]
            )

        with self.phase("reward"):
            scorer = RewardScorer(self.policy, self.rewards, self.panel, self.rl_step + 1)
            with_references = self.advantages.reference is not None
            return scorer.score(batch, rollout, context, with_references)

    def refilled_step(self, samples: ScoredRollout) -> RLStep:
        """The step with its advantages, after dynamic sampling where that is on."""
        metrics: dict[str, float] = {}
        if self.max_refills:
            samples, metrics = refill(
                samples,
                has_signal=lambda some: self.losses[0].has_signal(self.step_of(some)),
                sample_more=self.sample_more,
                max_refills=self.max_refills,
                strategy=self.strategy,
                on_device=lambda: self.phase("rollout"),
            )
            self.context = samples.context
        return self.step_of(samples, metrics)

    def sample_more(self, attempt: int, num_prompts: int) -> ScoredRollout:
        """Further prompts of the training mix, sampled and scored."""
        datamodule = self._datamodule()
        assert isinstance(datamodule, RefillingData)
        batch = datamodule.refill(self.rl_step, attempt, num_prompts)
        return self.collect_rollouts(batch.to(self.device))

    def step_of(
        self, samples: ScoredRollout, refill_metrics: dict[str, float] | None = None
    ) -> RLStep:
        """What losses see of some samples."""
        advantages, dropped = self.advantages.estimate(
            samples.scores, samples.rollout, samples.reference_rewards
        )
        key = SampleKey(self.seed, self.rl_step)
        return RLStep(samples, advantages, dropped, key, self.num_steps, refill_metrics or {})

    def prepare(self, step: RLStep) -> list[Prepared]:
        """Phase reference: what each loss needs of the step, under the weights of before the update."""
        scorer = StepScorer(
            self.loss_settings,
            step.rollout,
            lambda: self.micro_batches(step),
            self.reference,
            self.phase,
        )
        prepared = [loss.prepare(step, scorer) for loss in self.losses]
        for loss, ready in zip(self.losses, prepared, strict=True):
            check_prepared(loss, ready, step.scores.valid.shape)
        return prepared

    def update(self, step: RLStep, prepared: Sequence[Prepared]) -> dict[str, float]:
        """Phase update: K updates on one rollout; metrics are those of the last, skipped updates are added up."""
        updater = self.updater()
        metrics: dict[str, float] = {}
        num_skipped = 0.0
        for _ in range(self.num_updates):
            with self.phase("update"):
                metrics = updater.step(
                    prepared, lambda: self.micro_batches(step), self.rl_step, self.num_steps
                )
            num_skipped += metrics["skipped_updates"]
        return metrics | {"skipped_updates": num_skipped}

    def updater(self) -> Updater:
        """What turns the losses of this run into optimizer steps."""
        optimizer: Any = self.optimizers()
        return Updater(
            self.losses,
            self.combiner,
            list(self.policy.trainable().values()),
            optimizer,
            self.manual_backward,
            self.strategy,
            self.optim.max_grad_norm,
            self.update_watch,
        )

    def micro_batches(self, step: RLStep) -> Iterator[MicroBatch]:
        """The groups of a step in pieces that fit the settings."""
        return step_micro_batches(step, self.strategy, self.max_tokens, self.micro_batch_size)

    def show_progress(self, metrics: Mapping[str, float]) -> None:
        """The first loss's metrics on the progress bar."""
        keys = self.losses[0].progress_bar
        shown = {name: metrics.get(key, 0.0) for name, key in keys.items()}
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=1)

    def finish_step(self, metrics: Mapping[str, float | Tensor], weight: float = 1.0) -> None:
        """Step the schedule, log, count, and end the run after ``num_steps``.

        Args:
            metrics: of this rank.
            weight: what they weigh in a mean over ranks: the number of prompts.
        """
        schedule: Any = self.lr_schedulers()
        logged = {"lr": schedule.get_last_lr()[0], **metrics}
        step_schedule(schedule)

        costs, table = run_costs(self)
        logged |= costs
        self.ledger_table = table or self.ledger_table

        self.context = None
        logged |= self.panel.end_step()
        self.rl_step += 1
        self.step_metrics = gather_metrics(
            self.strategy, {k: float(v) for k, v in logged.items()}, weight
        )
        if self.rl_step % self.log_every == 0:
            self.write_metrics(self.step_metrics)

        # What a checkpoint saves of the data: a resumed run takes the prompts of its own step.
        datamodule = self._datamodule()
        if datamodule is not None and hasattr(datamodule, "next_step"):
            datamodule.next_step = self.rl_step
        if self.rl_step >= self.num_steps:
            self.trainer.should_stop = True

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Context manager of a phase; see `PhaseClock`."""
        return self.clock.enter(name, self.strategy)

    @property
    def strategy(self) -> RLStrategy:
        """The trainer's strategy, as the loop sees it."""
        return rl_strategy(self.trainer.strategy)

    def _datamodule(self) -> Any:
        # Lightning sets it only where one was given.
        return getattr(self.trainer, "datamodule", None)

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log at the present RL step; see `Curves`."""
        self.curves.write(self.loggers, metrics, self.rl_step)

    # --- a run: its start, what is placed, what is optimised

    def setup(self, stage: str) -> None:
        """Check the settings against trainer, data and policy, and hash the weights that training begins from.

        Runs before a checkpoint's weights are loaded, so a resumed run has the start of the run that it goes on with.
        """
        if self.trainer.world_size > 1 and not self.strategy.places_parts:
            raise RuntimeError(
                f"{type(self.trainer.strategy).__name__} does not fit an RL step of many forward and backward passes; "
                "set trainer.strategy to phase_ddp or phase_fsdp"
            )
        if self.trainer.precision == "16-mixed":
            raise ValueError(
                "precision 16-mixed: gradients are clipped before they are unscaled; use bf16-mixed"
            )
        if stage == "fit":
            check_trainer(self.trainer)
            self._check_fit()
        checkpointing.check_before_loading(self.trainer.strategy)

        self._stage = stage
        self._begins = stage == "fit" and not self._has_begun
        if self._begins or self.start_hash is None:
            self.start_hash = content_hash(self.policy)

    def _check_fit(self) -> None:
        name = type(self).__name__
        if self.samples_from_policy and self.policy.finetune.encoder:
            raise ValueError(
                f"{name} gives the encoder no gradient; set policy.init_args.finetune.encoder to false"
            )
        if self.max_refills and not isinstance(self._datamodule(), RefillingData):
            raise ValueError(
                "max_refills wants a data module with refill(step, attempt, num_prompts), such as AsrDataModule; got "
                f"{type(self._datamodule()).__name__}"
            )

        for loss in self.losses:
            if loss.passes_vary and self.strategy.lockstep:
                raise ValueError(
                    f"{loss.passes_vary}, which takes another number of forward passes on each rank; under "
                    f"{type(self.trainer.strategy).__name__} all take the same. Set it to 0, or use phase_ddp"
                )
            loss.check_run()

    def configure_model(self) -> None:
        """Shard the policy where the strategy shards; take the reference where a run begins."""
        if self._trainer is None:  # Lightning's load_from_checkpoint
            return
        self.strategy.shard(self.policy.parts())
        if self._begins:
            self._has_begun = True
            self._begins = False
            needs_reference = any(loss.needs_reference for loss in self.losses)
            self.reference = Reference(self.policy) if needs_reference else None

    def parts(self) -> list[Part]:
        """What the strategy places; see `run_parts`."""
        return run_parts(
            self.policy,
            self.reference,
            self._context_tensors,
            self.keep_context,
            self.reward_judges(),
            self.evaluation.judges(),
            self.losses,
        )

    def reward_judges(self) -> Sequence[nn.Module]:
        """The models that rewards judge with, each once; the evaluation uses the same instances."""
        return () if self.rewards is None else self.rewards.judges()

    def _context_tensors(self) -> list[Tensor]:
        return [] if self.context is None else self.context.tensors()

    def on_fit_start(self) -> None:
        """What losses read is no submodule: a strategy that places no parts does not move it."""
        if not self.strategy.places_parts:
            for loss in self.losses:
                for modules in loss.frozen_modules().values():
                    nn.ModuleList(modules).to(self.device)

    def configure_callbacks(self) -> list[Callback]:
        """What ends a run whose weights are lost, and what has one that goes on follow its settings."""
        watching = [self.update_watch, self.rarely_right, self.curves]
        return [*watching, FollowSettings(), *self.sampler.callbacks()]

    def configure_optimizers(self) -> Any:
        """The optimizer over what trains, with its schedule."""
        optimizer, schedule = self.optim.build(self.policy.trainable().values(), self.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    # --- checkpoints: trainable tensors only; everything else is rebuilt from the start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable tensors, and say which start they belong to."""
        checkpointing.keep_trained(checkpoint, self.policy)
        checkpoint["audiorl"] = checkpointing.run_record(
            checkpoint,
            self.policy,
            type(self).__name__,
            [loss.name for loss in self.losses],
            self.start_hash,
            self.rl_step,
            self.evaluations,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs here, and go on counting where it stopped; see `check_record`."""
        saved = checkpointing.check_record(
            checkpoint,
            self.policy,
            type(self).__name__,
            [loss.name for loss in self.losses],
            self.start_hash,
            path=getattr(self._trainer, "ckpt_path", None),
            resumes=self._stage == "fit",
            state_keys=set(self.state_dict()),
        )
        self.rl_step = saved["rl_step"]
        self.evaluations = list(saved["evaluations"])
        reopen_epoch(checkpoint)

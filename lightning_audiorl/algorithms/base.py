"""What every algorithm is: a LightningModule around one policy, counting RL steps, evaluating named sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from lightning_audiorl.algorithms.evaluated import EvaluatedModule
from lightning_audiorl.algorithms.evaluation import EvalDecoding, Evaluator
from lightning_audiorl.algorithms.optim import Optim
from lightning_audiorl.algorithms.ranks import clip_gradients, gather_metrics
from lightning_audiorl.algorithms.step import Step
from lightning_audiorl.judges.base import Judge
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.metrics import AsrEvaluation, SetEvaluation
from lightning_audiorl.models.policy import Context, Policy
from lightning_audiorl.models.reference import Reference, content_hash
from lightning_audiorl.strategies import NEEDED, Part, PhaseMixin, module_parts
from lightning_audiorl.strategies.phases import PhaseClock
from lightning_audiorl.types import Hypothesis


class AudioRLModule(EvaluatedModule):
    """Manual optimisation: one ``training_step`` is one RL step, whatever it does inside.

    A subclass writes ``training_step(batch, batch_idx)``: its stages inside ``with self.phase(name)``, its gradients
    through ``manual_backward``, then `optimizer_step_clipped` (as often as it likes) and `finish_step` (once).

    Args:
        policy: the model that trains.
        num_steps: RL steps of the run; the schedule ends there, and so does the run.
        optim: optimiser and schedule.
        eval_decodings: by name; the first is the one whose figures carry no name. Default: greedy.
        keywords: words of special value in every row, for the keyword figures of `AsrEvaluation`.
        evaluation: what is measured on evaluation sets; default `AsrEvaluation`.
        judges: of speech, by the name by which rewards and evaluation say which one they mean.
        seed: keys every draw of the run.
        log_every_n_steps: RL steps between two points of a training curve.
        keep_context: encoded prompts stay on the device for the whole step, whatever the strategy's placement.

    Attributes:
        context: the encoded prompts of the step at hand; None outside a step.
        panel: the judges, and what they answered about the samples of the step at hand.
        rl_step: RL steps done.
        step_metrics: figures of the last RL step by log key.
        evaluations: one record per evaluation: ``rl_step``, ``kind`` ("val" or "test") and ``results``, figures by set.
        last_hypotheses: groups of the last evaluation by set, the first 64 rows, under the first decoding.
        last_step: samples and rewards of the last RL step; None where nothing is sampled or rewarded.
        clock: the present phase, and the seconds of each in this step.
        reference: the weights that training began from; None where no reference phase runs.
        start_hash: content hash of the policy when training began.
    """

    def __init__(
        self,
        policy: Policy,
        num_steps: int,
        optim: Optim | None = None,
        eval_decodings: dict[str, EvalDecoding] | None = None,
        keywords: list[str] | None = None,
        seed: int = 0,
        log_every_n_steps: int = 1,
        keep_context: bool = False,
        evaluation: SetEvaluation | None = None,
        judges: dict[str, Judge] | None = None,
    ) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.automatic_optimization = False
        self.strict_loading = False
        self.policy = policy
        self.num_steps = num_steps
        self.optim = optim or Optim()
        self.eval_decodings = eval_decodings or {"greedy": EvalDecoding()}
        self.panel = JudgePanel(judges)
        self.evaluation = (evaluation or AsrEvaluation(keywords)).with_panel(self.panel)
        self.seed = seed
        self.log_every = log_every_n_steps
        self.keep_context = keep_context
        self.rl_step = 0
        self.clock = PhaseClock()
        self.evaluations: list[dict[str, Any]] = []
        self.last_hypotheses: dict[str, list[list[Hypothesis]]] = {}
        self.reference: Reference | None = None
        self.start_hash: str | None = None
        self.step_metrics: dict[str, float] = {}
        self.ledger_table: str | None = None
        self.last_step: Step | None = None
        self._evaluator: Evaluator | None = None
        self.context: Context | None = None
        self._fitted = self._begins = False
        self._stage = ""

    def setup(self, stage: str) -> None:
        """Take the weights that training begins from: their hash, and the reference where one is needed.

        Runs before a checkpoint's weights are loaded, so a resumed run has the start of the run that it goes on with.
        """
        strategy = self.trainer.strategy
        if self.trainer.world_size > 1 and not isinstance(strategy, PhaseMixin):
            raise RuntimeError(
                f"{type(strategy).__name__} does not fit an RL step of many forward and backward passes; set "
                "trainer.strategy to phase_ddp or phase_fsdp"
            )
        if self.trainer.precision == "16-mixed":
            raise ValueError("precision 16-mixed: gradients are clipped before they are unscaled; use bf16-mixed")
        self._stage = stage
        self._begins = stage == "fit" and not self._fitted
        if self._begins or self.start_hash is None:
            self.start_hash = content_hash(self.policy)

    def configure_model(self) -> None:
        """Shard the policy where the strategy shards; take the reference where a run begins."""
        if self._trainer is None:  # Lightning's load_from_checkpoint
            return
        strategy: Any = self.trainer.strategy
        if hasattr(strategy, "shard"):
            strategy.shard(self.policy.parts())
        if self._begins:
            self._fitted, self._begins = True, False
            self.reference = Reference(self.policy) if self.needs_reference else None

    def parts(self) -> list[Part]:
        """What the strategy places: the policy's parts, the reference, the encoded prompts of the step at hand."""
        parts = [p for name, modules in self.policy.parts().items() for p in module_parts(name, modules)]
        if self.reference is not None:
            parts.append(Part("reference", NEEDED["reference"], self.reference.tensors, frozen=True))
        keep = self.keep_context
        others = [judge for judge in self.evaluation.judges() if judge not in self.reward_judges()]
        parts += module_parts("judge of the evaluation", others, "judge")
        return [*parts, Part("context", NEEDED["context"], self._context_tensors, always=keep)]

    def reward_judges(self) -> Sequence[nn.Module]:
        """Models that rewards judge with; an algorithm that has such places them as the part ``judge``."""
        return ()

    def _context_tensors(self) -> list[Tensor]:
        return [] if self.context is None else self.context.tensors()

    @property
    def needs_reference(self) -> bool:
        """Whether the reference phase runs."""
        return False

    def on_train_start(self) -> None:
        """A finished run that is resumed takes no further step."""
        if self.rl_step >= self.num_steps:
            self.trainer.should_stop = True

    # --- optimisation

    def configure_optimizers(self) -> Any:
        """AdamW over what trains, with its schedule."""
        optimizer, schedule = self.optim.build(self.policy.trainable().values(), self.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def optimizer_step_clipped(self) -> dict[str, float]:
        """Clip by global norm, step, zero the gradients.

        The optimiser stands still where the norm is not finite, and where it is 0: nothing was learnt, but momentum and
        weight decay would move the weights.

        Returns:
            ``grad_norm`` before clipping, and ``skipped_updates``, 1 where the optimiser stood still.
        """
        optimizer: Any = self.optimizers()
        parameters = list(self.policy.trainable().values())
        strategy: Any = self.trainer.strategy
        if isinstance(strategy, PhaseMixin):
            strategy.sync_gradients(parameters)
        norm = clip_gradients(parameters, self.optim.max_grad_norm)
        steps = math.isfinite(norm) and norm > 0
        if steps:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "skipped_updates": float(not steps)}

    def finish_step(self, metrics: Mapping[str, float | Tensor], weight: float = 1.0) -> None:
        """Step the schedule, log, count, and end the run after ``num_steps``.

        Args:
            metrics: figures of this rank.
            weight: what they weigh in a mean over ranks: the number of prompts.
        """
        schedule: Any = self.lr_schedulers()
        logged = {"lr": schedule.get_last_lr()[0], **metrics}
        schedule.step()
        logged |= {f"seconds/{name}": seconds for name, seconds in self.clock.seconds.items()}
        self.clock.reset()
        strategy: Any = self.trainer.strategy
        ledger = getattr(strategy, "ledger", None)
        if ledger is not None:
            logged |= ledger.figures()
            self.ledger_table = ledger.table()
            ledger.reset()
        self.context = None
        self.panel.clear()
        self.rl_step += 1
        self.step_metrics = gather_metrics(strategy, {k: float(v) for k, v in logged.items()}, weight)
        if self.rl_step % self.log_every == 0:
            self._write(self.step_metrics)
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None and hasattr(datamodule, "next_step"):
            datamodule.next_step = self.rl_step
        if self.rl_step >= self.num_steps:
            self.trainer.should_stop = True

    # --- checkpoints: trainable tensors only; everything else is rebuilt from the start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable tensors, and say which start they belong to."""
        trainable = {f"policy.{name}" for name in self.policy.trainable()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}
        checkpoint["audiorl"] = {
            "tensors": sorted(trainable),
            "start": self.policy.start.record(),
            "start_hash": self.start_hash,
            "finetune": asdict(self.policy.finetune),
            "rl_step": self.rl_step,
            "algorithm": type(self).__name__,
            "evaluations": self.evaluations,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs here, and go on counting where it stopped.

        A run goes on only with its own algorithm, trainable tensors and start. Evaluation takes any checkpoint whose
        tensors the model has and whose start is the same.

        Raises:
            ValueError: saying what differs.
        """
        saved = checkpoint.get("audiorl")
        if saved is None:
            raise ValueError("not a checkpoint of this library (no 'audiorl' entry)")
        new_run = "; to begin a new run from a checkpoint, give it as init_from instead of ckpt_path"
        held = set(saved["tensors"])  # FSDP has taken the tensors themselves out by now
        if self._stage == "fit":
            if saved["algorithm"] != type(self).__name__:
                raise ValueError(f"ckpt_path: a run of {saved['algorithm']}, not of {type(self).__name__}{new_run}")
            differing = held ^ {f"policy.{name}" for name in self.policy.trainable()}
        else:
            differing = held - set(self.state_dict())
        if differing:
            where = "checkpoint" if min(differing) in held else "policy"
            raise ValueError(
                f"ckpt_path: made with another finetune setting; {len(differing)} trainable tensors differ, "
                f"{min(differing)} is only in the {where}{new_run}"
            )
        here = self.start_hash or content_hash(self.policy)
        if saved["start_hash"] != here:
            raise ValueError(
                f"ckpt_path: its run began from other weights than the policy was built from (start {saved['start']}, "
                f"content hash {saved['start_hash']}; here {self.policy.start.record()}, {here}): reference and "
                f"frozen parts would not be the same. Give the same init_from{new_run}"
            )
        self.rl_step = saved["rl_step"]
        self.evaluations = list(saved["evaluations"])

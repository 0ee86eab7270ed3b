"""What every algorithm is: a LightningModule around one policy, counting RL steps, evaluating named sets."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from lightning_audiorl.algorithms.evaluation import EvalDecoding, Evaluator
from lightning_audiorl.algorithms.optim import Optim
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.models.reference import Reference, content_hash
from lightning_audiorl.strategies.phases import Phase, PhaseClock
from lightning_audiorl.types import Hypothesis, PromptBatch

_MONITOR = ("wer", "cer", "correct_rate", "insertion_rate", "hallucination_rate", "nonspeech_text_rate")


class AudioRLModule(LightningModule):
    """Manual optimisation: one ``training_step`` is one RL step, whatever it does inside.

    A subclass writes ``training_step(batch, batch_idx)``: its stages inside ``with self.phase(name)``, its gradients
    through ``manual_backward``, then `optimizer_step_clipped` (as often as it likes) and `finish_step` (once).

    Args:
        policy: the model that trains.
        num_steps: RL steps of the run; the schedule ends there, and so does the run.
        optim: optimiser and schedule.
        eval_decodings: by name; the first is the one whose figures carry no name. Default: greedy.
        keywords: words of special value in every row, for the keyword figures.
        seed: keys every draw of the run.
        log_every_n_steps: RL steps between two points of a training curve.

    Attributes:
        rl_step: RL steps done.
        step_metrics: figures of the last RL step by log key.
        evaluations: one record per evaluation: ``rl_step``, ``kind`` ("val" or "test") and ``results``, figures by set.
        last_hypotheses: groups of the last evaluation by set, the first 64 rows, under the first decoding.
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
        self.keywords = keywords or []
        self.seed = seed
        self.log_every = log_every_n_steps
        self.rl_step = 0
        self.clock = PhaseClock()
        self.evaluations: list[dict[str, Any]] = []
        self.last_hypotheses: dict[str, list[list[Hypothesis]]] = {}
        self.reference: Reference | None = None
        self.start_hash: str | None = None
        self.step_metrics: dict[str, float] = {}
        self._evaluator: Evaluator | None = None
        self._fitted = False
        self._stage = ""

    def setup(self, stage: str) -> None:
        """Take the weights that training begins from: their hash, and the reference where one is needed.

        Runs before a checkpoint's weights are loaded, so a resumed run has the start of the run that it goes on with.
        """
        if self.trainer.world_size > 1:
            raise RuntimeError("this version trains in one process; set trainer.devices=1")
        if self.trainer.precision == "16-mixed":
            raise ValueError("precision 16-mixed: gradients are clipped before they are unscaled; use bf16-mixed")
        self._stage = stage
        begins = stage == "fit" and not self._fitted
        if begins or self.start_hash is None:
            self.start_hash = content_hash(self.policy)
        if begins:
            self._fitted = True
            self.reference = Reference(self.policy) if self.needs_reference else None

    @property
    def needs_reference(self) -> bool:
        """Whether the reference phase runs."""
        return False

    def on_train_start(self) -> None:
        """A finished run that is resumed takes no further step."""
        if self.rl_step >= self.num_steps:
            self.trainer.should_stop = True

    def phase(self, name: Phase) -> Any:
        """Context manager of a phase; see `PhaseClock`."""
        return self.clock.enter(name, self.trainer.strategy)

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
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.optim.max_grad_norm or math.inf))
        steps = math.isfinite(norm) and norm > 0
        if steps:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "skipped_updates": float(not steps)}

    def finish_step(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Step the schedule, log, count, and end the run after ``num_steps``."""
        schedule: Any = self.lr_schedulers()
        logged = {"lr": schedule.get_last_lr()[0], **metrics}
        schedule.step()
        logged |= {f"seconds/{name}": seconds for name, seconds in self.clock.seconds.items()}
        self.clock.reset()
        self.rl_step += 1
        self.step_metrics = {name: float(value) for name, value in logged.items()}
        if self.rl_step % self.log_every == 0:
            self._write(self.step_metrics)
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None and hasattr(datamodule, "next_step"):
            datamodule.next_step = self.rl_step
        if self.rl_step >= self.num_steps:
            self.trainer.should_stop = True

    def _write(self, metrics: dict[str, float]) -> None:
        """Log at the present RL step, and have it on disk: a killed run loses no point that a checkpoint counts."""
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.rl_step)
            logger.save()

    # --- evaluation

    def _start_evaluation(self, kind: str) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        sets = getattr(datamodule, kind, None)
        if not isinstance(sets, Mapping):
            loaders = self.trainer.val_dataloaders if kind == "val" else self.trainer.test_dataloaders
            sets = {f"set{i}": None for i in range(len(loaders) if isinstance(loaders, list) else 1)}
        self._evaluator = Evaluator(self.eval_decodings, list(sets), self.keywords)
        self.last_hypotheses = {name: [] for name in sets}

    def _evaluate(self, batch: PromptBatch, set_index: int) -> None:
        assert self._evaluator is not None
        with self.policy.evaluating():
            start = time.perf_counter()
            with self.phase("encode"):
                context = self.policy.encode(batch)
            encode_s = time.perf_counter() - start
            with self.phase("rollout"):
                groups = self._evaluator.update(self.policy, batch, context, encode_s, set_index, self.seed)
        kept = self.last_hypotheses[self._evaluator.set_names[set_index]]
        kept.extend(groups[: max(0, 64 - len(kept))])

    def _finish_evaluation(self, kind: str) -> None:
        assert self._evaluator is not None
        results = self._evaluator.compute()
        self.clock.reset()
        self.evaluations.append({"rl_step": self.rl_step, "kind": kind, "results": results})
        flat = {
            f"{kind}/{name}/{figure}": value
            for name, figures in results.items()
            for figure, value in figures.items()
            if math.isfinite(value)
        }
        self._write(flat)
        if not self.trainer.sanity_checking:
            self.log_dict(
                {key: value for key, value in flat.items() if key.rsplit("/", 1)[1] in _MONITOR},
                logger=False,
                batch_size=1,
            )

    def on_validation_epoch_start(self) -> None:
        """Begin the figures of every ``val`` set of the data module."""
        self._start_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Begin the figures of every ``test`` set of the data module."""
        self._start_evaluation("test")

    def validation_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Decode one batch of the set number ``dataloader_idx`` under every decoding."""
        self._evaluate(batch, dataloader_idx)

    def test_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As `validation_step`."""
        self._evaluate(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/<set>/<figure>`` and append to ``evaluations``."""
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/<set>/<figure>`` and append to ``evaluations``."""
        self._finish_evaluation("test")

    # --- checkpoints: trainable tensors only; everything else is rebuilt from the start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable tensors, and say which start they belong to."""
        trainable = {f"policy.{name}" for name in self.policy.trainable()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}
        checkpoint["audiorl"] = {
            "start": self.policy.start.record(),
            "start_hash": self.start_hash,
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
        held = set(checkpoint["state_dict"])
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

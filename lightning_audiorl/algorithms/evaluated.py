"""The evaluation hooks that every algorithm has: named sets, under named decodings, as figures by set."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule

from lightning_audiorl.algorithms.evaluation import EvalDecoding, Evaluator
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.metrics.specs import is_monitored
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.strategies import rl_strategy
from lightning_audiorl.strategies.phases import Phase, PhaseClock
from lightning_audiorl.types import Hypothesis, PromptBatch


class EvaluatedModule(LightningModule):
    """A policy, evaluated; `AudioRLModule` says what the attributes are."""

    policy: Policy
    eval_decodings: dict[str, EvalDecoding]
    evaluation: SetEvaluation
    panel: JudgePanel
    seed: int
    rl_step: int
    clock: PhaseClock
    evaluations: list[dict[str, Any]]
    last_hypotheses: dict[str, list[list[Hypothesis]]]
    _evaluator: Evaluator | None = None

    def phase(self, name: Phase) -> Any:
        """Context manager of a phase; see `PhaseClock`."""
        return self.clock.enter(name, rl_strategy(self.trainer.strategy))

    def _write(self, metrics: dict[str, float]) -> None:
        """Log at the present RL step, and have it on disk: a killed run loses no point that a checkpoint counts."""
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.rl_step)
            logger.save()

    def _start_evaluation(self, kind: str) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        sets = getattr(datamodule, kind, None)
        if not isinstance(sets, Mapping):
            loaders = self.trainer.val_dataloaders if kind == "val" else self.trainer.test_dataloaders
            sets = {f"set{i}": None for i in range(len(loaders) if isinstance(loaders, list) else 1)}
        self._evaluator = Evaluator(self.eval_decodings, list(sets), self.evaluation)
        self.last_hypotheses = {name: [] for name in sets}

    def _evaluate(self, batch: PromptBatch, set_index: int) -> None:
        assert self._evaluator is not None
        with self.policy.evaluating():
            start = time.perf_counter()
            with self.phase("encode"):
                context = self.policy.encode(batch)
            encode_s = time.perf_counter() - start
            groups = self._evaluator.update(self.policy, batch, context, encode_s, set_index, self.seed, self.phase)
        kept = self.last_hypotheses[self._evaluator.set_names[set_index]]
        kept.extend(self.panel.with_transcripts(groups[: max(0, 64 - len(kept))]))
        self.panel.clear()

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
                {key: value for key, value in flat.items() if is_monitored(key)},
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

"""The evaluation hooks of every algorithm: named sets, under named decodings, as metrics by set."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from lightning import Trainer

from lightning_audiorl.engine.coverage import count_left_out, say_limits
from lightning_audiorl.engine.evaluator import Evaluator, flat_metrics
from lightning_audiorl.engine.resuming import begin_or_go_on, say_if_cut_short
from lightning_audiorl.engine.run_parts import encode_phase
from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.metrics.specs import is_monitored
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.strategies import rl_strategy
from lightning_audiorl.strategies.phases import Phase, PhaseClock
from lightning_audiorl.types import Hypothesis, PromptBatch


class EvaluatedModule(Protocol):
    """What the hooks need of the LightningModule that they are mixed into."""

    policy: Policy
    evaluator: Evaluator
    clock: PhaseClock
    seed: int
    rl_step: int
    num_steps: int
    evaluations: list[dict[str, Any]]

    @property
    def trainer(self) -> Trainer: ...

    def phase(self, name: Phase) -> AbstractContextManager[None]: ...

    def write_metrics(self, metrics: Mapping[str, float]) -> None: ...

    def log_dict(self, dictionary: Any, *, logger: bool | None, batch_size: int | None) -> None: ...

    def _set_names(self, kind: str) -> list[str]: ...

    def _evaluate(self, batch: PromptBatch, set_index: int) -> None: ...

    def _finish_evaluation(self, kind: str) -> None: ...


class EvaluationHooks:
    """Mixed into a LightningModule, before it among the bases."""

    @property
    def last_hypotheses(self: EvaluatedModule) -> dict[str, list[list[Hypothesis]]]:
        """Groups of the last evaluation by set, the first 64 rows, under the first decoding."""
        return self.evaluator.last_hypotheses

    @property
    def row_results(self: EvaluatedModule) -> dict[str, list[RowResult]]:
        """What the last evaluation says of each row of this rank, by set, under the first decoding."""
        return self.evaluator.row_results

    def _set_names(self: EvaluatedModule, kind: str) -> list[str]:
        """Names of the data module's sets; numbered where loaders were given without names."""
        sets = getattr(getattr(self.trainer, "datamodule", None), kind, None)
        if isinstance(sets, Mapping):
            return list(sets)
        loaders = self.trainer.val_dataloaders if kind == "val" else self.trainer.test_dataloaders
        return [
            f"set{number}" for number in range(len(loaders) if isinstance(loaders, list) else 1)
        ]

    def _evaluate(self: EvaluatedModule, batch: PromptBatch, set_index: int) -> None:
        with self.policy.evaluating():
            strategy = rl_strategy(self.trainer.strategy)
            encode_in = encode_phase(self.policy, batch, strategy)
            self.evaluator.update(self.policy, batch, set_index, self.seed, self.phase, encode_in)

    def _finish_evaluation(self: EvaluatedModule, kind: str) -> None:
        results = self.evaluator.compute()
        datamodule = getattr(self.trainer, "datamodule", None)
        count_left_out(results, kind, getattr(datamodule, "num_bad_rows", {}))
        say_limits(self.trainer, kind, self.evaluator.num_rows, self.evaluator.said)
        self.clock.reset()
        self.policy.num_hotwords_cut = 0
        if self.policy.encoder_cache is not None:
            # What a step found is counted apart.
            self.policy.encoder_cache.reset()
        self.evaluations.append({"rl_step": self.rl_step, "kind": kind, "results": results})

        flat = flat_metrics(kind, results)
        self.write_metrics(flat)

        # What a checkpoint or an early stop may monitor; the sanity check before training is no evaluation.
        if not self.trainer.sanity_checking:
            monitored = {key: value for key, value in flat.items() if is_monitored(key)}
            self.log_dict(monitored, logger=False, batch_size=1)

    def on_train_start(self: EvaluatedModule) -> None:
        """A finished run takes no further step; one that was killed in an evaluation makes it first."""
        begin_or_go_on(self.trainer, self)

    def on_fit_end(self: EvaluatedModule) -> None:
        """Say so where something other than ``num_steps`` ended the run."""
        say_if_cut_short(self.trainer, self.rl_step, self.num_steps)

    def on_validation_epoch_start(self: EvaluatedModule) -> None:
        """Begin the metrics of every ``val`` set of the data module."""
        self.evaluator.begin(self._set_names("val"))

    def on_test_epoch_start(self: EvaluatedModule) -> None:
        """Begin the metrics of every ``test`` set of the data module."""
        self.evaluator.begin(self._set_names("test"))

    def validation_step(
        self: EvaluatedModule, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Decode one batch of the set number ``dataloader_idx`` under every decoding."""
        self._evaluate(batch, dataloader_idx)

    def test_step(
        self: EvaluatedModule, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Decode one batch of the set number ``dataloader_idx`` under every decoding."""
        self._evaluate(batch, dataloader_idx)

    def on_validation_epoch_end(self: EvaluatedModule) -> None:
        """Log ``val/<set>/<metric>`` and append to ``evaluations``."""
        self._finish_evaluation("val")

    def on_test_epoch_end(self: EvaluatedModule) -> None:
        """Log ``test/<set>/<metric>`` and append to ``evaluations``."""
        self._finish_evaluation("test")

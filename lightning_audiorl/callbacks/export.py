"""The trained model as a folder that transformers loads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from lightning_audiorl.callbacks.checkpoint import RLCheckpoint, saved_step
from lightning_audiorl.callbacks.model_card import ModelCard, export_card, run_facts
from lightning_audiorl.callbacks.outputs import run_folder, writing
from lightning_audiorl.callbacks.view import RunView, run_view, validations
from lightning_audiorl.strategies import rl_strategy

_log = logging.getLogger(__name__)


class Export(Callback):
    """At the end of a fit writes the policy for ``from_pretrained``, adapters merged, with a model card.

    The card, ``README.md``, says what the model was made of and under which licence, what it learnt from, by which
    rewards and settings, and how it did before and after. One of your own in the folder stays as it is.

    Args:
        enabled: False writes nothing.
        dirpath: default ``<default_root_dir>/export``.
        adapter: leaves the adapters of ``finetune.lm: lora`` beside the weights that they were trained on, in the files
            of peft, instead of merging them.
        best: also writes ``<dirpath>_best`` from `RLCheckpoint`'s best checkpoint (its ``monitor`` must be set); not
            where every evaluation was worse than that before the first step.
    """

    def __init__(
        self,
        enabled: bool = True,
        dirpath: str | None = None,
        best: bool = False,
        adapter: bool = False,
    ) -> None:
        self.enabled = enabled
        self.dirpath = dirpath
        self.best = best
        self.adapter = adapter
        self._facts: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """What the card says of the run: ``audiorl export`` of a checkpoint writes it, too."""
        return {"run": self._facts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The facts of the run until here; this process looks at its own."""
        self._facts = dict(state_dict.get("run", {}))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See at once that there will be a best checkpoint, and that the folders can be written.

        Raises:
            ValueError: where none will be kept; where the policy was loaded from one of the folders; for an adapter
                where none trains.
            FileExistsError: where a file stands in a folder's place.
        """
        if not self.enabled or stage != "fit":
            return
        if self.best and self._best_checkpoint(trainer) is None:
            raise ValueError(
                "Export.best needs an RLCheckpoint with a monitor, such as monitor: val/long/wer"
            )
        if self.adapter:
            run_view(pl_module).policy.check_adapter()
        folder = run_folder(trainer, self.dirpath, "export")
        for path in (Path(folder), Path(f"{folder}_best")):
            if path.is_file():
                raise FileExistsError(f"Export.dirpath: {path} is a file; give a folder")
            run_view(pl_module).policy.check_export(path)

    def _best_checkpoint(self, trainer: Trainer) -> RLCheckpoint | None:
        found = (
            c for c in trainer.checkpoint_callbacks if isinstance(c, RLCheckpoint) and c.monitor
        )
        return next(found, None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the run is."""
        if self.enabled and trainer.is_global_zero:
            self._facts = run_facts(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folders."""
        if not self.enabled:
            return

        # Every rank takes part in putting a sharded policy together.
        rl_strategy(trainer.strategy).gather_weights()
        if not trainer.is_global_zero:
            return

        run = run_view(pl_module)
        folder = run_folder(trainer, self.dirpath, "export")
        best_folder = Path(f"{folder}_best")
        with writing("the trained model", folder):
            self._write(run, folder)
            export_card(folder, self._card(run, run.rl_step))
        rank_zero_info(f"exported to {folder}")

        checkpoint = self._best_checkpoint(trainer) if self.best else None
        if checkpoint is None:
            return
        path = checkpoint.path(trainer, "best")
        has_best = checkpoint.best_step >= 0
        if has_best and saved_step(path, checkpoint.state_key) == checkpoint.best_step:
            with writing("the best model", best_folder):
                self._export_best(run, path, best_folder)
                export_card(best_folder, self._card(run, checkpoint.best_step))
            return

        reason = f"{path} is of another step" if has_best else checkpoint.why_no_best(run)
        _log.warning("no best checkpoint to export: %s; %s is not written", reason, best_folder)

    def _write(self, run: RunView, folder: str | Path) -> None:
        if self.adapter:
            run.policy.export_adapter(str(folder))
        else:
            run.policy.export(str(folder))

    def _card(self, run: RunView, rl_step: int) -> ModelCard:
        """Of the weights after an RL step; what was evaluated later is of others."""
        until = [one for one in validations(run) if one["rl_step"] <= rl_step]
        before = until[0] if until else None
        after = until[-1] if len(until) > 1 else None
        return ModelCard(run.policy, self._facts, rl_step, before, after, self.adapter)

    def _export_best(self, run: RunView, path: Path, folder: Path) -> None:
        # The module goes on with its last weights, whatever comes of the best ones.
        last = {}
        for name, parameter in run.policy.trainable().items():
            last[f"policy.{name}"] = parameter.detach().cpu().clone()
        try:
            best = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
            # Not strict: a checkpoint holds what trains, and nothing else.
            run.load_state_dict(best, strict=False)
            self._write(run, folder)
        finally:
            run.load_state_dict(last, strict=False)

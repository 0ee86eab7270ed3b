"""The folder of an evaluation: each has one of its own, in that of the run."""

from __future__ import annotations

import os
from pathlib import Path

from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from lightning_audiorl.run_folder import RunFolder, free_folder, move

#: Tells the processes that an evaluation starts which folder it has.
_VARIABLE = "AUDIORL_EVALUATION_FOLDER"


def take_evaluation_folder(settings: Namespace, command: str) -> RunFolder | None:
    """Find an evaluation a folder of its own, and put it into the settings, wherever they name the run's.

    It is ``<default_root_dir>/validate``, or ``/test``; the next one of the same run has ``validate-2``, and so on.
    What a fit has written stays as it is, and so does what an earlier evaluation has.

    Args:
        settings: of the command; changed in place. Checkpoints are looked for where the run has them.
        command: ``validate`` or ``test``.

    Returns:
        The folder, held; None for one that is no local path, and every process but the first.
    """
    place = str(settings.trainer.default_root_dir)
    if "://" in place:
        return None
    root = Path(place).expanduser()

    # "last" and "best" are files of the run, not of the evaluation.
    saving = settings.get("checkpoint")
    if saving is not None and saving.get("dirpath") is None:
        saving.dirpath = str(root / "checkpoints")
    checkpoints = None if saving is None else saving.dirpath

    taken: RunFolder | None = None
    if getattr(rank_zero_only, "rank", 0) == 0:
        taken, _ = free_folder(root / command)
        os.environ[_VARIABLE] = str(taken.path)
    folder = Path(os.environ.get(_VARIABLE, root / command))

    move(settings, root, folder, f"-{folder.name}")
    if saving is not None:
        saving.dirpath = checkpoints
    return taken


class KeepEvaluationFolder(Callback):
    """Notes in an evaluation's folder that it has begun, and has all processes agree on it.

    Args:
        folder: of the evaluation; None in every process but the first.
    """

    def __init__(self, folder: RunFolder | None) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Where processes are started side by side, the others learn the folder here."""
        place = trainer.strategy.broadcast(trainer.default_root_dir)
        vars(trainer)["_default_root_dir"] = place

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From now on the folder is this evaluation's."""
        self._begin()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From now on the folder is this evaluation's."""
        self._begin()

    def _begin(self) -> None:
        if self.folder is not None:
            self.folder.begin()

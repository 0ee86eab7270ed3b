"""A run, whoever starts it: the trainer, the callbacks that are always there, the folder; and `train`, for Python."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_audiorl.algorithms import GRPO, AudioRLModule
from lightning_audiorl.callbacks import (
    EarlyStop,
    Export,
    HackingWatch,
    PhaseProgressBar,
    RLCheckpoint,
    RunReport,
    SampleLogger,
    metric_table,
)
from lightning_audiorl.callbacks.view import nothing_learnt
from lightning_audiorl.engine.trainer_checks import check_trainer
from lightning_audiorl.engine.update_watch import NothingLearntError
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.rewards import FunctionReward, Reward, RewardMix
from lightning_audiorl.run_end import honest_exit
from lightning_audiorl.run_folder import KeepFolder, RunFolder, keep_curves, take_folder
from lightning_audiorl.types import Hypothesis
from lightning_audiorl.weights.pretrained import hide_progress_bars

# With no length of the training data, Lightning wants a whole number here; every run ends with an evaluation anyway.
_NEVER = 1_000_000_000

# Lightning's warnings of what is on purpose here: GRPO trains in eval mode, a checkpoint holds trainable tensors only,
# and the data goes on from its own step number.
_NOT_SO = (
    r"Found \d+ module\(s\) in eval mode",
    "Found keys that are in the model state dict but not in the checkpoint",
    "You're resuming from a checkpoint that ended before the epoch ended",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)

# What Lightning advertises, a device that nobody asked for, and the length in epochs, which no run has; what
# transformers says of a part of an audio LM that it builds without attention, and at each call of Whisper's own
# `generate`: its published configuration has a max_length, and its code passes a configuration beside arguments.
_NOT_FOR_USERS = {
    "lightning.pytorch.utilities.rank_zero": (
        "litlogger",
        "LitLogger",
        "litmodels",
        "LitModels",
        "TPU available: False",
        "`max_epochs=1` reached",
    ),
    "transformers.modeling_utils": ("without finding the associated sub-model",),
    "transformers.generation.utils": (
        "Both `max_new_tokens`",
        "Passing `generation_config` together with generation-related arguments",
    ),
}

#: Always there where a policy trains; each has a section of its own in YAML: ``checkpoint: {every_n_steps: 20}``.
#: The training of a part (codec, judge, Token2Text) is a plain LightningModule with Lightning's own callbacks.
CALLBACKS: dict[str, type[Callback]] = {
    "progress": PhaseProgressBar,
    "samples": SampleLogger,
    "checkpoint": RLCheckpoint,
    "hacking_watch": HackingWatch,
    "early_stop": EarlyStop,
    "export": Export,
    "report": RunReport,
}


def silence() -> None:
    """Leave out warnings that are none of the user's business, each by its text."""
    for message in _NOT_SO:
        warnings.filterwarnings("ignore", message=message)
    for name, texts in _NOT_FOR_USERS.items():
        logging.getLogger(name).addFilter(_Without(texts))

    # A bar that is drawn over itself is no help in a file.
    if not sys.stderr.isatty():
        hide_progress_bars()


@dataclass(frozen=True)
class _Without:
    """A filter of log messages that hold one of some texts."""

    texts: tuple[str, ...]

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is shown."""
        message = record.getMessage()
        return not any(text in message for text in self.texts)


def trainer_defaults() -> dict[str, Any]:
    """What differs from Lightning's own defaults: evaluate everything before the first step and after the last."""
    return {
        "devices": 1,
        "max_epochs": 1,
        "num_sanity_val_steps": -1,
        "val_check_interval": _NEVER,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": "runs/default",
    }


def left_out(users: Sequence[Callback], trainer: Mapping[str, Any]) -> set[type[Callback]]:
    """Classes of ours whose place a callback of the user's takes, or that a switch of the Trainer turns off.

    Args:
        users: callbacks of the user's.
        trainer: arguments of the Trainer.
    """
    unwanted = {type(callback) for callback in users}
    for kind, switch in (
        (ProgressBar, "enable_progress_bar"),
        (Checkpoint, "enable_checkpointing"),
    ):
        is_off = trainer.get(switch) is False
        if is_off or any(isinstance(callback, kind) for callback in users):
            unwanted |= {ours for ours in CALLBACKS.values() if issubclass(ours, kind)}
    return unwanted


def checkpoint_file(trainer: Trainer, name: str | None, may_begin: bool) -> str | None:
    """The file of "last" or "best" in the run's folder; another path as it is.

    Args:
        trainer: of the run.
        name: "last", "best", a path, or None.
        may_begin: whether "last" in a folder without any checkpoint is None: the run begins.

    Raises:
        FileNotFoundError: where there is none, and not the start instead; only a fit without any may begin.
    """
    saving = trainer.checkpoint_callback
    if name not in ("last", "best") or not isinstance(saving, RLCheckpoint):
        return name
    path = saving.path(trainer, name)
    if path.is_file():
        return str(path)

    others = sorted(path.parent.glob("step-*.ckpt"))
    if may_begin and name == "last" and not others:
        return None
    hint = f"; {others[-1]} is there, give that" if others else ""
    raise FileNotFoundError(f"--ckpt_path {name}: there is no {path}{hint}")


def fit(trainer: Trainer, module: LightningModule, folder: RunFolder | None, **kwargs: Any) -> None:
    """``Trainer.fit`` in a folder that is held, which is released at the end.

    Args:
        trainer, module: see Lightning.
        folder: of the run; None in every process but the first.
        kwargs: more of ``Trainer.fit``.

    Raises:
        NothingLearntError: at the end of a run of which no update has changed the model.
    """
    try:
        if isinstance(module, AudioRLModule):
            check_trainer(trainer)
        if folder is not None:
            folder.clear()
        keep_curves(trainer)
        with honest_exit(trainer.default_root_dir):
            trainer.fit(module, **kwargs)
    finally:
        if folder is not None:
            folder.release()

    # That a run has ended says that what was asked for has happened.
    verdict = nothing_learnt(module)
    if verdict is not None:
        raise NothingLearntError(f"the run has ended, but {verdict}")


@dataclass(frozen=True)
class Run:
    """What `train` returns.

    Args:
        algorithm: the LightningModule; ``algorithm.policy`` is the trained model.
        trainer: Lightning's.
        folder: holds checkpoints, curves, ``report/`` and ``export/``.
    """

    algorithm: AudioRLModule
    trainer: Trainer
    folder: Path

    @property
    def history(self) -> dict[str, list[float]]:
        """Every RL step's metrics in columns, with the step as ``step``; ``pandas.DataFrame`` takes it as it is."""
        [report] = [one for one in self.trainer.callbacks if isinstance(one, RunReport)]  # type: ignore[attr-defined]
        history = report.history
        steps = [float(step) for step in history.steps]
        return {"step": steps, **history.columns}

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """``{"rl_step": ..., "kind": "val", "results": {set: {metric: value}}}``, the start first."""
        return self.algorithm.evaluations

    @property
    def verdict(self) -> str:
        """What improved and what did not, by how much, on how many utterances, against what; as it was printed.

        Empty where the run was evaluated only once, or its report is off.
        """
        lines: list[str] = []
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunReport):
                lines += callback.verdict
        return "\n".join(lines)

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """``{"rl_step": ..., "text": ...}`` of everything that the hacking watch has said."""
        alerts: list[dict[str, Any]] = []
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, HackingWatch):
                alerts += callback.alerts
        return alerts

    def table(self) -> str:
        """Metrics of each set before the first step and after the last, as text."""
        before = self.evaluations[0]["results"]
        after = self.evaluations[-1]["results"]
        return metric_table(before, after)


def reward_mix(rewards: RewardMix | Sequence[Reward | Callable[[Hypothesis], float]]) -> RewardMix:
    """A mix of rewards and of plain functions; a mix as it is."""
    if isinstance(rewards, RewardMix):
        return rewards
    return RewardMix(
        [reward if isinstance(reward, Reward) else FunctionReward(reward) for reward in rewards]
    )


def train(
    policy: Policy,
    data: LightningDataModule,
    rewards: RewardMix | Sequence[Reward | Callable[[Hypothesis], float]],
    num_steps: int,
    folder: str | Path = "runs/default",
    algorithm: type[AudioRLModule] = GRPO,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    trainer: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Train a policy: what ``audiorl fit`` does, from Python.

    The sets of ``data`` are evaluated before the first step and after the last. The folder gets checkpoints, curves,
    report and export; one that an earlier run has used is left alone, and a numbered one beside it is taken.

    Args:
        policy: the model that trains.
        data: a data module of this package.
        rewards: a mix, or rewards and plain functions of a `Hypothesis` that return a number.
        num_steps: RL steps.
        folder: of the run.
        algorithm: class of the LightningModule, with rewards.
        resume: go on from the last checkpoint in ``folder``; begins where there is none.
        overwrite: remove what an earlier run wrote to ``folder``.
        callbacks: one of yours takes the place of ours of its class.
        trainer: arguments of Lightning's Trainer, over `trainer_defaults`.
        settings: arguments of the algorithm: ``group_size``, ``optim``, ``decoding``, ``beta``, ...

    Raises:
        NothingLearntError: where no update has changed the model. FolderInUse: for a folder whose run is alive.
        FileNotFoundError: to be resumed, with checkpoints but not the last one. ValueError: for a ``trainer`` with
            callbacks or a folder of its own.

    Example::

        from lightning_audiorl import Accuracy, AsrDataModule, WhisperPolicy, train

        def short(hypothesis):
            return -0.01 * len(hypothesis.text.split())

        policy = WhisperPolicy("openai/whisper-base")
        data = AsrDataModule("train.jsonl", val={"dev": "dev.jsonl"}, batch_size=4)
        run = train(policy, data, [Accuracy(floor=-1.0), short], num_steps=40, folder="runs/mine")
        print(run.table())
    """
    silence()
    module = algorithm(policy, num_steps=num_steps, rewards=reward_mix(rewards), **settings)

    checkpoint = "last" if resume else None
    given = trainer_defaults() | (trainer or {})
    twice = sorted({"callbacks", "default_root_dir"} & set(trainer or {}))
    if twice:
        raise ValueError(
            f"train: trainer has {twice}; give `callbacks` and `folder` to train itself"
        )

    place = Namespace(default_root_dir=str(folder))
    wanted = Namespace(trainer=place, ckpt_path=checkpoint, overwrite=overwrite)
    held = take_folder(wanted)
    try:
        root = str(wanted.trainer.default_root_dir)
        given["default_root_dir"] = root
        given.setdefault("logger", TensorBoardLogger(root, name="", version=""))
        unwanted = left_out(callbacks, given)
        ours = [kind() for kind in CALLBACKS.values() if kind not in unwanted]
        of_lightning = Trainer(callbacks=[*ours, KeepFolder(held), *callbacks], **given)
        fit_from = checkpoint_file(of_lightning, checkpoint, may_begin=True)
    except BaseException:
        if held is not None:
            held.release()
        raise

    fit(of_lightning, module, held, datamodule=data, ckpt_path=fit_from)
    return Run(module, of_lightning, Path(of_lightning.default_root_dir))

"""``audiorl``: LightningCLI over YAML class paths, which are the only registry, and the commands of `commands`."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_audiorl import __version__, screen
from lightning_audiorl.algorithms import AudioRLModule
from lightning_audiorl.callbacks import (
    EarlyStop,
    Export,
    HackingWatch,
    PhaseProgressBar,
    RLCheckpoint,
    RunReport,
    SampleLogger,
)
from lightning_audiorl.callbacks.view import nothing_learnt
from lightning_audiorl.commands import COMMANDS
from lightning_audiorl.engine.resuming import FollowSettings
from lightning_audiorl.engine.trainer_checks import check_trainer
from lightning_audiorl.engine.update_watch import NothingLearntError
from lightning_audiorl.run_end import completed, honest_exit
from lightning_audiorl.run_folder import (
    KeepFolder,
    RunFolder,
    SaveSettings,
    keep_curves,
    take_folder,
)
from lightning_audiorl.screen import CommandParser, LightningCommandParser

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

# What Lightning advertises, and what transformers says of a part of an audio LM that it builds without attention.
_NOT_FOR_USERS = {
    "lightning.pytorch.utilities.rank_zero": ("litlogger", "LitLogger", "litmodels", "LitModels"),
    "transformers.modeling_utils": ("without finding the associated sub-model",),
}

# Lightning's own commands that are ours too.
_LIGHTNING_COMMANDS = {
    "fit": "Train by a YAML file of settings: RL, SFT, or a part such as a codec or a judge.",
    "validate": "Evaluate on the validation sets.",
    "test": "Evaluate on the test sets.",
}

# Always there where a policy trains; each has a section of its own in a YAML file: ``checkpoint: {every_n_steps: 20}``.
# The training of a part (codec, judge, Token2Text) is a plain LightningModule with Lightning's own callbacks.
_CALLBACKS: dict[str, type[Callback]] = {
    "progress": PhaseProgressBar,
    "samples": SampleLogger,
    "checkpoint": RLCheckpoint,
    "hacking_watch": HackingWatch,
    "early_stop": EarlyStop,
    "export": Export,
    "report": RunReport,
}


# What YAML may name by the class alone (``class_path: EspeakCorpus``); jsonargparse finds what is imported.
_NAMED_ALONE = ("codecs", "data", "judges", "metrics", "models", "rewards", "token2text")


def import_named_classes() -> None:
    """Have every class in memory that a YAML file may name without its module."""
    for package in _NAMED_ALONE:
        module = importlib.import_module(f"lightning_audiorl.{package}")
        # Some of its names are imported only when they are asked for.
        for name in getattr(module, "__all__", ()):
            getattr(module, name)


def silence() -> None:
    """Leave out warnings that are none of the user's business, each by its text."""
    for message in _NOT_SO:
        warnings.filterwarnings("ignore", message=message)
    for name, texts in _NOT_FOR_USERS.items():
        logging.getLogger(name).addFilter(_Without(texts))


@dataclass(frozen=True)
class _Without:
    """A filter of log messages that hold one of some texts."""

    texts: tuple[str, ...]

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is shown."""
        message = record.getMessage()
        return not any(text in message for text in self.texts)


def give_logger(trainer: Namespace, name: str = "") -> None:
    """TensorBoard in the run's folder, beside its checkpoints and report, where the settings say nothing of a logger.

    Args:
        trainer: the section of the settings; ``logger: false``, or a logger of the user's, stays.
        name: of a folder in that one, for what is no part of the run's curves.
    """
    if trainer.get("logger") is None:
        arguments = Namespace(save_dir=trainer.default_root_dir, name=name, version="")
        trainer.logger = Namespace(
            class_path="lightning.pytorch.loggers.TensorBoardLogger", init_args=arguments
        )


def _as_int(seed: Any) -> int:
    return 0 if isinstance(seed, bool) else int(seed)


# Of a command, the argument that is given by itself, without its name.
_PLACES = {
    "assemble": ("out", "folder to write, new or empty"),
    "manifest": ("source", "folder or file of the data set"),
}


class AudioRLCLI(LightningCLI):
    """One seed for everything, callbacks that are always there, results as one table (`RunReport` prints it)."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key, callback in _CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        for target in ("model.init_args.seed", "data.init_args.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=_as_int)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        commands = LightningCLI.subcommands()
        return {
            name: skip | ({"verbose"} if name in ("validate", "test") else set())
            for name, skip in commands.items()
            if name not in COMMANDS
        }

    def _parse_ckpt_path(self) -> None:
        """Lightning would read the whole checkpoint here, for hyperparameters that ours do not hold."""

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_argument(
                "--overwrite",
                action=ActionYesNo,
                nargs="?",
                default=False,
                help="Begin anew in a folder that holds an earlier run, and remove what that wrote. Without it a "
                "second run gets a folder of its own, with a number.",
            )
        return parser

    def before_instantiate_classes(self) -> None:
        """What depends on other settings; the saved settings name it, too."""
        settings = self.config[self.subcommand]
        self.folder: RunFolder | None = None
        if self.subcommand == "fit":
            self.folder = take_folder(settings)
            give_logger(settings.trainer)
        else:
            # An evaluation, of whatever model, is no point of the run's curves.
            give_logger(settings.trainer, str(self.subcommand))

    def instantiate_classes(self) -> None:
        """As Lightning does it, but what a constructor says of its arguments comes out by itself."""
        try:
            self._instantiate_classes()
        except BaseException:
            self._release_folder()
            raise

    def _release_folder(self) -> None:
        if self.folder is not None:
            self.folder.release()

    def _instantiate_classes(self) -> None:
        with screen.own_words():
            super().instantiate_classes()

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """A callback of the user's takes the place of ours of its kind; a Trainer switch leaves ours out."""
        users = config.get("callbacks") or []
        users = users if isinstance(users, list) else [users]
        unwanted = {type(callback) for callback in users}

        # The training of a part: ours want an RL run.
        added: list[Callback] = []
        if not isinstance(self.model, AudioRLModule):
            unwanted |= set(_CALLBACKS.values())
            added += [ModelCheckpoint(save_last=True), FollowSettings()]

        for kind, switch in (
            (ProgressBar, "enable_progress_bar"),
            (Checkpoint, "enable_checkpointing"),
        ):
            is_off = config.get(switch) is False
            if is_off or any(isinstance(callback, kind) for callback in users):
                unwanted |= {ours for ours in _CALLBACKS.values() if issubclass(ours, kind)}
                added = [one for one in added if not isinstance(one, kind)]

        if self.subcommand == "fit":
            added.append(KeepFolder(self.folder))
        ours = [one for one in callbacks if type(one) not in unwanted]
        return super()._instantiate_trainer(config, ours + added)

    def fit(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """``Trainer.fit``, where ``--ckpt_path last`` goes on from the last checkpoint, or begins without one.

        Raises:
            NothingLearntError: at the end of a run of which no update has changed the model.
        """
        try:
            if isinstance(self.model, AudioRLModule):
                check_trainer(self.trainer)
            if self.folder is not None:
                self.folder.clear()
            keep_curves(self.trainer)
            with honest_exit(self.trainer.default_root_dir):
                self.trainer.fit(ckpt_path=self._checkpoint(ckpt_path), **kwargs)
        finally:
            self._release_folder()

        # Exit code 0 says that what was asked for has happened.
        verdict = nothing_learnt(self.model)
        if verdict is not None:
            raise NothingLearntError(f"the run has ended, but {verdict}")

    def validate(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """``Trainer.validate`` without its list of every metric."""
        keep_curves(self.trainer)
        with completed("audiorl validate"):
            self.trainer.validate(verbose=False, ckpt_path=self._checkpoint(ckpt_path), **kwargs)

    def test(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """``Trainer.test`` without its list of every metric."""
        keep_curves(self.trainer)
        with completed("audiorl test"):
            self.trainer.test(verbose=False, ckpt_path=self._checkpoint(ckpt_path), **kwargs)

    def _checkpoint(self, name: str | None) -> str | None:
        """The file of "last" or "best" in the run's folder; another path as it is.

        Raises:
            FileNotFoundError: where there is none, and not the start instead; only a fit without any may begin.
        """
        saving = self.trainer.checkpoint_callback
        if name not in ("last", "best") or not isinstance(saving, RLCheckpoint):
            return name
        path = saving.path(self.trainer, name)
        if path.is_file():
            return str(path)
        others = sorted(path.parent.glob("step-*.ckpt"))
        if self.subcommand == "fit" and name == "last" and not others:
            return None
        hint = f"; {others[-1]} is there, give that" if others else ""
        raise FileNotFoundError(f"--ckpt_path {name}: there is no {path}{hint}")


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


def run(args: ArgsType = None) -> AudioRLCLI:
    """Parse and run one Lightning command; returns the CLI with its model and trainer."""
    import_named_classes()
    silence()

    # Model and data module are whatever the YAML file names by class path.
    return AudioRLCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        trainer_defaults=trainer_defaults(),
        save_config_callback=SaveSettings,
        save_config_kwargs={"overwrite": True},
        parser_class=LightningCommandParser,
        parser_kwargs={"description": "Reinforcement learning for speech models."},
        args=args,
    )


def command_parser(name: str) -> ArgumentParser:
    """The parser of one of `COMMANDS`; ``--config`` is a file of its arguments, unless it has one of that name."""
    import_named_classes()
    command = COMMANDS[name]
    parser = CommandParser(prog=f"audiorl {name}", description=inspect.getdoc(command))
    if "config" not in inspect.signature(command).parameters:
        parser.add_argument("--config", action="config")
    place = _PLACES.get(name)
    parser.add_function_arguments(command, skip={place[0]} if place else None)
    if place:
        parser.add_argument(place[0], type=str, help=place[1])
    return parser


def run_command(name: str, args: list[str]) -> None:
    """Run one of `COMMANDS`."""
    command = COMMANDS[name]
    parser = command_parser(name)
    with screen.own_words():
        given = parser.instantiate(parser.parse_args(args))
    if "config" not in inspect.signature(command).parameters:
        given.pop("config")
    with completed(f"audiorl {name}"):
        command(**given)


def all_commands() -> dict[str, Any]:
    """Every command by name: a function or a text that says what it does."""
    return {**_LIGHTNING_COMMANDS, **COMMANDS}


def dispatch(args: list[str], lightning_args: ArgsType) -> None:
    """Run what a command line asks for; errors are raised.

    Args:
        args: of the command line.
        lightning_args: what Lightning's commands are given; None has them read the command line themselves.

    Raises:
        SystemExit: 2 where the command or a setting does not exist.
    """
    overview = screen.overview(all_commands())
    if not args:
        print(overview, file=sys.stderr)
        sys.exit(2)

    first = args[0]
    if first in ("-h", "--help"):
        print(overview)
    elif first == "--version":
        print(f"audiorl {__version__}")
    elif first in COMMANDS:
        run_command(first, args[1:])
    elif first in _LIGHTNING_COMMANDS or first.startswith("-"):
        run(lightning_args)
    else:
        print(overview, file=sys.stderr)
        known = screen.nearest(first, all_commands())
        print(f"\nerror: there is no command '{first}'{known}", file=sys.stderr)
        sys.exit(2)


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script: a command of our own, or one of Lightning's.

    Classes of the folder that it is called in can be named by class path, as with ``python -m``.

    Args:
        args: what a program asks for; errors are raised then. None takes the command line, where an error is told in
            a few lines and the process ends with exit code 1 (2 for a setting that does not exist).
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if args is not None:
        dispatch(args, args)
        return

    sys.argv[1:] = screen.take_debug(sys.argv[1:])
    try:
        dispatch(sys.argv[1:], None)
    except Exception as error:  # noqa: BLE001 - every error is told, and ends the process with 1
        screen.stop(error)

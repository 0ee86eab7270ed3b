"""``audiorl``: LightningCLI over YAML class paths, which are the only registry, and the commands of `commands`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_audiorl import screen
from lightning_audiorl.algorithms import AudioRLModule
from lightning_audiorl.command_line import answer, config_files, of_the_run
from lightning_audiorl.commands import COMMANDS
from lightning_audiorl.engine.resuming import FollowSettings
from lightning_audiorl.evaluation_folder import KeepEvaluationFolder, take_evaluation_folder
from lightning_audiorl.run_end import completed
from lightning_audiorl.run_folder import (
    KeepFolder,
    RunFolder,
    SaveSettings,
    keep_curves,
    take_folder,
)
from lightning_audiorl.screen import CommandParser, LightningCommandParser
from lightning_audiorl.training import (
    CALLBACKS,
    checkpoint_file,
    fit,
    left_out,
    silence,
    trainer_defaults,
)

# What YAML may name by the class alone (``class_path: EspeakCorpus``); jsonargparse finds what is imported.
_NAMED_ALONE = (
    "codecs",
    "data",
    "judges",
    "metrics",
    "models",
    "rewards",
    "serving",
    "token2text",
)


def import_named_classes() -> None:
    """Have every class in memory that a YAML file may name without its module."""
    for package in _NAMED_ALONE:
        module = importlib.import_module(f"lightning_audiorl.{package}")
        # Some of its names are imported only when they are asked for.
        for name in getattr(module, "__all__", ()):
            getattr(module, name)


def give_logger(trainer: Namespace) -> None:
    """TensorBoard in the run's folder, beside its checkpoints and report, where the settings say nothing of a logger.

    Args:
        trainer: the section of the settings; ``logger: false``, or a logger of the user's, stays.
    """
    if trainer.get("logger") is None:
        arguments = Namespace(save_dir=trainer.default_root_dir, name="", version="")
        trainer.logger = Namespace(
            class_path="lightning.pytorch.loggers.TensorBoardLogger", init_args=arguments
        )


def _as_int(seed: Any) -> int:
    return 0 if isinstance(seed, bool) else int(seed)


# Of a command, the argument that is given by itself, without its name, and how often.
_PLACES: dict[str, tuple[str, str, str | None]] = {
    "assemble": ("out", "folder to write, new or empty", None),
    "manifest": ("source", "folder or file of the data set", None),
    "report": ("runs", "folder of a run, or NAME=FOLDER", "+"),
}


class AudioRLCLI(LightningCLI):
    """One seed for everything, callbacks that are always there, results as one table (`RunReport` prints it)."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key, callback in CALLBACKS.items():
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
        else:
            # An evaluation, of whatever model, is no point of the run's curves.
            self.folder = take_evaluation_folder(settings, str(self.subcommand))
        give_logger(settings.trainer)

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
        unwanted = left_out(users, config)

        # The training of a part: ours want an RL run.
        added: list[Callback] = []
        if not isinstance(self.model, AudioRLModule):
            unwanted |= set(CALLBACKS.values())
            added.append(FollowSettings())
            is_off = config.get("enable_checkpointing") is False
            if not (is_off or any(isinstance(callback, Checkpoint) for callback in users)):
                added.insert(0, ModelCheckpoint(save_last=True))

        if self.subcommand == "fit":
            added.append(KeepFolder(self.folder))
        else:
            added.append(KeepEvaluationFolder(self.folder))
        ours = [one for one in callbacks if type(one) not in unwanted]
        return super()._instantiate_trainer(config, ours + added)

    def fit(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """``Trainer.fit``, where ``--ckpt_path last`` goes on from the last checkpoint, or begins without one.

        Raises:
            NothingLearntError: at the end of a run of which no update has changed the model.
        """
        try:
            checkpoint = self._checkpoint(ckpt_path)
        except FileNotFoundError:
            self._release_folder()
            raise
        module = kwargs.pop("model", self.model)
        fit(self.trainer, module, self.folder, ckpt_path=checkpoint, **kwargs)

    def validate(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """``Trainer.validate`` without its list of every metric."""
        self._evaluate(self.trainer.validate, ckpt_path, **kwargs)

    def test(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """``Trainer.test`` without its list of every metric."""
        self._evaluate(self.trainer.test, ckpt_path, **kwargs)

    def _evaluate(self, command: Callable[..., Any], ckpt_path: str | None, **kwargs: Any) -> None:
        try:
            keep_curves(self.trainer)
            with completed(f"audiorl {self.subcommand}"):
                command(verbose=False, ckpt_path=self._checkpoint(ckpt_path), **kwargs)
        finally:
            self._release_folder()
        if self.folder is not None:
            print(f"all that this evaluation has written is in {self.folder.path}")

    def _checkpoint(self, name: str | None) -> str | None:
        """The file that ``--ckpt_path`` means, see `checkpoint_file`."""
        return checkpoint_file(self.trainer, name, may_begin=self.subcommand == "fit")


class _Parsed(AudioRLCLI):
    """A command that is read and not run."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """As Lightning does it, without its word on a command line that is another one."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def _set_seed(self) -> None:
        """Nothing is drawn."""

    def before_instantiate_classes(self) -> None:
        """No folder is taken."""

    def instantiate_classes(self) -> None:
        """Nothing is made."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def run(args: ArgsType = None, kind: type[AudioRLCLI] = AudioRLCLI) -> AudioRLCLI:
    """Parse and run one Lightning command; returns the CLI with its model and trainer."""
    import_named_classes()
    silence()

    # Model and data module are whatever the YAML file names by class path.
    return kind(
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


def fit_settings(args: list[str]) -> dict[str, Any]:
    """What ``audiorl fit`` would run with, as a YAML file has it.

    Args:
        args: of the command line, behind ``fit``.

    Raises:
        SystemExit: 2 for a setting that does not exist.
    """
    command = run(["fit", *args], _Parsed)
    parser = command._parser("fit")
    text = parser.dump(command.config["fit"], format="json", skip_validation=True)
    settings: dict[str, Any] = json.loads(text)
    return settings


def command_parser(name: str) -> ArgumentParser:
    """The parser of one of `COMMANDS`; ``--config`` is a file of its arguments, unless it has one of that name."""
    import_named_classes()
    command = COMMANDS[name]
    parser = CommandParser(prog=f"audiorl {name}", description=inspect.getdoc(command))
    if "config" not in inspect.signature(command).parameters:
        parser.add_argument("--config", action="config")
    place = _PLACES.get(name)
    # What no command line can give.
    skip: set[str | int] = {"read"} if name == "plan" else set()
    if place:
        skip.add(place[0])
    parser.add_function_arguments(command, skip=skip)
    if place:
        parser.add_argument(place[0], type=str, help=place[1], nargs=place[2])
    return parser


def run_command(name: str, args: list[str]) -> None:
    """Run one of `COMMANDS`."""
    command = COMMANDS[name]
    parser = command_parser(name)
    args, of_run = of_the_run(args) if name == "plan" else (args, [])
    with screen.own_words():
        given = parser.instantiate(parser.parse_args(args))

    # `plan` takes the settings of the run that it plans; of several files the last one names it.
    files = list(config_files(args))
    if of_run or (name == "plan" and len(files) > 1):
        before = [f"--config={file}" for file in files[:-1]]
        given["read"] = lambda path: fit_settings([*before, f"--config={path}", *of_run])
    if "config" not in inspect.signature(command).parameters:
        given.pop("config")
    with completed(f"audiorl {name}"):
        command(**given)


def dispatch(args: list[str], lightning_args: ArgsType) -> None:
    """Run what a command line asks for; errors are raised.

    Args:
        args: of the command line.
        lightning_args: what Lightning's commands are given; None has them read the command line themselves.

    Raises:
        SystemExit: 2 where the command or a setting does not exist.
    """
    code = answer(args)
    if code:
        sys.exit(code)
    if code == 0:
        return

    silence()
    if args[0] in COMMANDS:
        run_command(args[0], args[1:])
    else:
        run(lightning_args)


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

"""``audiorl``: LightningCLI over YAML class paths, which are the only registry, and the commands of `commands`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

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
from lightning_audiorl.commands import COMMANDS

# With no length of the training data, Lightning wants a whole number here; every run ends with an evaluation anyway.
_NEVER = 1_000_000_000

# Lightning's warnings of what is on purpose here: GRPO trains in eval mode, a checkpoint holds trainable tensors only,
# and the data goes on from its own step number.
_NOT_SO = (
    r"Found \d+ module\(s\) in eval mode",
    "Found keys that are in the model state dict but not in the checkpoint",
    "You're resuming from a checkpoint that ended before the epoch ended",
)

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
        importlib.import_module(f"lightning_audiorl.{package}")


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

    def before_instantiate_classes(self) -> None:
        """What depends on other settings; the saved settings name it, too."""
        give_logger(self.config[self.subcommand].trainer)

    def instantiate_classes(self) -> None:
        """As Lightning does it, but what a constructor says of its arguments comes out by itself."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException = error
            while cause.__cause__ is not None and str(cause).startswith(
                "Does not validate against any of the Union"
            ):
                cause = cause.__cause__
            raise cause from None

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """A callback of the user's takes the place of ours of its kind; a Trainer switch leaves ours out."""
        users = config.get("callbacks") or []
        users = users if isinstance(users, list) else [users]
        unwanted = {type(callback) for callback in users}

        # The training of a part: ours want an RL run.
        if not isinstance(self.model, AudioRLModule):
            unwanted |= set(_CALLBACKS.values())

        for kind, switch in (
            (ProgressBar, "enable_progress_bar"),
            (Checkpoint, "enable_checkpointing"),
        ):
            is_off = config.get(switch) is False
            if is_off or any(isinstance(callback, kind) for callback in users):
                unwanted |= {ours for ours in _CALLBACKS.values() if issubclass(ours, kind)}
        return super()._instantiate_trainer(
            config, [c for c in callbacks if type(c) not in unwanted]
        )

    def fit(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """``Trainer.fit``, where ``--ckpt_path last`` goes on from the last checkpoint, or begins without one."""
        saving = self.trainer.checkpoint_callback
        if ckpt_path == "last" and isinstance(saving, RLCheckpoint):
            path = saving.path(self.trainer, "last")
            ckpt_path = str(path) if path.is_file() else None
        self.trainer.fit(ckpt_path=ckpt_path, **kwargs)

    def validate(self, **kwargs: Any) -> None:
        """``Trainer.validate`` without its list of every metric."""
        self.trainer.validate(verbose=False, **kwargs)

    def test(self, **kwargs: Any) -> None:
        """``Trainer.test`` without its list of every metric."""
        self.trainer.test(verbose=False, **kwargs)


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
    for message in _NOT_SO:
        warnings.filterwarnings("ignore", message=message)

    help_texts = {
        "description": "Reinforcement learning for speech models.",
        "epilog": _others(),
    }

    # Model and data module are whatever the YAML file names by class path.
    return AudioRLCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        trainer_defaults=trainer_defaults(),
        save_config_kwargs={"overwrite": True},
        parser_kwargs=help_texts,
        args=args,
    )


def _others() -> str:
    """`COMMANDS` in a line each, for the help."""
    lines = []
    for name, command in COMMANDS.items():
        first, _, _ = (inspect.getdoc(command) or "").partition("\n")
        lines.append(f"{name}: {first}")
    return "Further commands, each with its --help. " + " ".join(lines)


def command_parser(name: str) -> ArgumentParser:
    """The parser of one of `COMMANDS`; ``--config`` is a file of its arguments, unless it has one of that name."""
    import_named_classes()
    command = COMMANDS[name]
    parser = ArgumentParser(prog=f"audiorl {name}", description=inspect.getdoc(command))
    if "config" not in inspect.signature(command).parameters:
        parser.add_argument("--config", action="config")
    parser.add_function_arguments(command)
    return parser


def run_command(name: str, args: list[str]) -> None:
    """Run one of `COMMANDS`."""
    command = COMMANDS[name]
    parser = command_parser(name)
    given = parser.instantiate(parser.parse_args(args))
    if "config" not in inspect.signature(command).parameters:
        given.pop("config")
    command(**given)


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script: a command of our own, or one of Lightning's.

    Classes of the folder that it is called in can be named by class path, as with ``python -m``.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    given = sys.argv[1:] if args is None else args
    if given and given[0] in COMMANDS:
        run_command(given[0], given[1:])
    else:
        run(args)

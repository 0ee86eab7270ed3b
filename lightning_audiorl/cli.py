"""``audiorl fit | validate | test | export``: LightningCLI over YAML class paths, which are the only registry."""

from __future__ import annotations

import sys
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_audiorl.algorithms import AudioRLModule

# With no length of the training data, Lightning wants a whole number here; every run ends with an evaluation anyway.
_NEVER = 1_000_000_000


def _as_int(seed: Any) -> int:
    return 0 if isinstance(seed, bool) else int(seed)


class AudioRLCLI(LightningCLI):
    """One seed for everything; figures are printed as one table."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for target in ("model.init_args.seed", "data.init_args.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=_as_int)


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
    return AudioRLCLI(
        AudioRLModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        trainer_defaults=trainer_defaults(),
        save_config_kwargs={"overwrite": True},
        args=args,
    )


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script."""
    run(sys.argv[1:] if args is None else args)

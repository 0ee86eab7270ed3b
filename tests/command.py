"""The command line on a run of a second or two: a manifest of tones, a tiny model, a YAML file made of both."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lightning_audiorl import cli
from tests.data.fakes import write_tone

TEXTS = ["one", "two three", "four five six", "seven", "eight nine", "zero one two"]
TINY = {"width": 32, "encoder_layers": 1, "lm_layers": 1, "heads": 2}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_manifest(folder: Path, name: str = "train.jsonl") -> Path:
    """Six tones of different lengths with texts of one to three digits."""
    rows = []
    for number, text in enumerate(TEXTS):
        write_tone(folder / f"{number}.wav", 0.2 + 0.1 * number, hz=200.0 + 100 * number)
        rows.append(
            {"audio_filepath": f"{number}.wav", "text": text, "duration": 0.2 + 0.1 * number}
        )
    return write_rows(folder / name, rows)


def class_of(path: str, **init_args: Any) -> dict[str, Any]:
    """A YAML node; paths are relative to the package unless they have another root."""
    full = path if path.startswith(("lightning.", "tests.")) else f"lightning_audiorl.{path}"
    return {"class_path": full, "init_args": init_args}


def tiny_config(folder: Path, algorithm: str = "GRPO", **model: Any) -> dict[str, Any]:
    """Settings of a run in ``folder``, which holds ``train.jsonl``; ``model`` goes to the algorithm."""
    policy = class_of(
        "models.FunAsrNanoPolicy", init_from=class_of("models.TinyFunAsrNano", **TINY)
    )
    settings: dict[str, Any] = {
        "policy": policy,
        "num_steps": 2,
        "optim": {"lr": 0.001},
        "eval_decodings": {"greedy": {"decoding": {"temperature": 0.0, "max_new_tokens": 5}}},
    }
    if algorithm == "GRPO":
        rewards = [class_of("rewards.Accuracy"), class_of("rewards.Hallucination", weight=0.5)]
        settings |= {
            "rewards": class_of("rewards.RewardMix", rewards=rewards),
            "group_size": 4,
            "decoding": {"max_new_tokens": 5},
        }
    manifest = str(folder / "train.jsonl")
    data = class_of("data.AsrDataModule", batch_size=2, train=manifest, val={"tones": manifest})
    return {
        "seed_everything": 7,
        "trainer": {"accelerator": "cpu", "logger": False, "default_root_dir": str(folder / "run")},
        "model": class_of(f"algorithms.{algorithm}", **settings | model),
        "data": data,
        "progress": {"line_every_s": 1000.0},
        "report": {"enabled": False},
        "export": {"enabled": False},
    }


def run(folder: Path, config: dict[str, Any], *args: str, command: str = "fit") -> cli.AudioRLCLI:
    """``audiorl <command> --config <config>`` in this process."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with patch.object(sys, "argv", ["audiorl", command, "--config", str(path), *args]):
        return cli.run()


class _Stop(Exception):
    """The parser is made."""


@cache
def parser() -> LightningArgumentParser:
    """The parser of ``audiorl``; errors exit, as on the command line."""
    made: list[LightningArgumentParser] = []

    def stop(self: cli.AudioRLCLI, parser: LightningArgumentParser, args: Any) -> None:
        made.append(parser)
        raise _Stop

    with patch.object(cli.AudioRLCLI, "parse_arguments", stop), suppress(_Stop):
        cli.run()
    return made[0]

"""A whole GRPO run in a second or two: tiny model, synthetic audio, every callback."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_audiorl.algorithms import GRPO, SFT, EvalDecoding
from lightning_audiorl.cli import trainer_defaults
from lightning_audiorl.data import AsrDataModule, FsddDigits, NonSpeech, Subset
from lightning_audiorl.engine import RLModule
from lightning_audiorl.engine.optim import Optim
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano
from lightning_audiorl.rewards import Accuracy, Hallucination, RewardMix
from lightning_audiorl.strategies.phases import PhaseClock
from lightning_audiorl.types import Decoding

TINY = TinyFunAsrNano(width=32, encoder_layers=1, lm_layers=1, heads=2)
SAMPLED = Decoding(max_new_tokens=6)


def grpo(num_steps: int = 4, **settings: Any) -> GRPO:
    """GRPO over a random model; two decodings of each evaluation set."""
    greedy = EvalDecoding(Decoding(temperature=0.0, max_new_tokens=6))
    settings = {
        "rewards": RewardMix([Accuracy(), Hallucination()]),
        "group_size": 3,
        "decoding": SAMPLED,
        "optim": Optim(lr=1e-3),
        "eval_decodings": {"greedy": greedy, "sampled": EvalDecoding(SAMPLED, 2)},
    } | settings
    return GRPO(FunAsrNanoPolicy(TINY), num_steps, **settings)


def sft(num_steps: int = 4, **settings: Any) -> SFT:
    greedy = EvalDecoding(Decoding(temperature=0.0, max_new_tokens=6))
    return SFT(FunAsrNanoPolicy(TINY), num_steps, eval_decodings={"greedy": greedy}, **settings)


def data(root: str) -> AsrDataModule:
    return AsrDataModule(
        train=[Subset(FsddDigits(root, num_words=(1, 3), num_rows=50))],
        val={
            "digits": FsddDigits(root, "dev", num_words=(1, 3), num_rows=3),
            "noise": NonSpeech(2, min_s=0.1, max_s=0.2),
        },
        test={"digits": FsddDigits(root, "test", num_words=(1, 3), num_rows=3)},
        batch_size=2,
    )


def trainer(folder: Path, callbacks: list[Callback], **settings: Any) -> Trainer:
    """A CPU trainer with the settings of the command line, and only the callbacks given."""
    settings = (
        trainer_defaults()
        | {"default_root_dir": str(folder), "logger": False, "accelerator": "cpu"}
        | settings
    )
    settings.setdefault("enable_progress_bar", False)
    saves = any(isinstance(callback, Checkpoint) for callback in callbacks)
    return Trainer(callbacks=callbacks, enable_checkpointing=saves, **settings)


def fit(
    folder: Path, root: str, *callbacks: Callback, module: RLModule | None = None, **settings: Any
) -> Any:
    """Fit and return the module, its trainer attached."""
    module = module or grpo()
    ckpt_path = settings.pop("ckpt_path", None)
    trainer(folder, list(callbacks), **settings).fit(module, data(root), ckpt_path=ckpt_path)
    return module


def view(**shown: Any) -> Any:
    """A `RunView` without a run: nothing has happened but for what is given."""
    nothing = {
        "rl_step": 0,
        "num_steps": 1000,
        "seed": 0,
        "policy": None,
        "start_hash": None,
        "clock": PhaseClock(),
    }
    nothing |= {
        "step_metrics": {},
        "last_step": None,
        "evaluation": None,
        "evaluations": [],
        "last_hypotheses": {},
    }
    return SimpleNamespace(**nothing | {"ledger_table": None, "load_state_dict": print} | shown)


class PutMetrics(Callback):
    """Puts numbers of its own in place of two metrics of the set "digits", evaluation by evaluation."""

    def __init__(self, wer: list[float], length: list[float] | None = None) -> None:
        self.values = {"wer": wer, "length_ratio": length or [1.0] * len(wer)}

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        for name, values in self.values.items():
            pl_module.evaluations[-1]["results"]["digits"][name] = values[
                len(pl_module.evaluations) - 1
            ]

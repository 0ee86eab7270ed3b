"""Trains with the build that PYTHONPATH names, and stops after each evaluation until it is told to go on.

    python worker.py SETTINGS.json

Its answers are lines of JSON: CPU seconds and clips of the encoder since the last one, and the losses of the steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning import Callback, Trainer

import lightning_audiorl
from lightning_audiorl.algorithms import SFT, EvalDecoding, Optim
from lightning_audiorl.data import AsrDataModule, NonSpeech, Subset
from lightning_audiorl.models import Finetune, TinyWhisper, WhisperPolicy
from lightning_audiorl.types import Decoding

NUM_TRAIN = 64
NUM_EVAL = 32
BATCH = 4
EPOCHS = 4


def timed(encode: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    """``encode`` with the CPU seconds of each call taken down: features, keys and copies included."""

    def wrapped(*args: Any) -> Any:
        began = time.process_time()
        context = encode(*args)
        times.append(time.process_time() - began)
        return context

    return wrapped


def wait() -> None:
    """Until the other build's turn has ended; nobody wants anything more once the parent is gone."""
    if not sys.stdin.readline():
        os._exit(0)


class Turns(Callback):
    """Answers after each evaluation, and waits for a line before anything else is done."""

    def __init__(self, policy: Any, times: list[float], answers: TextIO) -> None:
        self.policy = policy
        self.times = times
        self.answers = answers
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Take down the loss of a step."""
        self.losses.append(float(pl_module.step_metrics["loss"]))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Report what was done since the last evaluation."""
        report = {
            "encode_s": sum(self.times),
            "num_encoded": self.policy.num_encoded,
            "losses": self.losses,
        }
        self.answers.write(json.dumps(report) + "\n")
        self.answers.flush()
        self.times.clear()
        self.losses = []
        wait()


def is_plain(text: str) -> bool:
    """Whether a text has letters, spaces, full stops and commas alone."""
    return all(sign.isalpha() or sign in " .,'" for sign in text)


def clips(settings: dict[str, Any], name: str, num: int, folder: Path, longest_s: float) -> Any:
    """The first ``num`` rows of a manifest that both builds take, or made ones where none is given."""
    manifest = settings[name]
    if manifest is None:
        seed = sorted(("train", "eval")).index(name)
        return NonSpeech(num, kinds=["white", "hum", "music"], min_s=0.5, max_s=2.0, seed=seed)

    with Path(manifest).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    # Signs that Whisper suppresses are no targets of the earlier build.
    rows = [row for row in rows if row["duration"] <= longest_s and is_plain(row["text"])][:num]
    if len(rows) < num:
        raise SystemExit(
            f"{manifest}: want {num} rows of at most {longest_s:g} s in letters, it has {len(rows)}"
        )
    for row in rows:
        row["audio_filepath"] = str(Path(manifest).parent / row["audio_filepath"])
    taken = folder / f"{name}.jsonl"
    taken.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(taken)


def main() -> None:
    """Entry point."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[1]).parent
    answers = os.fdopen(os.dup(1), "w")
    # What a run prints must not be taken for an answer.
    os.dup2(2, 1)
    torch.set_num_threads(1)
    if not Path(lightning_audiorl.__file__).is_relative_to(settings["root"]):
        raise SystemExit(f"another build was imported: {lightning_audiorl.__file__}")

    more: dict[str, Any] = {}
    if settings["cache"] is not None:
        from lightning_audiorl.models import EncoderCache

        more["encoder_cache"] = EncoderCache(**settings["cache"])
    # The last layer alone: what is measured is the encoder.
    finetune = Finetune(projector=False, lm="last", lm_layers=1)
    policy = WhisperPolicy(settings["model"] or TinyWhisper(), finetune, **more)
    times: list[float] = []
    policy.encode = timed(policy.encode, times)  # type: ignore[method-assign]

    extractor = policy.processor.feature_extractor
    longest_s = extractor.n_samples / extractor.sampling_rate
    data = AsrDataModule(
        [Subset(clips(settings, "train", NUM_TRAIN, folder, longest_s))],
        val={"clips": clips(settings, "eval", NUM_EVAL, folder, longest_s)},
        batch_size=BATCH,
    )
    steps = NUM_TRAIN // BATCH
    # A few tokens: what is written is not looked at.
    brief = EvalDecoding(Decoding(temperature=0.0, max_new_tokens=4))
    module = SFT(
        policy,
        num_steps=EPOCHS * steps,
        optim=Optim(lr=1e-5),
        eval_decodings={"brief": brief},
    )
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        max_epochs=-1,
        callbacks=[Turns(policy, times, answers)],
    )
    wait()
    trainer.validate(module, data, verbose=False)
    trainer.fit(module, data)


if __name__ == "__main__":
    main()

"""Whisper base on real speech: GRPO with and without the reference in the group, beside MWER and an SFT control.

    python -m experiments.real.runs --real REAL --out runs/real_whisper --fsdd FSDD_ROOT

REAL holds ``whisper-base`` in Hugging Face layout and ``asterisk/*.jsonl``, see experiments/real/data.py. Each arm and
seed is trained once, looked at, exported and decoded in long form; its record stays in ``<out>/results``, so a command
that was killed goes on. The settings of each run are in ``<out>/runs/<arm>_<seed>/fit.yaml``, which
``audiorl fit --config`` takes, too. Encoder outputs are kept in ``<out>/encoded``, for all runs.

Then ``python -m experiments.real.page --results <out>/results`` makes docs/real_whisper.md. ``make real`` does both.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Trainer, seed_everything

from experiments.figure_runs import Spec, audiorl, made_with, spec
from experiments.real.arms import ARMS, BATCH_SIZE, MODELS, SEEDS, SHARES, policy
from experiments.real.data import build
from experiments.real.evaluate import (
    Distance,
    LongForm,
    empty_probabilities,
    transcripts,
)
from experiments.real.mix import Kind, held_out, subsets
from experiments.real.watch import Watch, mean_probability
from lightning_audiorl.data import RLSubset, read_manifest
from lightning_audiorl.engine import Optim, Sampler
from lightning_audiorl.losses import WeightedGradients
from lightning_audiorl.models import Finetune
from lightning_audiorl.ops import Schedule
from lightning_audiorl.types import Decoding, Utterance

#: Steps after which all of the non-speech test is looked at, where they are not the run's last one.
LOOKS = (8, 16, 24)
NUM_SAMPLES = 4
NUM_DISTANCE_ROWS = 24
#: The first so many rows of these sets: each is decoded once for every run.
NUM_ROWS = {"long": 8, "fsdd_short": 40, "fsdd_long": 6}
NUM_PROBE_ROWS = 6
#: Settings that YAML writes as plain values.
_PLAIN = {
    "optim": Optim,
    "finetune": Finetune,
    "decoding": Decoding,
    "sampler": Sampler,
    "combiner": WeightedGradients,
    "weight": Schedule,
}


def made(value: Any) -> Any:
    """The objects that settings describe, as ``audiorl fit`` makes them."""
    if isinstance(value, list):
        return [made(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        return getattr(importlib.import_module(module), name)(**made(value["init_args"]))

    found = {}
    for key, item in value.items():
        one = made(item)
        found[key] = _PLAIN[key](**one) if key in _PLAIN and isinstance(one, dict) else one
    return RLSubset(**found) if "builder" in found else found


class Grounds:
    """Data, start and evaluation sets of all runs.

    Args:
        real: see the module.
        start: folder or hub id of the checkpoint.
        out: gets everything.
        fsdd: the Free Spoken Digit Dataset; None leaves the digits out.
        data_seed: of `experiments.real.data`.
    """

    def __init__(
        self, real: Path, start: str, out: Path, fsdd: Path | None, data_seed: int = 0
    ) -> None:
        self.start = start
        self.out = out.absolute()
        self.encoded = self.out / "encoded"
        self.data = self.out / "data"
        build(real, self.data, fsdd, data_seed)

    def rows(self, name: str) -> list[Utterance]:
        """A manifest of `experiments.real.data`; no rows where it is not there."""
        path = self.data / f"{name}.jsonl"
        return read_manifest(path, allow_empty_text=True) if path.is_file() else []

    def hypotheses(self) -> Path:
        """What the start makes of the pool to mine, by ``audiorl predict``."""
        folder = self.out / "start_hypotheses"
        path = folder / "hypotheses.jsonl"
        pool = spec(
            "data.ManifestRows", path=str(self.data / "mine_pool.jsonl"), allow_empty_text=True
        )
        settings = {
            "models": {"start": policy(self.start, self.encoded)},
            "rows": pool,
            "out": str(path),
            "max_batch_size": 12,
        }
        audiorl("predict", settings, folder)
        return path

    def mix(self, arm: str, seed: int) -> Spec:
        """The training rows of an arm, as a data module."""
        kind: Kind = "random" if arm.endswith("random") else "paper"
        chosen = subsets(self.data, self.hypotheses(), kind)
        for name, subset in chosen.items():
            subset["share"] = SHARES.get(name, subset["share"])
        kept_out = {}
        for name, path in held_out(self.data).items():
            kept_out[name] = spec("data.ManifestRows", path=path, allow_empty_text=True)
        return spec(
            "data.AsrRLDataModule",
            subsets=chosen,
            cache_dir=str(self.out / "rl_data"),
            content_cache=str(self.out / "content.sqlite"),
            forbid=kept_out,
            batch_size=BATCH_SIZE,
            seed=seed,
        )


class Evaluation:
    """What every run is measured by at its end."""

    def __init__(self, grounds: Grounds, brief: bool = False) -> None:
        # Every second one is enough for a curve.
        self.dev = grounds.rows("dev_prompts")[::2]
        self.nonspeech = grounds.rows("test_nonspeech")
        self.sets = {
            name: grounds.rows(f"test_{name}")[: NUM_ROWS.get(name)]
            for name in ("prompts", "fsdd_short", "fsdd_long")
        }
        if brief:
            self.nonspeech = grounds.rows("dev_nonspeech")
            self.sets = {"prompts": grounds.rows("dev_prompts")}

        self.grounds = grounds
        self.start = made(policy(grounds.start, grounds.encoded))
        self.distance = Distance(self.start, self.sets["prompts"][:NUM_DISTANCE_ROWS])
        long = [] if brief else grounds.rows("test_long")[: NUM_ROWS["long"]]
        self.long_form = LongForm(long, grounds.out / "encoded_windows") if long else None

    def of(self, policy: Any, export: Path) -> dict[str, Any]:
        """All sets, the distance from the start, and long audio by the export."""
        begin = time.process_time()
        sets = {name: transcripts(policy, rows) for name, rows in self.sets.items() if rows}

        silent = transcripts(policy, self.nonspeech, NUM_SAMPLES)
        likely = empty_probabilities(policy, self.nonspeech)
        trained = {row.id: bool(row.extra.get("kind_in_training")) for row in self.nonspeech}
        for row, found in zip(silent, likely, strict=True):
            row |= {"p_empty": found["p_empty"], "kind_in_training": trained[row["id"]]}
        sets["nonspeech"] = silent

        distance = self.distance.of(policy)
        policy.export(str(export))
        if self.long_form is not None:
            sets["long"] = self.long_form.transcripts(export)
        return {"sets": sets, "kl": distance, "evaluation_cpu_s": time.process_time() - begin}


def run(grounds: Grounds, evaluation: Evaluation, arm: str, seed: int) -> None:
    """Train one arm from one seed and keep its record; nothing where it is there."""
    record = grounds.out / "results" / f"{arm}_{seed}.json"
    folder = grounds.out / "runs" / f"{arm}_{seed}"
    if record.is_file():
        return
    say(grounds, f"{arm} {seed}: begins")
    folder.mkdir(parents=True, exist_ok=True)

    export = folder / "export"
    result: dict[str, Any] = {"arm": arm, "seed": seed, "made_with": made_with()}
    if arm == "start":
        result |= evaluation.of(evaluation.start, export)
    else:
        model = MODELS[arm](grounds.start, grounds.encoded, seed)
        settings = {"seed_everything": seed, "model": model, "data": grounds.mix(arm, seed)}
        (folder / "fit.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

        result["encoding_cpu_s"] = encode_once(settings)
        module, watch = trained(settings, evaluation)
        result |= {"cpu_s": watch.cpu_s, "steps": watch.steps, "probes": watch.probes}
        result |= evaluation.of(module.policy, export)
        last = watch.last_look(result["sets"]["nonspeech"], module.policy)
        result["curve"] = [*watch.curve, last]

    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(result))
    # The folder of the first seed stays, for whoever wants to hear it; the others are made again in minutes.
    if seed != min(SEEDS):
        shutil.rmtree(export)
    say(grounds, f"{arm} {seed}: {summary(result)}")
    gc.collect()


def encode_once(settings: Spec) -> float:
    """Have the cache hold all clips that the run will draw; CPU seconds.

    A clip is encoded once for all runs: which of them met it first shall not count.
    """
    begin = time.process_time()
    model = settings["model"]["init_args"]
    reader = made(model["policy"])
    data = made(settings["data"])
    data.prepare_data()
    data.setup("fit")
    with torch.no_grad():
        for batch in islice(data.train_dataloader(), model["num_steps"]):
            reader.encode(batch)
    return time.process_time() - begin


def trained(settings: Spec, evaluation: Evaluation) -> tuple[Any, Watch]:
    """One training run in this process, with what was seen on the way."""
    seed_everything(settings["seed_everything"], verbose=False)
    module = made(settings["model"])
    rows = evaluation.nonspeech
    probe = rows[:: max(1, len(rows) // NUM_PROBE_ROWS)]
    looks = [step for step in LOOKS if step < module.num_steps]
    watch = Watch(rows, evaluation.dev, probe, looks, max(LOOKS))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[watch],
    )
    trainer.fit(module, datamodule=made(settings["data"]))
    return module, watch


def summary(result: dict[str, Any]) -> str:
    """A line of a run's record, for whoever waits."""
    parts = []
    for name, rows in result["sets"].items():
        errors = sum(sum(row["numbers"][:3]) for row in rows)
        words = sum(row["numbers"][3] for row in rows)
        if words:
            parts.append(f"{name} {100 * errors / words:.2f} %")

    silent = result["sets"]["nonspeech"]
    with_text = sum(bool(row["text"].strip()) for row in silent)
    drawn = [bool(text.strip()) for row in silent for text in row["samples"]]
    parts.append(f"text on {with_text} of {len(silent)} non-speech")
    parts.append(f"sampled {100 * sum(drawn) / len(drawn):.1f} %")
    looks = [
        (one["step"], round(mean_probability(one["rows"]), 3)) for one in result.get("curve", [])
    ]
    parts.append(f"P(empty) {looks}, KL {result['kl']:.3f}")
    seconds = [step["cpu_s"] for step in result.get("steps", [])]
    parts.append(f"{sum(seconds):.0f} CPU s, {len(seconds)} steps")
    parts.append(f"evaluation {result['evaluation_cpu_s']:.0f} CPU s")
    return "; ".join(parts)


def say(grounds: Grounds, text: str) -> None:
    """A line on the screen and in ``<out>/progress.txt``."""
    line = f"{time.strftime('%H:%M:%S')} {text}"
    print(line, flush=True)
    with (grounds.out / "progress.txt").open("a") as file:
        file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--start", help="folder or hub id; default: whisper-base in REAL")
    parser.add_argument("--out", type=Path, default=Path("runs/real_whisper"))
    parser.add_argument("--fsdd", type=Path)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--dev", action="store_true", help="evaluate on dev sets alone, to choose settings by"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)

    start = args.start or str((args.real / "whisper-base").absolute())
    grounds = Grounds(args.real, start, args.out, args.fsdd)
    evaluation = Evaluation(grounds, brief=args.dev)
    for arm in args.arms:
        # The start has no seed.
        for seed in args.seeds if arm != "start" else args.seeds[:1]:
            run(grounds, evaluation, arm, seed)


if __name__ == "__main__":
    main()

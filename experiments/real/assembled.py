"""A speech LM of real parts: Whisper base's encoder, a fresh projector and SmolLM2-135M, on prompts and digits.

    python -m experiments.real.assembled --real REAL --fsdd FSDD_ROOT --out runs/assembled

REAL holds ``whisper-base`` and ``smollm2-135m`` in Hugging Face layout and ``asterisk/*.jsonl``, of the shape that
experiments/real/data.py says. The parts are assembled, the projector is warmed up by CTC against the LM's embeddings,
projector and LoRA are trained by SFT, then GRPO goes on from there beside an SFT control of at least the same CPU
seconds. What is done is not done again, so a killed command goes on. Encoder outputs stay in ``<out>/encoded``.

It takes about an hour of a CPU core that nothing else runs on.

Then ``python -m experiments.real.assembled_page --results <out>/results.json`` makes docs/assembled.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.figure_runs import Spec, audiorl, made_with, spec, trainer
from experiments.real.assembled_warm import warm
from lightning_audiorl.commands.assemble import assemble
from lightning_audiorl.data import FsddDigits, read_manifest
from lightning_audiorl.data.hypotheses.schema import read_hypotheses
from lightning_audiorl.models import Finetune, Qwen2AudioPolicy
from lightning_audiorl.models.encoder_cache import EncoderCache

SEED = 0
WORDS = (1, 7)
NUM_DIGIT_ROWS = 700
NUM_TEST_ROWS = 200
NUM_PROMPT_TEST_ROWS = 60
#: Of models that cannot transcribe yet.
NUM_EARLY_ROWS = 40
#: Longer prompts are left out.
LONGEST_S = 10.0
#: Shares of a batch by step: single digits first, where there is least between a word and its sound.
SHARES: dict[str, dict[int, float]] = {
    "single": {0: 0.7, 120: 0.2},
    "string": {0: 0.3, 120: 0.5},
    "prompt": {120: 0.3},
}
LAST_SHARES = {name: {0: share[120]} for name, share in SHARES.items()}

SFT = {"num_steps": 260, "batch_size": 10, "lr": 1e-3}
GRPO = {"num_steps": 60, "batch_size": 4, "group_size": 6, "lr": 5e-5}
CAP = {"tokens_per_second": 6.0, "min_cap": 12, "max_new_tokens": 120}


Counts = dict[str, dict[str, list[list[Any]]]]
"""By model and set, of each row: substitutions, deletions, insertions, words, reference, text."""


def cpu_s() -> float:
    """CPU seconds of this process and of those that it ran."""
    own = time.process_time()
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + others.ru_utime + others.ru_stime


class Grounds:
    """Data and settings of all stages.

    Args:
        real, fsdd: see the module.
        out: gets everything.
    """

    def __init__(self, real: Path, fsdd: Path, out: Path) -> None:
        self.real = real
        self.fsdd = str(fsdd.absolute())
        self.out = out.absolute()
        self.out.mkdir(parents=True, exist_ok=True)
        self.costs = self.out / "cpu_s.json"

    # --- what a stage costs

    def spent(self) -> dict[str, float]:
        """CPU seconds of each stage that is done."""
        return json.loads(self.costs.read_text()) if self.costs.is_file() else {}

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work of a stage, which itself knows whether it was done, and keep its CPU seconds.

        Those of an attempt that was interrupted count, too.
        """
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        begin = cpu_s()
        try:
            return work()
        finally:
            spent = self.spent()
            spent[name] = spent.get(name, 0.0) + cpu_s() - begin
            self.costs.write_text(json.dumps(spent, indent=2))

    # --- settings

    def digits(self, part: str, num_rows: int, seed: int = SEED) -> Spec:
        return spec(
            "data.FsddDigits",
            root=self.fsdd,
            part=part,
            num_words=list(WORDS),
            num_rows=num_rows,
            seed=seed,
        )

    def prompts(self, part: str) -> Spec:
        return spec("data.ManifestRows", path=str(self.real / "asterisk" / f"{part}.jsonl"))

    def data(self, batch_size: int, shares: dict[str, dict[int, float]]) -> Spec:
        single = self.digits("train", NUM_DIGIT_ROWS)
        single["init_args"] |= {"num_words": [1, 1], "edge_s": [0.0, 0.1]}
        sources = {
            "single": single,
            "string": self.digits("train", NUM_DIGIT_ROWS),
            "prompt": self.prompts("train"),
        }
        return spec(
            "data.AsrDataModule",
            batch_size=batch_size,
            max_duration_s=LONGEST_S,
            on_too_long="skip",
            train=[
                {"source": sources[name], "share": dict(share)} for name, share in shares.items()
            ],
            val={"digits": self.digits("dev", 24)},
        )

    def policy(self, start: Path, **finetune: Any) -> Spec:
        cache = {"memory_gib": 0.25, "folder": str(self.out / "encoded"), "disk_gib": 4.0}
        return spec(
            "models.Qwen2AudioPolicy",
            init_from=str(start),
            finetune=finetune,
            encoder_cache=spec("models.encoder_cache.EncoderCache", **cache),
        )

    # --- stages

    def assembled(self) -> Path:
        folder = self.out / "start"
        if not (folder / "README.md").is_file():
            parts = self.real / "whisper-base", self.real / "smollm2-135m"
            assemble(str(folder), *(str(part) for part in parts), chat=False, seed=SEED)
        return folder

    def warmed(self, start: Path) -> Path:
        folder = self.out / "warm"
        record = self.out / "warm.json"
        if not record.is_file():
            cache = EncoderCache(memory_gib=0.1, folder=str(self.out / "encoded"), disk_gib=4.0)
            policy = Qwen2AudioPolicy(str(start), Finetune(lm="none"), encoder_cache=cache)
            digits = FsddDigits(self.fsdd, "train", WORDS, NUM_DIGIT_ROWS, seed=SEED)
            rows = [digits[i] for i in range(len(digits))]
            prompts = read_manifest(self.real / "asterisk" / "train.jsonl")
            rows += [row for row in prompts if row.duration_s <= LONGEST_S]
            record.write_text(json.dumps(warm(policy, rows, folder)))
        return folder

    def sft(self, name: str, start: Path, num_steps: int, lr: float, projector: bool) -> Path:
        policy = self.policy(start, projector=projector, lm="lora")
        optim = {"lr": lr, "schedule": "cosine", "warmup_steps": 10, "min_lr_ratio": 0.05}
        model = spec("algorithms.SFT", policy=policy, num_steps=num_steps, optim=optim)
        shares = SHARES if projector else LAST_SHARES
        return self.fit(name, model, self.data(int(SFT["batch_size"]), shares))

    def grpo(self, start: Path) -> Path:
        rewards = [
            spec("rewards.Accuracy", floor=-1.0),
            spec("rewards.Hallucination"),
        ]
        model = spec(
            "algorithms.GRPO",
            policy=self.policy(start, projector=False, lm="lora"),
            num_steps=GRPO["num_steps"],
            group_size=GRPO["group_size"],
            beta=0.04,
            optim={"lr": GRPO["lr"], "schedule": "cosine", "warmup_steps": 5, "min_lr_ratio": 0.1},
            decoding=CAP,
            rewards=spec("rewards.RewardMix", rewards=rewards),
        )
        return self.fit("grpo", model, self.data(int(GRPO["batch_size"]), LAST_SHARES))

    def control_steps(self) -> int:
        """As many as take the CPU seconds of GRPO at least, by what a step of SFT has cost."""
        path = self.out / "control_steps.json"
        if not path.is_file():
            spent = self.spent()
            num_steps = math.ceil(1.05 * spent["grpo"] / (spent["sft"] / SFT["num_steps"]))
            path.write_text(json.dumps(num_steps))
        return int(json.loads(path.read_text()))

    def fit(self, name: str, model: Spec, data: Spec) -> Path:
        folder = self.out / "runs" / name
        model["init_args"]["eval_decodings"] = {"greedy": {"decoding": CAP | {"temperature": 0.0}}}
        settings = {
            "seed_everything": SEED,
            "trainer": trainer(folder) | {"precision": "bf16-mixed"},
            "model": model,
            "data": data,
        }
        # What a stage costs is counted over all attempts.
        audiorl("fit", settings, folder, resume=True)
        return folder / "export"

    def predicted(self, name: str, models: dict[str, Path], num_rows: int) -> Counts:
        """What several models make of the first rows of both test sets, digits before prompts."""
        folder = self.out / "test" / name
        sources = [self.digits("test", NUM_TEST_ROWS), self.prompts("test")]
        settings = {
            "models": {model: self.policy(start) for model, start in models.items()},
            "rows": spec("data.JoinedRows", sources=sources),
            "limit_rows": num_rows,
            "out": str(folder / "hypotheses.jsonl"),
            "decodings": {"greedy": {"decoding": CAP | {"temperature": 0.0}}},
            "max_batch_size": 16,
            "trainer": {"accelerator": "cpu", "precision": "bf16-mixed"},
        }
        audiorl("predict", settings, folder)

        found: Counts = {model: {"digits": [], "prompts": []} for model in models}
        for row in read_hypotheses(folder / "hypotheses.jsonl"):
            done = found[row.model]
            # Rows stand in their order.
            of = "digits" if len(done["digits"]) < NUM_TEST_ROWS else "prompts"
            done[of].append(_counted(row))
        return found


def _counted(predicted: Any) -> list[Any]:
    [sample] = predicted.samples
    errors = sample.errors
    return [
        errors.substitutions,
        errors.deletions,
        errors.insertions,
        errors.reference_length,
        predicted.reference,
        sample.text,
    ]


def curve(folder: Path, name: str) -> list[float]:
    """A logged metric by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [scalar.value for scalar in events.Scalars(name)]


def run(grounds: Grounds, warm_alone: bool = False) -> dict[str, Any]:
    """All stages, or the first two; everything that the page says."""
    start = grounds.stage("assemble", grounds.assembled)
    warmed = grounds.stage("warm", lambda: grounds.warmed(start))
    seen = {
        "cpu_s": grounds.spent(),
        "warm": json.loads((grounds.out / "warm.json").read_text()),
        "made_with": made_with(),
    }
    if warm_alone:
        return seen

    trained = grounds.stage(
        "sft", lambda: grounds.sft("sft", warmed, int(SFT["num_steps"]), SFT["lr"], projector=True)
    )
    early = {"start": start, "warm": warmed}
    sets = grounds.stage("test early", lambda: grounds.predicted("early", early, NUM_EARLY_ROWS))

    models = {"sft": trained}
    models["grpo"] = grounds.stage("grpo", lambda: grounds.grpo(trained))
    num_steps = grounds.control_steps()
    models["control"] = grounds.stage(
        "control", lambda: grounds.sft("control", trained, num_steps, GRPO["lr"], projector=False)
    )
    num_rows = NUM_TEST_ROWS + NUM_PROMPT_TEST_ROWS
    sets |= grounds.stage("test", lambda: grounds.predicted("late", models, num_rows))
    return seen | {
        "cpu_s": grounds.spent(),
        "settings": {
            "sft": SFT,
            "grpo": GRPO,
            "control_steps": num_steps,
            "digit_rows": NUM_DIGIT_ROWS,
            "shares": SHARES,
            "last_shares": LAST_SHARES,
        },
        "curves": {name: curve(grounds.out / "runs" / name, "loss") for name in ("sft", "control")},
        "rewards": curve(grounds.out / "runs" / "grpo", "reward/mean"),
        "sets": sets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--fsdd", type=Path, default=os.environ.get("FSDD_ROOT"))
    parser.add_argument("--out", type=Path, default=Path("runs/assembled"))
    parser.add_argument("--warm-alone", action="store_true", help="stop before the first SFT")
    args = parser.parse_args()
    if args.fsdd is None:
        parser.error("give --fsdd, or set FSDD_ROOT to the folder that holds recordings/")

    results = run(Grounds(args.real, Path(args.fsdd), args.out), args.warm_alone)
    (args.out / "results.json").write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()

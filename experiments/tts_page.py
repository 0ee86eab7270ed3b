"""The page of experiments/tts.py."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

Results = dict[int, dict[str, Any]]
"""By seed and row of the table."""

#: Title -> figure, factor, digits.
COLUMNS: dict[str, tuple[str, float, int]] = {
    "held-out CER %": ("held_out_cer", 100, 1),
    "reward judge's CER %": ("cer", 100, 1),
    "gap": ("judge_gap", 100, 1),
    "held-out similarity": ("held_out_similarity", 1, 3),
    "similarity": ("similarity", 1, 3),
    "tokens per digit": ("tokens_per_unit", 1, 2),
    "missing stops %": ("missing_stop_rate", 100, 2),
}
#: The same of ears that were not trained here, on the first texts of the set.
EAR_COLUMNS: dict[str, tuple[str, float, int]] = {
    "Whisper CER %": ("whisper_cer", 100, 1),
    "Whisper: texts right %": ("whisper_right", 100, 1),
    "Whisper: more errors than characters %": ("whisper_runaway", 100, 1),
    "Whisper, ten words, CER %": ("whisper_words_cer", 100, 1),
    "PocketSphinx CER %": ("pocketsphinx_cer", 100, 1),
    "Resemblyzer similarity": ("resemblyzer_similarity", 1, 3),
    "DNSMOS": ("dnsmos_quality", 1, 2),
    "voiced frames %": ("voiced_share", 100, 1),
    "samples with F0 %": ("with_f0_share", 100, 0),
}
#: Metrics whose change is shown as a share of the start, and as a difference.
RELATIVE = (
    "held_out_cer",
    "tokens_per_unit",
    "whisper_cer",
    "whisper_words_cer",
    "pocketsphinx_cer",
)
ABSOLUTE = ("held_out_similarity", "similarity", "resemblyzer_similarity", "dnsmos_quality")
HEAD = """# Speech synthesis: SFT, GRPO, DiffRO and both

The paper's Table 2 in miniature, on real recordings of digits (FSDD): a language model of 1 million parameters over a
codec of 1,000 codes at 25 per second, all parts trained from nothing. Every row starts from the same model of its seed;
seeds differ in initial weights, labelled utterances, order and draws. Figures on 800 texts of 1 to 4 digits of the
test part, one sample each at temperature 1 (the paper's), judged by models of another architecture and other features,
trained on recordings that neither the reward's judges nor Token2Text ever heard. Codec, judges, encoders and Token2Text
are one training each. Mean ± standard deviation over the seeds, which does not hold their spread; in brackets the
change against the start of the same seed, mean (lowest to highest). R1: accuracy by the reward judge; R2: duration; R3:
diversity; SIM: speaker similarity; every row with rewards has the hard bounds on length and stop beside them (weight
0.5); both: GRPO and DiffRO at once, with the speaker head where the row does not say otherwise. Made by
`python experiments/tts.py`."""


def of(results: Results, row: str, figure: str) -> list[float]:
    """The figure of every seed that has the row; NaN where a run did not measure it."""
    seeds = [rows[row]["figures"] for _, rows in sorted(results.items()) if row in rows]
    return [figures.get(figure, math.nan) for figures in seeds]


def spread(values: list[float], digits: int) -> str:
    """Mean ± standard deviation."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{deviation}"


def change(
    results: Results, row: str, figure: str, relative: bool, factor: float, digits: int
) -> str:
    """Mean (lowest to highest) change against the start, seed by seed."""
    changes = [
        (100 if relative else factor) * each for each in moved(results, row, figure, relative)
    ]
    unit = " %" if relative else ""
    low, high = min(changes), max(changes)
    return (
        f"{statistics.fmean(changes):+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f})"
    )


def table(results: Results, columns: dict[str, tuple[str, float, int]]) -> str:
    """One row per method; columns that nobody measured are left out."""
    rows = list(dict.fromkeys(row for each in results.values() for row in each))
    known = {
        title: column
        for title, column in columns.items()
        if not all(math.isnan(value) for row in rows for value in of(results, row, column[0]))
    }
    if not known:
        return ""

    lines = ["| | " + " | ".join(known) + " |", "|---" * (len(known) + 1) + "|"]
    for row in rows:
        cells = []
        for figure, factor, digits in known.values():
            cell = spread([factor * value for value in of(results, row, figure)], digits)
            if row != "start" and figure in RELATIVE:
                cell += f"<br>[{change(results, row, figure, True, factor, 0)}]"
            if row != "start" and figure in ABSOLUTE:
                cell += f"<br>[{change(results, row, figure, False, factor, digits)}]"
            cells.append(cell)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ear_seeds(results: Results) -> str:
    """What the real ears hear, seed by seed: what the bars speak of."""
    known = {
        title: column
        for title, column in EAR_COLUMNS.items()
        if not all(math.isnan(value) for value in of(results, "start", column[0]))
    }
    if not known:
        return ""
    rows = list(dict.fromkeys(row for each in results.values() for row in each))
    lines = ["| | " + " | ".join(known) + " |", "|---" * (len(known) + 1) + "|"]
    for row in rows:
        cells = []
        for figure, factor, digits in known.values():
            values = of(results, row, figure)
            cells.append(", ".join(f"{factor * value:.{digits}f}" for value in values))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def against_control(results: Results) -> str:
    """Every row against the control, in words: superiority only where the seeds separate."""
    if "SFT control" not in next(iter(results.values())):
        return ""

    lines = []
    for row in trained(results):
        pairs = list(
            zip(
                of(results, row, "held_out_cer"),
                of(results, "SFT control", "held_out_cer"),
                strict=True,
            )
        )

        better = sum(mine < control for mine, control in pairs)
        verdict = {0: "worse in every seed", len(pairs): "better in every seed"}.get(
            better, "the seeds do not separate"
        )

        difference = paired(results, row, "SFT control")
        lines.append(
            f"- {row}: {difference} points; below the control in {better} of {len(pairs)} seeds: {verdict}."
        )
    return "\n".join(lines)


def trained(results: Results) -> list[str]:
    """The rows that learnt by reinforcement, in the order of the table."""
    rows = dict.fromkeys(row for each in results.values() for row in each)
    return [row for row in rows if row not in ("start", "SFT control")]


def paired(results: Results, row: str, other: str) -> str:
    """Held-out CER of one row less that of another: mean over the seeds +- standard error, in points."""
    points = differences(results, row, other)
    error = statistics.stdev(points) / math.sqrt(len(points)) if len(points) > 1 else math.nan
    return f"{statistics.fmean(points):+.1f} ± {error:.1f}"


def differences(results: Results, row: str, other: str) -> list[float]:
    """Held-out CER of one row less that of another, of each seed, in points."""
    pairs = zip(of(results, row, "held_out_cer"), of(results, other, "held_out_cer"), strict=True)
    return [100 * (a - b) for a, b in pairs]


#: Combination -> its half by GRPO.
HALVES = {
    "both, no filter, R1": "GRPO R1",
    "both + filter, R1": "GRPO R1",
    "both + filter, R1+R2": "GRPO R1+R2",
    "both + filter, R1+R2+R3": "GRPO R1+R2+R3",
    "both + filter, R1+R2, no head": "GRPO R1+R2",
}
#: The half by DiffRO, with the head of the combinations and without.
DIFFRO = ("DiffRO", "DiffRO + speaker head")


def against_halves(results: Results) -> str:
    """Every combination against the methods that it is made of: CER and similarity; empty without one."""
    here = set(trained(results))
    titles = [
        "",
        "CER, points, less GRPO",
        *(f"less {row}" for row in DIFFRO),
        "similarity lost",
        "by GRPO",
    ]
    titles += [*(f"by {row}" for row in DIFFRO), "DiffRO's share"]

    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row, grpo in HALVES.items():
        if row not in here:
            continue

        less = [paired(results, row, half) if half in here else "-" for half in (grpo, *DIFFRO)]
        lost = [
            spread([-d for d in moved(results, r, "held_out_similarity")], 3) if r in here else "-"
            for r in (row, grpo, *DIFFRO)
        ]

        share = spread([each[row]["diffro_share"] for each in results.values()], 2)
        lines.append(f"| {row} | " + " | ".join([*less, *lost, share]) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def halves(results: Results, more: Results) -> list[str]:
    """The comparison on the evaluation set and on its second draw, with what each seed says; empty without one."""
    rows = set(trained(results))
    if not any(row in rows and rows & {half, *DIFFRO} for row, half in HALVES.items()):
        return []

    parts = [
        "## Combinations against their halves",
        "Differences: mean ± standard error; the rest: ± standard deviation.",
        against_halves(results),
    ]
    if any(more.values()):
        second = "On a second draw of 1,600 texts and prompts from the same recordings, for this comparison alone:"
        parts += [second, against_halves(more)]

    seeds = ["| | of each seed | on the second draw |", "|---|---|---|"]
    for row, half in HALVES.items():
        if {row, half} <= set(trained(results)):
            drawn = [each for each in (results, more) if any(each.values())]
            cells = [", ".join(f"{d:+.1f}" for d in differences(each, row, half)) for each in drawn]
            seeds.append(f"| {row}, less {half} | " + " | ".join([*cells, ""][:2]) + " |")

    return [
        *parts,
        "Held-out CER of a combination less that of its half by GRPO, points:",
        "\n".join(seeds),
    ]


def moved(results: Results, row: str, figure: str, relative: bool = False) -> list[float]:
    """Change against the start of each seed, as a difference or as a share."""
    pairs = zip(of(results, "start", figure), of(results, row, figure), strict=True)
    return [(new - old) / (old if relative else 1) for old, new in pairs]


def seed_table(results: Results) -> str:
    """What each seed changed against its start: what the bars speak of."""
    titles = [
        "",
        "held-out CER %",
        "change, %",
        "held-out similarity, change",
        "tokens per digit, change, %",
    ]

    lines = ["| " + " | ".join([*titles, "missing stops %"]) + " |", "|---" * 6 + "|"]
    start = ", ".join(f"{100 * value:.1f}" for value in of(results, "start", "held_out_cer"))
    lines.append(f"| start | {start} | | | | |")

    for row in [
        *(["SFT control"] if "SFT control" in next(iter(results.values())) else []),
        *trained(results),
    ]:
        cells = [
            [f"{100 * value:.1f}" for value in of(results, row, "held_out_cer")],
            [f"{100 * value:+.1f}" for value in moved(results, row, "held_out_cer", relative=True)],
            [f"{value:+.3f}" for value in moved(results, row, "held_out_similarity")],
            [
                f"{100 * value:+.1f}"
                for value in moved(results, row, "tokens_per_unit", relative=True)
            ],
            [f"{100 * value:.1f}" for value in of(results, row, "missing_stop_rate")],
        ]
        lines.append(f"| {row} | " + " | ".join(", ".join(cell) for cell in cells) + " |")
    return "\n".join(lines)


def budgets(results: Results) -> str:
    """Steps, samples and learning rate of each row; the same for every seed."""
    runs = {row: run for each in results.values() for row, run in each.items() if "budget" in run}
    return "\n".join(f"- {row}: {run['budget']}" for row, run in runs.items())


def shares(results: Results) -> str:
    """What the logs of the runs say on average."""
    names = (
        "seconds",
        "kl",
        "diffro_share",
        "grad_cosine",
        "grad_norm/grpo",
        "grad_norm/diffro",
        "diffro/used_share",
    )
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in dict.fromkeys(row for each in results.values() for row in each):
        of_row = [each[row] for each in results.values() if row in each]
        cells = [
            spread([run[name] for run in of_row if name in run], 0 if name == "seconds" else 3)
            for name in names
        ]
        if row != "start":
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def token2text_table(validation: dict[str, Any]) -> str:
    """Token2Text beside the held-out waveform judge."""
    lines = [
        "| | CER % by Token2Text's decoder | by its CTC | by the held-out judge | rank correlation of likelihood and "
        "judge, decoder | CTC |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in validation.items():
        cer, rank = found["cer"], found["spearman"]
        rates = " | ".join(f"{100 * cer[key]:.1f}" for key in ("decoder", "ctc", "judge"))
        lines.append(f"| {name} | {rates} | {rank['decoder']:.2f} | {rank['ctc']:.2f} |")
    return "\n".join(lines)


def page(kept: dict[str, Any], reading: Path) -> str:
    """docs/tts_figures.md; ``reading`` is a human's text that stands behind the head where it exists."""
    results: Results = kept["results"]
    plateau = ", ".join(
        f"seed {seed}: {100 * fell:.1f} %" for seed, fell in sorted(kept["plateau"].items())
    )
    rest = "The start of seed 0 comes with the configurations."
    if plateau:
        rest = (
            f"In the last tenth of SFT the held-out CER of the starts on dev (1,200 texts) fell by: {plateau}; at rest "
            f"is below 3 %. {rest}"
        )

    parts = [HEAD]
    if reading.is_file():
        parts.append("## Reading\n\n" + reading.read_text())
    parts += [
        *by_real_ears(results),
        "## By the judges that were trained here",
        table(results, COLUMNS),
        "![rows](images/tts_rows.png)",
        "## Against the start, seed by seed",
        seed_table(results),
        rest,
        "## Against the control\n\nDifferences seed by seed, mean ± standard error.",
        against_control(results),
        *halves(results, kept["more"]),
        "## What each run may do",
        budgets(results),
        "## What the logs say",
        "Means over the steps of a run; seconds are those of the whole run on one thread, evaluation included.",
        shares(results),
        "## Token2Text beside a judge of waveforms (dev part)",
        token2text_table(kept["token2text"]),
    ]

    parts = [part for part in parts if part]
    parts.append(foot(kept["made_with"]))
    return "\n\n".join(parts) + "\n"


def by_real_ears(results: Results) -> list[str]:
    """The tables of the ears that were not trained here; empty where none has listened."""
    heard = table(results, EAR_COLUMNS)
    if not heard:
        return []
    return [
        "## By ears that were not trained here",
        "Whisper base, PocketSphinx, Resemblyzer and DNSMOS ([what each is worth](judges.md)) hear the first 200 of "
        'the texts, DNSMOS 25 of them. "Ten words" is Whisper in a window cut to the clip, which may write digits '
        "alone (`words`). None of them rewards or has chosen a setting. F0 is not shown: the codec leaves next to no "
        "voiced frames, and the last columns say how few.",
        heard,
        "Seed by seed:",
        ear_seeds(results),
        "What each row has less than start and control of its seed, in points of CER and in cosine, with paired 95 % "
        "intervals over the texts; bold where the interval excludes 0.",
        ear_differences(results),
    ]


#: Ear -> title of its differences, factor, digits.
DIFFERENCES: dict[str, tuple[str, float, int]] = {
    "whisper": ("Whisper CER", 100, 1),
    "whisper_words": ("ten words", 100, 1),
    "pocketsphinx": ("PocketSphinx CER", 100, 1),
    "resemblyzer": ("Resemblyzer", 1, 3),
}


def ear_differences(
    results: Results, titles: dict[str, tuple[str, float, int]] = DIFFERENCES
) -> str:
    """Each row less what it is compared with, seed by seed, by every ear that heard both."""
    found = [
        (row, seed, other, less)
        for row in dict.fromkeys(row for each in results.values() for row in each)
        for seed, each in sorted(results.items())
        for other, less in each.get(row, {}).get("less", {}).items()
        if row != "start"
    ]

    # Only ears that listened.
    ears = [ear for ear in titles if any(ear in less for *_, less in found)]
    heads = [titles[ear][0] for ear in ears]
    lines = [
        "| | seed | less | " + " | ".join(heads) + " |",
        "|---" * (len(ears) + 3) + "|",
    ]

    for row, seed, other, less in found:
        cells = []
        for ear in ears:
            _, factor, digits = titles[ear]
            ends = [factor * value for value in less.get(ear, [])]
            cells.append(interval(ends, digits) if ends else "-")
        lines.append(f"| {row} | {seed} | {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(ends: list[float], digits: int) -> str:
    """A difference and its interval, in bold where it excludes 0."""
    value, low, high = ends
    text = f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def foot(surroundings: dict[str, str]) -> str:
    """What a page was made with."""
    return "*" + "; ".join(f"{key} {value}" for key, value in surroundings.items()) + "*"

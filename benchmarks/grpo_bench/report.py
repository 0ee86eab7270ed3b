"""docs/benchmarks.md, written from measured results alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from whisper_bench.report import whisper_part

from grpo_bench.bars import bars, efficiency, flops, growth_over_flops
from grpo_bench.case import Case, layer_weights
from grpo_bench.plots import AXES, LABELS, PHASES, growth_curves, phase_bars
from grpo_bench.sections import TOKENS_PER_SECOND

_MIB = 2**20
COMMAND = "python benchmarks/grpo_step.py"

_HEAD = """# Benchmarks

How long one GRPO step takes, how much memory it adds and where the time goes: our way (a prompt is computed once for
its group), the naive way (every sample carries its own prompt; the same code otherwise) and TRL's `GRPOTrainer`. All
of this page but the part on a real Whisper is written by `{command} --sections all --write-docs`
from what it measured ([benchmarks.json](benchmarks.json)). Ours and the naive way sample with
`LocalEngine(copy_weights=True)`, which is off by default: products of the rollout read copies of the weights, and its
log-probs differ from those without by rounding.

Systems step in turn within one run, one process each, the order reversed in every second round. Times are medians
over the steps after the warm-up, with the smallest and largest in brackets. Memory is the peak of a fresh process
beyond what it held before its first step (weights and reference held, optimizer state not yet). Every step is checked
to have done the same work: B prompts, B x G completions of T tokens, one optimizer step.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def _spread(value: dict[str, float]) -> str:
    return f"{value['median']:.2f} [{value['min']:.2f}, {value['max']:.2f}]"


def describe(case: Case, audio: bool = False) -> str:
    """The sizes of a case in words."""
    model = (
        "a tiny Fun-ASR-Nano"
        if audio
        else f"a language model of Qwen2's shape ({layer_weights(case) / 1e6:.1f} M weights in its layers)"
    )
    prompt = f"{case.audio_s:g} s of audio each" if audio else f"of {case.prompt_tokens} tokens"
    trains = "everything but the encoder trains" if audio else "everything trains"
    vocabulary = "" if audio else f", vocabulary {case.vocab_size}"
    return (
        f"{model}, width {case.width}, {case.layers} layers{vocabulary}, float32, AdamW, {trains}; "
        f"B = {case.num_prompts} prompts {prompt}, G = {case.group_size}, T = {case.new_tokens} forced, "
        f"beta {case.beta:g}, one update per rollout"
    )


def comparison(section: dict[str, Any], audio: bool = False) -> str:
    """One line per system: seconds by phase, memory, tokens through the model."""
    results = section["results"]
    ours = results["ours"]["seconds"]["median"]
    head = [
        "system",
        "step, s",
        "x ours",
        *(f"{p}, s" for p in PHASES),
        "added peak, MiB",
        "tokens through the LM",
    ]
    rows = []
    for name, result in results.items():
        phases = [
            f"{result['phases'][p]['median']:.2f}" if p in result["phases"] else "-" for p in PHASES
        ]
        ratio = f"{result['seconds']['median'] / ours:.2f}"
        memory = f"{result['added_bytes'] / _MIB:.0f}"
        row = [LABELS.get(name, name), _spread(result["seconds"]), ratio, *phases, memory]
        tokens = result["work"]["lm_tokens"]
        row.append(
            f"{sum(tokens.values())} (" + ", ".join(f"{k} {v}" for k, v in tokens.items()) + ")"
        )
        rows.append([*row, str(result["work"]["encoder_rows"])] if audio else row)
    return table([*head, "encoder rows"] if audio else head, rows)


def _floor(results: dict[str, Any]) -> str:
    ours = results["ours"]
    rate = ours["product_flops_per_s"]
    text = (
        f"The floor: a float32 product of two 2048 x 2048 matrices runs at {rate / 1e9:.1f} GFLOP/s in the same run. "
        "Efficiency is model FLOPs (2 per weight and token forward, 4 backward, attention over kept positions, the "
        "head on completion tokens, prompts counted once, recomputation not counted) over time, over that rate.\n\n"
    )
    rows = []
    for phase in ("rollout", "reference", "update"):
        work, seconds = flops(ours)[phase], ours["phases"][phase]["median"]
        rows.append(
            [phase, f"{work / 1e9:.0f}", f"{seconds:.2f}", f"{100 * efficiency(ours, phase):.0f} %"]
        )
    return text + table(["phase", "model GFLOP", "seconds", "efficiency"], rows)


def _growth(results: dict[str, Any]) -> str:
    rows = []
    for axis in AXES:
        ours = {k.split("=")[1]: r for k, r in results.items() if k.startswith(f"ours/{axis}=")}
        first = next(iter(ours.values()))
        for value, result in ours.items():
            naive = results.get(f"naive/{axis}={value}")
            times, work = growth_over_flops(first, result)
            beside = _spread(naive["seconds"]) if naive else "-"
            rows.append(
                [
                    AXES[axis],
                    value,
                    _spread(result["seconds"]),
                    beside,
                    f"{times:.2f}",
                    f"{work:.2f}",
                ]
            )
    head = ["axis", "value", "ours, s", "naive, s", "time over the first", "FLOPs over the first"]
    return table(head, rows)


def _run(section: dict[str, Any]) -> str:
    where = section["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    result = next(iter(section["results"].values()))
    shares = [r["cpu_share"] for r in section["results"].values()]
    got = f"{min(shares):.2f} to {max(shares):.2f} CPU seconds per second"
    return (
        f"*{section['date']}, commit {where['commit']}, {where['processor']}, {section['threads']} thread(s), "
        f"device {where['device']}, {got}; {versions}; {result['steps']} steps after {result['warmup']} warm-up; seed "
        f"{result['case']['seed']}.*\n"
    )


def _case_of(section: dict[str, Any]) -> Case:
    return Case(**next(iter(section["results"].values()))["case"])


def _case_part(section: dict[str, Any]) -> list[str]:
    plot = "![seconds by phase](images/benchmark_phases.png)\n"
    return [
        describe(_case_of(section)) + ".\n",
        comparison(section),
        plot,
        _floor(section["results"]),
    ]


def _as_shipped_part(section: dict[str, Any]) -> list[str]:
    return [comparison(section)]


def _groups_part(section: dict[str, Any]) -> list[str]:
    results = section["results"]
    times, work = growth_over_flops(*results.values())
    seconds = [_spread(result["seconds"]) for result in results.values()]
    return [
        table(list(results), [seconds]),
        f"{times:.2f} times the time for {work:.2f} times the model FLOPs.\n",
    ]


def _long_part(section: dict[str, Any]) -> list[str]:
    parts = section["results"]["trl"]["case"]["accumulate"]
    split = f"TRL's update is split into {parts} passes (gradient accumulation), for memory's sake; ours runs in one."
    return [f"{describe(_case_of(section))}. {split}\n", comparison(section)]


def _before_part(section: dict[str, Any]) -> list[str]:
    rows = []
    for key, earlier in section["results"].items():
        if not key.startswith("before/"):
            continue
        ours = section["results"][key.replace("before/", "ours/")]
        case = Case(**ours["case"])
        sizes = f"B {case.num_prompts}, P {case.prompt_tokens}, G {case.group_size}"

        for phase in PHASES:
            if phase in earlier["phases"]:
                pair = (earlier["phases"][phase], ours["phases"][phase])
                rows.append(_beside(sizes, phase, *pair))
        rows.append(_beside(sizes, "the step", earlier["seconds"], ours["seconds"]))

        memory = [f"{result['added_bytes'] / _MIB:.0f}" for result in (earlier, ours)]
        ratio = f"{earlier['added_bytes'] / ours['added_bytes']:.2f}"
        rows.append([sizes, "added peak, MiB", *memory, ratio])

    head = ["case", "of a step", "before", "now", "before over now"]
    return [
        f"Before is the build at {section['before']}; both in turns in one run, seconds.\n",
        table(head, rows),
    ]


def _beside(sizes: str, what: str, earlier: dict[str, float], ours: dict[str, float]) -> list[str]:
    ratio = f"{earlier['median'] / max(ours['median'], 1e-9):.2f}"
    return [sizes, what, _spread(earlier), _spread(ours), ratio]


def _audio_part(section: dict[str, Any]) -> list[str]:
    return [
        describe(_case_of(section), audio=True) + ". TRL has no audio.\n",
        comparison(section, audio=True),
    ]


def _growth_part(section: dict[str, Any]) -> list[str]:
    start = describe(Case(**section["results"]["ours/threads=1"]["case"]))
    where = f"One axis at a time, from: {start}. {TOKENS_PER_SECOND} prompt tokens stand for a second of audio.\n"
    return [where, "![growth](images/benchmark_growth.png)\n", _growth(section["results"])]


_PARTS: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "case": ("The case", _case_part),
    "as_shipped": ("TRL as shipped", _as_shipped_part),
    "groups": ("Twice the samples", _groups_part),
    "long": ("A minute of audio", _long_part),
    "before": ("Beside an earlier build", _before_part),
    "audio": ("Audio prompts", _audio_part),
    "growth": ("How the cost grows", _growth_part),
}


def write(sections: dict[str, Any], options: str, docs: Path, remarks: str = "") -> None:
    """Write ``docs``/benchmarks.md, benchmarks.json and images/.

    Args:
        sections: by name: date, machine, threads and results.
        options: TRL's options and why.
        docs: the folder.
        remarks: Markdown put behind the bars: what was read off the figures by a person.
    """
    reached = [
        [bar.name, bar.wanted, f"{bar.reached:.2f}", "yes" if bar.ok else "**no**"]
        for bar in bars(sections)
    ]
    out = [_HEAD.format(command=COMMAND), "## What should be reached\n"]
    out.append(table(["bar", "wanted", "reached", "met"], reached))
    if remarks:
        out.append(remarks.strip() + "\n")
    for name, (title, part) in _PARTS.items():
        if name in sections:
            out += [f"## {title}\n", *part(sections[name]), _run(sections[name])]
    # Of another command: a checkpoint and recordings of one's own.
    if "whisper" in sections:
        out += ["## A real Whisper\n", *whisper_part(sections["whisper"])]
    out += ["## TRL's options\n", options]
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text("\n".join(out))
    (docs / "benchmarks.json").write_text(json.dumps(sections, indent=1) + "\n")
    _draw(sections, docs / "images")


def _draw(sections: dict[str, Any], folder: Path) -> None:
    titles = {"case": "the case", "long": "a minute of audio", "audio": "audio prompts"}
    panels = {
        title: sections[name]["results"] for name, title in titles.items() if name in sections
    }
    if panels:
        phase_bars(panels, folder / "benchmark_phases.png")
    if "growth" in sections:
        growth_curves(sections["growth"]["results"], folder / "benchmark_growth.png")

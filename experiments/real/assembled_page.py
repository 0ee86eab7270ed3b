"""docs/assembled.md and its plot, of what experiments/real/assembled.py found.

python -m experiments.real.assembled_page --results runs/assembled/results.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[2] / "docs"
NUM_RESAMPLES = 2000
NAMES = {
    "start": "assembled, projector random",
    "warm": "projector by CTC, LM as it was",
    "sft": "SFT: projector and LoRA",
    "grpo": "GRPO from there (R1 + R2)",
    "control": "SFT control from there",
}
STAGES = {
    "assemble": "assemble",
    "warm": "encode all training rows once, projector by CTC",
    "sft": "SFT",
    "grpo": "GRPO",
    "control": "control",
}
HEAD = """# A speech LM from parts

## No LLM-ASR checkpoint? Assemble one

A Whisper encoder hears, a causal language model writes, and a fresh linear projector between them is what is missing:
SLAM-ASR (arXiv 2402.08846). One command makes a checkpoint of the three, a `Qwen2AudioForConditionalGeneration`, which
transformers loads and `Qwen2AudioPolicy` trains:

```bash
audiorl assemble --encoder openai/whisper-base --lm HuggingFaceTB/SmolLM2-135M-Instruct --family qwen2_audio my_start
audiorl fit --config configs/assembled.yaml --data.init_args.train my_train.jsonl   # SFT of projector and LoRA
audiorl fit --config configs/qwen2_audio.yaml --model.init_args.policy.init_args.init_from runs/assembled/export
```

- The encoder is any Whisper, the language model any that is built like Llama (Llama, Qwen2, Qwen3, Mistral, ...);
  others are refused by name. Folders and hub ids both do.
- The prompt is that of the language model's own chat template, with the instruction (`--instruction`) behind the audio;
  `--chat false` asks without it, in fewer tokens.
- Three tokens for audio are added. Their rows, in embedding and head, are the mean of the others.
- The projector is random, keyed by `--seed`, and of a size that its output is about as large as an embedding.
- 25 audio tokens stand for a second. A clip ends where the family ends it, at 30 s: longer ones are refused. Frames
  behind a clip's end are masked by the family, and not computed here.
- Both parts' licences hold for the whole; its README.md leaves a place for them."""


WARM = """## Seen, on real parts: the projector alone

Whisper base's encoder (MIT) and SmolLM2-135M (Apache-2.0; its 4-bit file). Before the language model is asked, the
projector can be taught by CTC against the LM's own embeddings: at each frame its output is to be the embedding of a
token, or a blank, one direction more. No pass of the language model is needed."""
NOT_YET = """SFT, GRPO and the control stand in the same script, and have not been run to their end yet: error rates of
the whole are not known.

Made by `python -m experiments.real.assembled --real REAL --fsdd FSDD_ROOT --out runs/assembled --warm-alone` and
`python -m experiments.real.assembled_page --results runs/assembled/results.json`."""


def interval(
    rows: list[list[Any]], others: list[list[Any]] | None = None
) -> tuple[float, float, float]:
    """WER in percent with a 95 % interval by a bootstrap over rows; less that of others on the same rows, paired."""
    draws = np.random.default_rng(0).integers(len(rows), size=(NUM_RESAMPLES, len(rows)))

    def rates(of: list[list[Any]]) -> tuple[float, Any]:
        errors = np.array([sum(row[:3]) for row in of])
        words = np.array([row[3] for row in of])
        whole = errors.sum() / words.sum()
        return 100 * float(whole), 100 * errors[draws].sum(1) / words[draws].sum(1)

    value, drawn = rates(rows)
    if others is not None:
        value_of_others, drawn_of_others = rates(others)
        value -= value_of_others
        drawn = drawn - drawn_of_others
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value, float(low), float(high)


def written(found: tuple[float, float, float], sign: str = "") -> str:
    value, low, high = found
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def table(results: dict[str, Any]) -> str:
    """A line for each model."""
    lines = [
        "| model | WER of digits | words, ins / del / sub | WER of prompts |",
        "|---|---|---|---|",
    ]
    for name, label in NAMES.items():
        digits = results["sets"][name]["digits"]
        prompts = results["sets"][name]["prompts"]
        errors = [sum(row[kind] for row in digits) for kind in (2, 1, 0)]
        words = sum(row[3] for row in digits)
        cells = [
            label,
            written(interval(digits)),
            f"{words}, {' / '.join(str(number) for number in errors)}",
            written(interval(prompts)) if prompts else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(results: dict[str, Any]) -> str:
    """GRPO and control beside where they began, and beside each other."""
    lines = ["| difference in points, paired | digits | prompts |", "|---|---|---|"]
    for one, other in (("grpo", "sft"), ("control", "sft"), ("grpo", "control")):
        cells = []
        for name in ("digits", "prompts"):
            sets = results["sets"]
            cells.append(written(interval(sets[one][name], sets[other][name]), "+"))
        lines.append(f"| {one} less {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(results: dict[str, Any]) -> str:
    lines = ["| stage | CPU minutes |", "|---|---|"]
    spent = results["cpu_s"]
    broken_off = [name for name in spent if "broken off" in name]
    for name, label in {**STAGES, **{name: name for name in broken_off}}.items():
        lines.append(f"| {label} | {spent[name] / 60:.1f} |")
    tests = sum(seconds for name, seconds in spent.items() if name.startswith("test"))
    lines.append(f"| all evaluations | {tests / 60:.1f} |")
    lines.append(f"| together | {sum(spent.values()) / 60:.1f} |")
    return "\n".join(lines)


def examples(results: dict[str, Any], num: int = 4) -> str:
    """The first rows of each set, as each model writes them."""
    lines = ["| set | reference | SFT | GRPO | control |", "|---|---|---|---|---|"]
    sets = results["sets"]
    for name in ("digits", "prompts"):
        for number in range(min(num, len(sets["sft"][name]))):
            texts = [sets[model][name][number][5] for model in ("sft", "grpo", "control")]
            cells = [name, sets["sft"][name][number][4], *texts]
            lines.append(f"| {' | '.join(' '.join(str(cell).split()) for cell in cells)} |")
    return "\n".join(lines)


def _percent(shares: dict[str, dict[str, float]], step: int) -> str:
    """The shares of a step in words; JSON has made the steps texts."""
    found = []
    for name, by_step in shares.items():
        if str(step) in by_step:
            found.append(f"{100 * by_step[str(step)]:.0f} % {name}s")
    return ", ".join(found)


def settings(results: dict[str, Any]) -> str:
    """What the stages were, in a paragraph."""
    chosen = results["settings"]
    sft = chosen["sft"]
    grpo = chosen["grpo"]
    num_digits, num_prompts = (len(results["sets"]["sft"][name]) for name in ("digits", "prompts"))
    warm = results["warm"]
    return (
        f"Training rows: {chosen['digit_rows']} strings of one to seven digits of the Free Spoken Digit Dataset's "
        "training part (CC BY-SA 4.0), and 324 Asterisk prompts of one voice (asterisk-core-sounds-en-wav, "
        f"CC-BY-SA-3.0). SFT begins with {_percent(chosen['shares'], 0)}, and ends, as GRPO and control begin, with "
        f"{_percent(chosen['last_shares'], 0)}. Test: {num_digits} strings of the digits' test part, other "
        f"recordings of the same speakers, and {num_prompts} prompts. Parts: the encoder of Whisper base (MIT), and "
        f"SmolLM2-135M (Apache-2.0; its 4-bit file). CTC: {len(warm['losses'])} steps of 32 clips on the projector "
        f"alone, against the embeddings of the {warm['num_tokens']} tokens of the training texts, with no pass of the "
        f"language model. SFT: {sft['num_steps']} steps of {sft['batch_size']}, projector and LoRA of rank 16, at "
        f"{sft['lr']:g}. GRPO: {grpo['num_steps']} steps of {grpo['batch_size']} prompts and {grpo['group_size']} "
        f"samples, LoRA, {grpo['lr']:g}, beta .04, Accuracy with floor -1 and Hallucination. Control: "
        f"{chosen['control_steps']} steps of SFT with LoRA at the same rate. All in bf16-mixed; one seed, one thread."
    )


def plot(results: dict[str, Any], path: Path) -> None:
    """Losses and rewards by step."""
    panels = [
        ("CTC of the projector: loss", results["warm"]["losses"]),
        ("SFT: loss a token", results["curves"]["sft"]),
        ("SFT control: loss a token", results["curves"]["control"]),
        ("GRPO: mean reward", results["rewards"]),
    ]
    figure = Figure(figsize=(3.4 * len(panels), 2.8))
    FigureCanvasAgg(figure)
    for number, (title, values) in enumerate(panels):
        axis = figure.add_subplot(1, len(panels), number + 1)
        axis.plot(values, linewidth=0.8, color="tab:blue", alpha=0.5)
        width = max(1, len(values) // 12)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axis.plot(np.arange(len(smooth)) + width // 2, smooth, color="tab:blue")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("steps")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def warm_page(results: dict[str, Any]) -> str:
    """What the first two stages have shown, where the others were not run."""
    warm = results["warm"]
    first, last = (statistics.mean(part) for part in (warm["losses"][:20], warm["losses"][-20:]))
    minutes = results["cpu_s"]["warm"] / 60
    made = "; ".join(f"{key} {value}" for key, value in results["made_with"].items())
    seen = (
        f"{len(warm['losses'])} steps of 32 clips out of {warm['rows']} (digits and Asterisk prompts, "
        f"{warm['num_tokens']} kinds of tokens): loss a token {first:.1f} at first, {last:.2f} in the last 20 steps.\n"
        f"{minutes:.1f} CPU minutes, in which each clip is encoded once. One seed, one thread."
    )
    return "\n\n".join([HEAD, WARM, seen, NOT_YET, f"*{made}*"]) + "\n"


def page(results: dict[str, Any], reading: str) -> str:
    made = "; ".join(f"{key} {value}" for key, value in results["made_with"].items())
    parts = [
        HEAD,
        "## Seen, on real parts",
        reading.strip(),
        "Word error rate in percent, greedy, with 95 % intervals by a bootstrap over the rows (2,000 draws).",
        table(results),
        differences(results),
        "![losses and rewards by step](images/assembled.png)",
        costs(results),
        settings(results),
        examples(results),
        "Made by `python -m experiments.real.assembled --real REAL --fsdd FSDD_ROOT --out runs/assembled` and "
        "`python -m experiments.real.assembled_page --results runs/assembled/results.json`.",
        f"*{made}*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("runs/assembled/results.json"))
    args = parser.parse_args()

    results = json.loads(args.results.read_text())
    if "sets" not in results:
        (DOCS / "assembled.md").write_text(warm_page(results), encoding="utf-8")
        return

    reading = DOCS / "assembled_reading.md"
    plot(results, DOCS / "images" / "assembled.png")
    text = page(results, reading.read_text() if reading.is_file() else "")
    (DOCS / "assembled.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

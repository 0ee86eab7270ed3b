"""One GRPO step on a real Whisper: ours beside the loop that one writes first with transformers, on the same rows.

    python benchmarks/whisper_step.py MODEL_FOLDER TRAIN.jsonl --seeds 0 1 2
    python benchmarks/whisper_step.py MODEL_FOLDER TRAIN.jsonl --write-docs     # the section of docs/benchmarks.md

The naive loop repeats each clip's audio for each of its samples: `generate` of B*G rows, a pass of the whole reference
and a forward and backward pass of the whole policy, AdamW. "naive" trains what ours trains, the decoder; "naive_all"
(with --systems) the encoder too. "ours_kept" has an `EncoderCache` and rows that come again; "ours" encodes every clip.
Each side has a process of its own; they step in turn, every second round in reverse
order, and a seed is one set of rows. CPU seconds of the process decide, as others may use the machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grpo_bench.report import write
from grpo_bench.runner import Worker
from grpo_step import machine, trl_options
from whisper_bench.case import WhisperCase
from whisper_bench.report import comparison
from whisper_bench.worker import SYSTEMS

_FOLDER = Path(__file__).resolve().parent
_DOCS = _FOLDER.parent / "docs"


@dataclass
class WhisperWorker(Worker):
    """The parent's side of a process of `whisper_bench.worker`."""

    def command(self) -> list[str]:
        """What is started."""
        entry = str(_FOLDER / "whisper_bench" / "worker.py")
        return [sys.executable, entry, self.system, str(self.threads)]


def measure(case: WhisperCase, systems: list[str], steps: int, threads: int) -> dict[str, Any]:
    """Steps of each system in turn, behind one on a single clip that does not count.

    Returns:
        The answers to each step by system.
    """
    answers: dict[str, Any] = {system: [] for system in systems}
    with ExitStack() as stack:
        workers = {system: WhisperWorker(system, "cpu", threads) for system in systems}
        for worker in workers.values():
            stack.callback(worker.quit)
        for worker in workers.values():
            worker.ask(do="open", case=case.as_dict(), steps=steps)

        for number in range(steps + 1):
            for system in systems if number % 2 else reversed(systems):
                answer = workers[system].ask(do="step")
                print(
                    f"seed {case.seed}, step {number}: {system} {answer['cpu_s']:.2f} CPU s",
                    file=sys.stderr,
                )
                if number:
                    answers[system].append(answer)
    return answers


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a Whisper checkpoint")
    parser.add_argument("train", help="JSONL manifest of speech")
    parser.add_argument("--systems", nargs="+", default=["ours", "naive"], choices=SYSTEMS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], help="sets of rows; default 0")
    parser.add_argument("--steps", type=int, default=2, help="that count, of each seed; default 2")
    parser.add_argument("--prompts", type=int, default=4, help="B; default 4")
    parser.add_argument("--group-size", type=int, default=4, help="G; default 4")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="of a sample; default 64")
    parser.add_argument("--threads", type=int, default=1, help="of torch; default 1")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmarks/whisper_step.json"),
        help="results, those of other seeds among them, are kept here",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="put what --out holds into docs/benchmarks.md"
    )
    return parser.parse_args()


def write_section(section: dict[str, Any]) -> None:
    """docs/benchmarks.md with this section among those that it has."""
    stored = json.loads((_DOCS / "benchmarks.json").read_text())
    stored["whisper"] = section
    remarks = (_FOLDER / "remarks.md").read_text()
    write(stored, trl_options(), _DOCS, remarks)


def main() -> None:
    """Entry point."""
    args = arguments()
    case = WhisperCase(
        args.model, args.train, args.prompts, args.group_size, max_new_tokens=args.max_new_tokens
    )
    sizes = {
        name: value
        for name, value in case.as_dict().items()
        if name not in ("model", "train", "seed")
    }

    section: dict[str, Any] = {"rounds": {}}
    if args.out.is_file():
        section = json.loads(args.out.read_text())
        if section["sizes"] != sizes:
            raise SystemExit(
                f"{args.out} holds results of other sizes ({section['sizes']}); name another file"
            )

    args.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        answers = measure(replace(case, seed=seed), args.systems, args.steps, args.threads)
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        section["rounds"][f"{seed}: {', '.join(args.systems)}"] = answers
        section |= {
            "date": date,
            "machine": machine("cpu"),
            "threads": args.threads,
            "sizes": sizes,
            # Names alone: where the files lie is this machine's business.
            "model": Path(args.model).name,
            "train": Path(args.train).name,
        }
        args.out.write_text(json.dumps(section, indent=1) + "\n")

    print(comparison(section))
    if args.write_docs:
        write_section(section)


if __name__ == "__main__":
    main()

"""A million rows through every subset builder: rows/s of each, seconds in all, peak memory.

    python benchmarks/subset_builders.py                   # 1,000,000 rows with 4 hypotheses each
    python benchmarks/subset_builders.py --rows 20000      # a look

Rows and hypotheses are made up and written to a temporary folder (1.5 GB for a million rows). A fresh process then
chooses every subset as `AsrRLDataModule` does: the manifest is checked and indexed, builders that read the same files
share a pass. Each keeps a fiftieth of the rows at most. No audio is read. The bar: 5 minutes and 1 GB (peak resident
memory of that process, libraries included) on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_audiorl.data.hypotheses import Predicted, Sample
    from lightning_audiorl.data.subsets import Candidate, Choice, Chosen, SubsetBuilder
    from lightning_audiorl.types import Utterance

BAR_ROWS, BAR_S, BAR_BYTES = 1_000_000, 300.0, 10**9
NUM_SAMPLES = 4
_WORDS_PER_S = 2.8


class Corpus:
    """Made-up rows and what a model might say: words by Zipf's law, some noise, long rows, errors and loops."""

    def __init__(self, num_rows: int, num_words: int = 50_000) -> None:
        self.num_rows = num_rows
        draw = random.Random(0)
        letters = "abcdefghijklmnoprstuvw"
        self._words = [
            "".join(draw.choices(letters, k=2 + len(str(rank)))) + letters[rank % 22] for rank in range(num_words)
        ]
        self._weights = list(accumulate(1 / (rank + 10) for rank in range(num_words)))

    def row(self, number: int) -> Utterance:
        from lightning_audiorl.types import Segment, Utterance

        draw = random.Random(number)
        if number % 33 == 0:
            words, kind, seconds = [], {"kind": "hum"}, 1 + 9 * draw.random()
        else:
            words = draw.choices(self._words, cum_weights=self._weights, k=1 + int(draw.expovariate(1 / 14)))
            if number % 50 == 0:
                words = words[:3] * 2 + words
            kind, seconds = {}, 0.5 + len(words) / _WORDS_PER_S
        name = f"part{number // 1000:04d}/clip{number:07d}.wav"
        segment = Segment(name, round(seconds, 2))
        return Utterance(f"clip{number:07d}", (segment,), " ".join(words), segment.duration_s or 0.0, extra=kind)

    def predicted(self, row: Utterance, number: int) -> Predicted:
        from lightning_audiorl.data.hypotheses import Predicted, row_fingerprint

        draw = random.Random(-1 - number)
        skill = draw.random()
        samples = tuple(self._sample(row.text, skill, draw, sample) for sample in range(NUM_SAMPLES))
        return Predicted(row.id, "base", row.text, row_fingerprint(row), samples, 0.01)

    def _sample(self, reference: str, skill: float, draw: random.Random, number: int) -> Sample:
        from lightning_audiorl.data.hypotheses import Sample
        from lightning_audiorl.text import KeywordCounts, count_errors

        words, rules = reference.split(), ()
        if draw.random() > skill:
            for place in range(len(words)):
                if draw.random() < 0.1:
                    words[place] = draw.choice(self._words)
        if words and draw.random() < 0.03:
            words, rules = words + words[-1:] * 9, ("loop",)
        text = " ".join(words)
        errors = count_errors(reference, text)
        return Sample(text, "sampled", number, -1.5 * len(words), len(words) + 1, True, errors, rules, KeywordCounts())


def make(folder: Path, num_rows: int) -> None:
    """Write ``manifest.jsonl`` and ``hypotheses.jsonl``."""
    from lightning_audiorl.data.hypotheses import to_line
    from lightning_audiorl.data.manifest import write_manifest

    corpus = Corpus(num_rows)
    with (folder / "hypotheses.jsonl").open("w", encoding="utf-8") as file:

        def rows() -> Iterator[Utterance]:
            for number in range(num_rows):
                row = corpus.row(number)
                file.write(to_line(corpus.predicted(row, number)) + "\n")
                yield row

        write_manifest(rows(), folder / "manifest.jsonl")


def builders(num_rows: int) -> dict[str, SubsetBuilder]:
    """Every builder, in the order of passes: rows alone, hypotheses, like another subset."""
    from lightning_audiorl.data import subsets as s

    most = max(1, num_rows // 50)
    return {
        "everything": s.Everything(most),
        "random": s.RandomControl(most),
        "short": s.Length(most, min_s=0, max_s=20),
        "long": s.Length(most),
        "noise": s.EmptyReference(most),
        "repeated": s.RepeatedPhrases(most),
        "keywords": s.KeywordHeavy(most, keywords=[f"word{n}" for n in range(1000)], rare_below=20),
        "hard": s.Hard(most),
        "hallucinating": s.Hallucinating(most),
        "learnable": s.Learnable(most),
        "control": s.RandomControl(like="hallucinating"),
    }


class Clock:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose calls are clocked under ``name``."""

        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            self.seconds[name] += time.perf_counter() - start
            return result

        return call

    def watch(self, name: str, builder: SubsetBuilder) -> None:
        """Clock what the builder surveys and judges, in copies of it too."""
        kind = type(builder)
        methods = {method: self.timed(name, getattr(kind, method)) for method in ("survey", "judge")}
        builder.__class__ = type(kind.__name__, (kind,), methods)


def measure(folder: Path) -> dict[str, Any]:
    """Choose every subset; what took how long."""
    start = time.perf_counter()
    from lightning_audiorl.data.hypotheses import HypothesisFiles
    from lightning_audiorl.data.manifest import IndexedManifest
    from lightning_audiorl.data.subsets import Candidate, base

    clock = Clock()
    clock.seconds["imports"] = time.perf_counter() - start
    rows = clock.timed("index of the manifest", IndexedManifest)(str(folder / "manifest.jsonl"), True, False)
    files = clock.timed("index of the hypotheses", HypothesisFiles)([str(folder / "hypotheses.jsonl")])
    every = builders(len(rows))
    for name, builder in every.items():
        clock.watch(name, builder)
    hypotheses_of = clock.timed("hypotheses read", files.of)

    def plain() -> Iterator[Candidate]:
        return (Candidate(number, row) for number, row in enumerate(rows))

    def decoded() -> Iterator[Candidate]:
        return (Candidate(number, row, hypotheses_of(row)) for number, row in enumerate(rows))

    chosen: dict[str, Chosen] = {}
    free = {name: builder for name, builder in every.items() if builder.like is None}
    for needs, candidates in ((False, plain), (True, decoded)):
        group = {name: builder for name, builder in free.items() if builder.needs_hypotheses == needs}
        chosen |= base.choose_many(group, candidates, 0)

    def kept(name: str) -> list[Choice]:
        return base.fill(every[name], chosen[name].choices, lambda choice: True)

    every["control"].matches([rows[choice.number] for choice in kept("hallucinating")])
    chosen |= base.choose_many({"control": every["control"]}, plain, 0)
    total = time.perf_counter() - start
    return {
        "rows": len(rows),
        "total_s": total,
        "seconds": dict(clock.seconds),
        "builders": {name: type(builder).__name__ for name, builder in every.items()},
        "kept": {
            name: len(base.fill(every[name], found.choices, lambda choice: True)) for name, found in chosen.items()
        },
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def report(found: dict[str, Any]) -> str:
    """The figures as a table, and the bars."""
    seconds, num_rows = found["seconds"], found["rows"]
    lines = [f"{'':30}{'s':>8}{'rows/s':>12}{'rows kept':>12}"]
    for name, builder in found["builders"].items():
        rate = num_rows / seconds[name]
        lines.append(f"{name + ' (' + builder + ')':30}{seconds[name]:8.1f}{rate:12,.0f}{found['kept'][name]:12,}")
    others = [name for name in seconds if name not in found["builders"]]
    lines += [f"{name:30}{seconds[name]:8.1f}" for name in others]
    lines.append(f"{'rows read, places drawn':30}{found['total_s'] - sum(seconds.values()):8.1f}")
    reached = (("time", found["total_s"], BAR_S, "s"), ("memory", found["peak_bytes"] / 1e6, BAR_BYTES / 1e6, "MB"))
    for what, value, bar, unit in reached:
        verdict = "no verdict on fewer rows" if num_rows < BAR_ROWS else "met" if value <= bar else "MISSED"
        lines.append(f"{what}: {value:,.0f} {unit} for {num_rows:,} rows; bar {bar:,.0f} {unit}: {verdict}")
    return "\n".join(lines)


def _fresh(step: str, args: argparse.Namespace, folder: Path) -> str:
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--rows", str(args.rows)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--step", choices=["make", "measure"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "make":
        make(args.folder, args.rows)
    elif args.step == "measure":
        print(json.dumps(measure(args.folder)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            _fresh("make", args, Path(folder))
            found = json.loads(_fresh("measure", args, Path(folder)).splitlines()[-1])
        found["cores"] = len(os.sched_getaffinity(0))
        print(report(found))
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

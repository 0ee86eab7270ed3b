"""A million rows through every subset builder: rows/s of each, time in all, peak memory.

    python benchmarks/subset_builders.py                   # 1,000,000 rows with 4 hypotheses each
    python benchmarks/subset_builders.py --rows 20000      # a look
    git worktree add /tmp/earlier COMMIT && python benchmarks/subset_builders.py --beside /tmp/earlier --write-docs

Rows and hypotheses are made up and written to a temporary folder (1.5 GB for a million rows). A fresh process then
chooses every subset as `AsrRLDataModule` does: the manifest is checked and indexed, builders that read the same files
share a pass. Each keeps a fiftieth of the rows at most. No audio is read. The bar: 200 s and 700 MB (peak resident
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
from dataclasses import replace
from itertools import accumulate, cycle
from pathlib import Path
from statistics import median
from typing import Any

from lightning_audiorl.data.hypotheses.reader import (
    HypothesisFiles,
    Predicted,
    Sample,
    row_fingerprint,
    to_line,
)
from lightning_audiorl.data.manifest.files import IndexedManifest, write_manifest
from lightning_audiorl.data.manifest.source import PickedRows
from lightning_audiorl.data.mix import selection
from lightning_audiorl.data.mix.selection import (
    Candidate,
    Choice,
    Chosen,
    SubsetBuilder,
    choose_many,
    fill,
)
from lightning_audiorl.text import KeywordCounts, count_errors
from lightning_audiorl.types import Segment, Utterance

BAR_ROWS, BAR_S, BAR_BYTES = 1_000_000, 200.0, 700 * 10**6
NUM_SAMPLES = 4
PAGE = Path(__file__).parents[1] / "docs" / "rl_data.md"
BEGIN = "<!-- builders: begin; written by `python benchmarks/subset_builders.py --beside ... --write-docs` -->"
END = "<!-- builders: end -->"
_WORDS_PER_S, _MEAN_WORDS = 2.8, 14


class Corpus:
    """Made-up rows and what a model might say: words by Zipf's law, some noise, long rows, errors and loops.

    Texts repeat after ``num_texts`` rows, further apart than any builder remembers them; ids and files do not.
    """

    def __init__(self, num_texts: int = 20_000, num_words: int = 100_000) -> None:
        self._draw = random.Random(0)
        letters = "abcdefghijklmnoprstuvw"
        lengths = [3 + len(str(rank)) for rank in range(num_words)]
        self._words = ["".join(self._draw.choices(letters, k=length)) for length in lengths]
        self._weights = list(accumulate(1 / (rank + 10) for rank in range(num_words)))
        self._rows = [self._row(number) for number in range(num_texts)]
        self._lines = [to_line(self._predicted(row.text)) for row in self._rows]

    def row(self, number: int) -> Utterance:
        """A manifest row."""
        row = self._rows[number % len(self._rows)]
        segment = Segment(f"part{number // 1000:04d}/clip{number:07d}.wav", row.duration_s)
        return replace(row, id=f"clip{number:07d}", segments=(segment,))

    def line(self, row: Utterance, number: int) -> str:
        """The line of its hypotheses."""
        line = self._lines[number % len(self._lines)]
        return line.replace("{id}", row.id, 1).replace("{fingerprint}", row_fingerprint(row), 1)

    def _row(self, number: int) -> Utterance:
        if number % 33 == 0:
            return Utterance("", (), "", round(self._draw.uniform(1, 10), 2), extra={"kind": "hum"})
        num_words = 1 + int(self._draw.expovariate(1 / _MEAN_WORDS))
        words = self._draw.choices(self._words, cum_weights=self._weights, k=num_words)
        if number % 50 == 0:
            words = words[:3] * 2 + words
        return Utterance("", (), " ".join(words), round(0.5 + len(words) / _WORDS_PER_S, 2))

    def _predicted(self, reference: str) -> Predicted:
        skill = self._draw.random()
        samples = tuple(self._sample(reference, skill, number) for number in range(NUM_SAMPLES))
        return Predicted("{id}", "base", reference, "{fingerprint}", samples, 0.01)

    def _sample(self, reference: str, skill: float, number: int) -> Sample:
        words, rules = reference.split(), ()
        if self._draw.random() > skill:
            words = [
                self._draw.choice(self._words) if self._draw.random() < 0.1 else word
                for word in words
            ]
        if words and self._draw.random() < 0.03:
            words, rules = words + words[-1:] * 9, ("loop",)

        text = " ".join(words)
        errors = count_errors(reference, text)
        return Sample(
            text,
            "sampled",
            number,
            -1.5 * len(words),
            len(words) + 1,
            True,
            errors,
            rules,
            KeywordCounts(),
        )


def make(folder: Path, num_rows: int) -> None:
    """Write ``manifest.jsonl`` and ``hypotheses.jsonl``."""
    corpus = Corpus()
    with (folder / "hypotheses.jsonl").open("w", encoding="utf-8") as file:

        def rows() -> Iterator[Utterance]:
            for number in range(num_rows):
                row = corpus.row(number)
                file.write(corpus.line(row, number) + "\n")
                yield row

        write_manifest(rows(), folder / "manifest.jsonl")


def builders(num_rows: int) -> dict[str, SubsetBuilder]:
    """Every builder."""
    most = max(1, num_rows // 50)
    return {
        "everything": selection.Everything(most),
        "random": selection.RandomControl(most),
        "short": selection.Length(most, min_s=0, max_s=20),
        "long": selection.Length(most),
        "noise": selection.EmptyReference(most),
        "repeated": selection.RepeatedPhrases(most),
        "keywords": selection.KeywordHeavy(
            most, keywords=[f"word{n}" for n in range(1000)], rare_below=max(20, num_rows // 10_000)
        ),
        "hard": selection.Hard(most),
        "hallucinating": selection.Hallucinating(most),
        "learnable": selection.Learnable(most),
        "rarely_right": selection.RarelyRight(most, nothing_right=True),
        "control": selection.RandomControl(like="hallucinating"),
    }


class Clock:
    """Seconds by name; of what is called for each row every sixteenth call is clocked, and stands for the others."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def sampled(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, of whose calls some are clocked: looking at the clock takes as long as many a rule."""
        clocked = self.timed(name, function, 16)
        turns = cycle([*[function] * 8, clocked, *[function] * 7])
        return lambda *args: next(turns)(*args)

    def timed(self, name: str, function: Callable[..., Any], weight: int = 1) -> Callable[..., Any]:
        """``function``, whose calls are clocked under ``name``."""

        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            self.seconds[name] += (time.perf_counter() - start) * weight
            return result

        return call

    def watch(self, name: str, builder: SubsetBuilder) -> None:
        """Clock what the builder surveys and judges, in copies of it too."""
        kind = type(builder)
        methods = {
            method: self.sampled(name, getattr(kind, method)) for method in ("survey", "judge")
        }
        builder.__class__ = type(kind.__name__, (kind,), methods)


def measure(folder: Path) -> dict[str, Any]:
    """Choose every subset; what took how long."""
    start, clock = time.perf_counter(), Clock()
    rows = clock.timed("index of the manifest", IndexedManifest)(
        str(folder / "manifest.jsonl"), True, False
    )
    every = builders(len(rows))
    for name, builder in every.items():
        clock.watch(name, builder)

    def plain() -> Iterator[Candidate]:
        return (Candidate(number, row) for number, row in enumerate(rows))

    def decoded() -> Iterator[Candidate]:
        return (Candidate(number, row, hypotheses_of(row)) for number, row in enumerate(rows))

    chosen: dict[str, Chosen] = {}

    def choose_those(
        which: Callable[[SubsetBuilder], bool], candidates: Callable[[], Iterator[Candidate]]
    ) -> None:
        group = {name: builder for name, builder in every.items() if which(builder)}
        chosen.update(choose_many(group, candidates, 0, surveyed=plain))

    def kept(name: str) -> list[Choice]:
        return fill(every[name], chosen[name].choices, lambda choice: True)

    files = clock.timed("index of the hypotheses", HypothesisFiles)(
        [str(folder / "hypotheses.jsonl")]
    )
    hypotheses_of = clock.sampled("hypotheses read", files.of)
    choose_those(lambda builder: builder.like is None, decoded)
    # Row by row, as they are read from the subset's own manifest.
    like = PickedRows(rows, [choice.number for choice in kept("hallucinating")])
    every["control"].matches(like)
    choose_those(lambda builder: builder.like is not None, plain)
    return {
        "rows": len(rows),
        "work_s": time.perf_counter() - start,
        "cpu_s": time.process_time(),
        "seconds": dict(clock.seconds),
        "builders": {name: type(builder).__name__ for name, builder in every.items()},
        "kept": {name: len(kept(name)) for name in every},
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def report(found: dict[str, Any]) -> str:
    """The figures as a table, and the bars."""
    seconds, num_rows = found["seconds"], found["rows"]
    lines = [f"{'':32}{'s':>8}{'rows/s':>12}{'rows kept':>12}"]
    for name, builder in found["builders"].items():
        rate = num_rows / seconds[name]
        lines.append(
            f"{name + ' (' + builder + ')':32}{seconds[name]:8.1f}{rate:12,.0f}{found['kept'][name]:12,}"
        )

    rest = {name: seconds[name] for name in seconds if name not in found["builders"]}
    rest |= {"rows read, places drawn": found["work_s"] - sum(seconds.values())}
    rest |= {"imports": found["total_s"] - found["work_s"], "all": found["total_s"]}
    lines += [f"{name:32}{rest_s:8.1f}{num_rows / rest_s:12,.0f}" for name, rest_s in rest.items()]
    lines.append(
        f"processor time: {found['cpu_s']:.0f} s; where that is far less than the time, others used the cores"
    )

    reached = (
        ("time", found["total_s"], BAR_S, "s"),
        ("memory", found["peak_bytes"] / 1e6, BAR_BYTES / 1e6, "MB"),
    )

    for what, value, bar, unit in reached:
        verdict = (
            "no verdict on fewer rows"
            if num_rows < BAR_ROWS
            else "met"
            if value <= bar
            else "MISSED"
        )
        lines.append(
            f"{what}: {value:,.0f} {unit} for {num_rows:,} rows; bar {bar:,.0f} {unit}: {verdict}"
        )
    return "\n".join(lines)


def beside(
    found: dict[str, Any], earlier: Path, args: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """This build and an earlier one in turn, on the same files: seconds, processor seconds, memory of each run.

    Each build is measured by its own benchmark, which does what its `AsrRLDataModule` does.
    """
    runs: dict[str, list[dict[str, Any]]] = {"earlier": [], "this": [found]}
    for number in range(args.rounds):
        # The order turns round: a machine grows slower or faster while it is measured.
        order = ["earlier", "this"] if number % 2 == 0 else ["this", "earlier"]
        for name in order:
            if name == "this" and number == 0:
                continue
            root = earlier if name == "earlier" else Path(__file__).parents[1]
            runs[name].append(json.loads(_fresh("measure", args, folder, root).splitlines()[-1]))
    return {
        name: {key: [run[key] for run in ones] for key in ("work_s", "cpu_s", "peak_bytes", "kept")}
        for name, ones in runs.items()
    }


def page(both: dict[str, Any], num_rows: int) -> str:
    """The two builds as a table, and how many times as fast this one is."""
    lines = ["| build | seconds | processor seconds | peak MB |", "| --- | --- | --- | --- |"]
    for name, runs in both.items():
        cells = [", ".join(f"{value:.0f}" for value in runs[key]) for key in ("work_s", "cpu_s")]
        peak = max(runs["peak_bytes"]) / 1e6
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {peak:.0f} |")
    ratio = median(both["earlier"]["cpu_s"]) / median(both["this"]["cpu_s"])
    same = all(kept == both["this"]["kept"][0] for runs in both.values() for kept in runs["kept"])
    lines += [
        "",
        f"{num_rows:,} rows, all builders with {NUM_SAMPLES} hypotheses a row and a control, one process, "
        f"{len(os.sched_getaffinity(0))} cores shared with other work; {ratio:.1f} times fewer processor seconds; as "
        f"many rows kept by every builder: {'yes' if same else 'NO'}.",
    ]
    return "\n".join(lines)


def write_page(table: str) -> None:
    """Put the table between its two marks in docs/rl_data.md."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _fresh(step: str, args: argparse.Namespace, folder: Path, root: Path | None = None) -> str:
    root = Path(__file__).parents[1] if root is None else root
    command = [
        sys.executable,
        str(root / "benchmarks" / "subset_builders.py"),
        "--step",
        step,
        "--folder",
        str(folder),
        "--rows",
        str(args.rows),
    ]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument(
        "--beside", type=Path, help="checkout of an earlier build, measured in turn with this one"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="measurements of each build, with --beside"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write what --beside found to docs/rl_data.md"
    )
    parser.add_argument("--step", choices=["make", "measure"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.step == "make":
        make(args.folder, args.rows)
    elif args.step == "measure":
        print(json.dumps(measure(args.folder)))
    else:
        # Each step in a process of its own: peak memory is that of the measured one alone.
        with tempfile.TemporaryDirectory() as folder:
            _fresh("make", args, Path(folder))
            start = time.perf_counter()
            found = json.loads(_fresh("measure", args, Path(folder)).splitlines()[-1])
            found["total_s"] = time.perf_counter() - start
            both = beside(found, args.beside, args, Path(folder)) if args.beside else None

        found["cores"] = len(os.sched_getaffinity(0))
        print(report(found))
        if both is not None:
            table = page(both, args.rows)
            print(table)
            if args.write_docs:
                write_page(table)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

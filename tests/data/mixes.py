"""Small manifests with audio, and rules of choice, for the tests of RL mixes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile

from lightning_audiorl.data.hypotheses.reader import Predicted, Sample, row_fingerprint, to_line
from lightning_audiorl.data.manifest.files import read_manifest
from lightning_audiorl.data.mix.build import MixPlan
from lightning_audiorl.data.mix.selection import Candidate, SubsetBuilder, Verdict
from lightning_audiorl.data.mix.spec import RLSubset
from lightning_audiorl.text import KeywordCounts, count_errors
from lightning_audiorl.types import Utterance

RATE_HZ = 8000


def write_noise(path: Path, seed: int, seconds: float = 0.1) -> Path:
    """Noise of 16 bits per sample, so that every lossless format holds the same numbers."""
    samples = np.random.default_rng(seed).integers(
        -8000, 8000, round(seconds * RATE_HZ), dtype=np.int16
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
    return path


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_set(folder: Path, name: str, num_rows: int, seed: int) -> str:
    """A manifest ``<name>.jsonl`` of rows ``<name>0``, ``<name>1``, ...; each row says words of its own number."""
    rows = []
    for i in range(num_rows):
        audio = write_noise(folder / name / f"{i}.wav", seed + i, 0.1 + 0.01 * i)
        rows.append(
            {
                "id": f"{name}{i}",
                "audio_filepath": str(audio.relative_to(folder)),
                "text": f"say {i}",
            }
        )
    return write_rows(folder / f"{name}.jsonl", rows)


class HighFirst(SubsetBuilder):
    """Keeps rows whose number in the text is at least ``low``, the highest numbers first."""

    judged: ClassVar[list[str]] = []

    def __init__(self, num_rows: int | None = None, low: int = 0) -> None:
        super().__init__(num_rows)
        self.low = low

    def judge(self, candidate: Candidate) -> Verdict:
        self.judged.append(candidate.row.id)
        number = int(candidate.row.text.split()[-1])
        if number < self.low:
            return Verdict(False, f"number below {self.low}")
        return Verdict(True, f"number {number}", float(number))


def write_hypotheses(path: Path, manifest: str, wrong: Sequence[str]) -> str:
    """Two samples per row, as ``audiorl predict`` writes them; those of the rows in ``wrong`` fell into a loop."""
    lines = []
    for row in read_manifest(manifest):
        text = row.text + (" again again again" if row.id in wrong else "")
        errors, keywords = count_errors(row.text, text), KeywordCounts(0, 0, 0)
        rules = ("loop",) if row.id in wrong else ()
        samples = tuple(
            Sample(text, "sampled", i, -1.0, 4, True, errors, rules, keywords) for i in range(2)
        )
        lines.append(to_line(Predicted(row.id, "m", row.text, row_fingerprint(row), samples, 0.1)))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def plan(folder: Path, subsets: dict[str, RLSubset], **settings: Any) -> MixPlan:
    cache = {"cache_dir": str(folder / "mixes"), "content_cache": str(folder / "content.sqlite")}
    return MixPlan(subsets, **(cache | settings))


def built(folder: Path, name: str) -> list[Utterance]:
    """The rows of one subset of a built mix."""
    return read_manifest(folder / f"{name}.jsonl", allow_empty_text=True)


def ids(folder: Path, name: str) -> list[str]:
    return [row.id for row in built(folder, name)]

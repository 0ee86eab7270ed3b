"""What a file of hypotheses says on the whole, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lightning_audiorl.data.hypotheses.reader import read_hypotheses
from lightning_audiorl.text import ErrorCounts

_TITLES = ("model", "decoding", "rows", "samples")


@dataclass
class _Model:
    """Sums over the lines of one model, and by decoding."""

    num_rows: int = 0
    seconds: float = 0.0
    errors: dict[str, ErrorCounts] = field(default_factory=dict)
    num_samples: Counter[str] = field(default_factory=Counter)
    num_fired: Counter[str] = field(default_factory=Counter)


def summary(path: str | Path, units: frozenset[str] = frozenset({"word"})) -> str:
    """One line per model and decoding: rows, samples, error rate over all samples, share of samples with a fired rule.

    Args:
        path: the file.
        units: what its errors are counted in, "word" or "char" or both; names the error rate.
    """
    models: dict[str, _Model] = {}
    for one in read_hypotheses(path):
        model = models.setdefault(one.model, _Model())
        model.num_rows += 1
        model.seconds += one.seconds
        for sample in one.samples:
            model.errors[sample.decoding] = model.errors.get(sample.decoding, ErrorCounts()) + sample.errors
            model.num_samples[sample.decoding] += 1
            model.num_fired[sample.decoding] += bool(sample.rules)
    rate = "/".join(name for unit, name in (("word", "WER"), ("char", "CER")) if unit in units)
    table: list[tuple[str, ...]] = [(*_TITLES, rate, "hallucination rate", "seconds (all decodings)")]
    for name, model in models.items():
        for decoding, errors in model.errors.items():
            number = model.num_samples[decoding]
            error_rate = f"{errors.rate:.4f}" if errors.reference_length else "-"
            fired = f"{model.num_fired[decoding] / number:.4f}"
            table.append((name, decoding, str(model.num_rows), str(number), error_rate, fired, f"{model.seconds:.2f}"))
    return _aligned(table)


def _aligned(table: list[tuple[str, ...]]) -> str:
    """Columns of one width each: names to the left, figures to the right."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = []
    for line in table:
        names = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        figures = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        lines.append("  ".join([*names, *figures]))
    return "\n".join(lines)

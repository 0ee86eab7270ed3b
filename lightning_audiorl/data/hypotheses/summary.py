"""What a file of hypotheses says on the whole, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lightning_audiorl.data.hypotheses.schema import Predicted, read_hypotheses
from lightning_audiorl.text import ErrorCounts

_TITLES = ("model", "decoding", "rows", "samples")
# Not the metric `hallucination_rate`, which goes by the alignment: the rules are those that choose training rows.
_FIRED = "rules fired (%)"


@dataclass
class _Model:
    """Sums over the lines of one model, and by decoding."""

    num_rows: int = 0
    seconds: float = 0.0
    errors: dict[str, ErrorCounts] = field(default_factory=dict)
    num_samples: Counter[str] = field(default_factory=Counter)
    num_fired: Counter[str] = field(default_factory=Counter)
    biased: dict[str, ErrorCounts] = field(default_factory=dict)
    # Lines of a file that was begun before the words of keywords were counted apart.
    has_uncounted: bool = False

    def add(self, predicted: Predicted) -> None:
        self.num_rows += 1
        self.seconds += predicted.seconds
        for sample in predicted.samples:
            decoding = sample.decoding
            self.errors[decoding] = self.errors.get(decoding, ErrorCounts()) + sample.errors
            self.num_samples[decoding] += 1
            self.num_fired[decoding] += bool(sample.rules)
            if sample.biased is not None:
                self.biased[decoding] = self.biased.get(decoding, ErrorCounts()) + sample.biased
            elif sample.keywords.in_reference:
                self.has_uncounted = True


def summary(path: str | Path, units: frozenset[str] = frozenset({"word"})) -> str:
    """One line per model and decoding: rows, samples, error rate over all samples, share of samples with a fired rule.

    Rates are percent, as in the tables of a run. Where rows have keywords, also the error rate of the words in them
    (B-WER), and that of all others (U-WER).

    Args:
        path: the file.
        units: what its errors are counted in, "word" or "char" or both; names the error rate.

    Raises:
        HypothesisError: a line that cannot be read, naming file, line and field.
    """
    models: dict[str, _Model] = {}
    for predicted in read_hypotheses(path):
        models.setdefault(predicted.model, _Model()).add(predicted)

    rates = [name for unit, name in (("word", "WER"), ("char", "CER")) if unit in units]
    has_keywords = any(model.biased for model in models.values())
    if any(model.has_uncounted for model in models.values()):
        has_keywords = False
    apart = [f"{part}-{'/'.join(rates)} (%)" for part in "BU"] if has_keywords else []
    titles = (*_TITLES, f"{'/'.join(rates)} (%)", *apart, _FIRED, "seconds (all decodings)")

    table: list[tuple[str, ...]] = [titles]
    for name, model in models.items():
        for decoding, errors in model.errors.items():
            num_samples = model.num_samples[decoding]
            line = (
                name,
                decoding,
                str(model.num_rows),
                str(num_samples),
                # Over references without a word there is no error rate.
                f"{100 * errors.rate:.1f}" if errors.reference_length else "-",
                *(_apart(errors, model.biased.get(decoding)) if has_keywords else ()),
                f"{100 * model.num_fired[decoding] / num_samples:.1f}",
                f"{model.seconds:.2f}",
            )
            table.append(line)
    return _aligned(table)


def _apart(errors: ErrorCounts, biased: ErrorCounts | None) -> tuple[str, str]:
    """The error rates of the words in keywords, and of all others; a dash where there are none."""
    if biased is None:
        biased = ErrorCounts()
    num_others = errors.reference_length - biased.reference_length
    num_wrong = errors.errors - biased.errors
    return (
        f"{100 * biased.rate:.1f}" if biased.reference_length else "-",
        f"{100 * num_wrong / num_others:.1f}" if num_others else "-",
    )


def _aligned(table: list[tuple[str, ...]]) -> str:
    """Columns of one width each: the two names to the left, numbers to the right."""
    columns = zip(*table, strict=True)
    widths = [max(map(len, column)) for column in columns]

    lines = []
    for line in table:
        cells = []
        for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
            cells.append(cell.ljust(width) if column < 2 else cell.rjust(width))
        lines.append("  ".join(cells))
    return "\n".join(lines)

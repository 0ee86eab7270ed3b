"""What a file of hypotheses says of rows whose right answer is rarely sampled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lightning_audiorl.data.hypotheses.schema import Predicted, Sample, read_hypotheses

#: Share of a kind's groups above which it is warned of.
MOST = 0.5


def is_right(sample: Sample, max_error_rate: float = 0.0) -> bool:
    """Whether a hypothesis is the reference, but for so many errors per word; beside no text only no text is."""
    return sample.errors.rate <= max_error_rate


@dataclass
class _Rows:
    """Counts of the rows of one model with text, or of those without."""

    num_rows: int = 0
    num_groups: int = 0
    num_nothing_right: int = 0
    num_stuck: int = 0
    log_probs: list[float] = field(default_factory=list)

    def add(self, predicted: Predicted, is_empty: bool) -> None:
        self.num_rows += 1
        if predicted.reference_logprob is not None:
            self.log_probs.append(predicted.reference_logprob)

        # One hypothesis alone says nothing of what is sampled.
        for _, samples in groupby(predicted.samples, key=lambda sample: sample.decoding):
            group = list(samples)
            if len(group) < 2:
                continue
            self.num_groups += 1
            if any(map(is_right, group)):
                continue
            self.num_nothing_right += 1
            # Where errors differ, the better of wrong transcripts teach.
            rates = {sample.errors.rate for sample in group}
            self.num_stuck += is_empty or len(rates) == 1

    def lines(self, title: str) -> list[str]:
        """What there is to say."""
        parts = []
        if self.num_groups:
            share = 100 * self.num_nothing_right / self.num_groups
            parts.append(
                f"no right hypothesis in {share:.1f} % of {self.num_groups} sampled groups"
            )
        if self.log_probs:
            mean = math.fsum(self.log_probs) / len(self.log_probs)
            parts.append(f"log-probability of the reference {mean:.2f}")
            probability = math.fsum(map(math.exp, self.log_probs)) / len(self.log_probs)
            parts.append(f"probability {probability:.4f}")
        return [f"{title} ({self.num_rows} rows): {', '.join(parts)}"] if parts else []

    @property
    def is_rarely_right(self) -> bool:
        return self.num_stuck > MOST * self.num_groups


def rarely_right(path: str | Path) -> str:
    """How often nothing right was sampled and how probable the references are, by model; a warning where that is rare.

    Args:
        path: the file.

    Returns:
        Lines of text; "" for a file of single hypotheses without log-probabilities of the references.

    Raises:
        HypothesisError: a line that cannot be read, naming file, line and field.
    """
    models: dict[str, dict[str, _Rows]] = {}
    for predicted in read_hypotheses(path):
        is_empty = not predicted.reference.strip()
        title = "rows without text" if is_empty else "rows with text"
        rows = models.setdefault(predicted.model, {}).setdefault(title, _Rows())
        rows.add(predicted, is_empty)

    lines: list[str] = []
    for model, kinds in models.items():
        num_rows = sum(rows.num_rows for rows in kinds.values())
        for title, rows in kinds.items():
            lines += rows.lines(f"{model}, {title}")
            if rows.is_rarely_right:
                share = 100 * rows.num_rows / num_rows
                lines.append(
                    f"WARNING: for {title} ({share:.0f} % of all) the right answer is rarely sampled; GRPO on them "
                    "learns little. Set reference_sample: {} or sft_weight (a second loss, CrossEntropy, with a "
                    "schedule), or choose rows with RarelyRight; see docs/rarely_right.md"
                )
    return "\n".join(lines)

"""What a manifest that was written holds, in a few lines."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from lightning_audiorl.types import Utterance

#: Languages that are named one by one.
_MOST_NAMED = 8


@dataclass
class RowSummary:
    """Counts over rows.

    Example:
        >>> summary = RowSummary()
        >>> summary.add(Utterance("a", (), "hello", 1800.0, speaker="ann"))
        >>> print(summary.text(Counter({"no text": 2})))
        rows       1
        hours      0.50
        speakers   1
        languages  en 1
        durations  1800.00 to 1800.00 s, median 1800.00 s
        left out   2 (2 x no text)
    """

    speakers: set[str] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)
    durations_s: array[float] = field(default_factory=lambda: array("d"))

    def add(self, row: Utterance) -> None:
        """Count a row."""
        if row.speaker:
            self.speakers.add(row.speaker)
        self.languages[row.lang] += 1
        self.durations_s.append(row.duration_s)

    @property
    def hours(self) -> float:
        """Hours of all rows."""
        return sum(self.durations_s) / 3600

    def text(self, skipped: Counter[str]) -> str:
        """The summary.

        Args:
            skipped: rows left out, by reason.
        """
        languages = [f"{lang} {count:,}" for lang, count in self.languages.most_common()]
        named = ", ".join(languages[:_MOST_NAMED])
        if len(languages) > _MOST_NAMED:
            named += f" and {len(languages) - _MOST_NAMED} others"

        low_s = min(self.durations_s)
        high_s = max(self.durations_s)
        middle_s = median(self.durations_s)
        reasons = [f"{count:,} x {reason}" for reason, count in skipped.most_common()]
        left_out = f"{skipped.total():,} ({', '.join(reasons)})" if skipped else "none"

        lines = {
            "rows": f"{len(self.durations_s):,}",
            "hours": f"{self.hours:.2f}",
            "speakers": f"{len(self.speakers):,}" if self.speakers else "not named",
            "languages": named,
            "durations": f"{low_s:.2f} to {high_s:.2f} s, median {middle_s:.2f} s",
            "left out": left_out,
        }
        return "\n".join(f"{name:11}{value}" for name, value in lines.items())

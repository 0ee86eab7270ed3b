"""Files of hypotheses: their schema, reading, writing and summary."""

from __future__ import annotations

from lightning_audiorl.data.hypotheses.reader import HypothesisFiles, row_fingerprint
from lightning_audiorl.data.hypotheses.schema import (
    HypothesisError,
    LineError,
    Predicted,
    Sample,
    SpeechSample,
    open_lines,
    parse_line,
    read_hypotheses,
    to_line,
)

__all__ = [
    "HypothesisError",
    "HypothesisFiles",
    "LineError",
    "Predicted",
    "Sample",
    "SpeechSample",
    "open_lines",
    "parse_line",
    "read_hypotheses",
    "row_fingerprint",
    "to_line",
]

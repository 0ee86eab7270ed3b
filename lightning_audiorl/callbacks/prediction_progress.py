"""One line that says how far ``audiorl predict`` is: rows, model, phase."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning import LightningModule

from lightning_audiorl.callbacks.progress import PhaseProgressBar, bar_text
from lightning_audiorl.callbacks.view import phase_view


class PredictionProgress(PhaseProgressBar):
    """Rows done of all rows, the model's name, the present phase, and the time left by seconds of audio.

    Args:
        model: name of the model.
        settings: of `PhaseProgressBar`.
    """

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.model = model

        # Rows done and all rows; seconds of audio done in this process and to be done in it, and when it began.
        self._rows = 0
        self._total = 0
        self._audio_s = 0.0
        self._total_s = 0.0
        self._start_s = 0.0

    def line(self) -> str:
        """The present state in one line."""
        bar = bar_text(self._rows, max(1, self._total), self.width)
        pieces = [f"{self.model}: {self._rows}/{self._total} rows {bar}"]
        if phase := self._clock.current:
            pieces.append(phase + self._held(phase))
        if self._audio_s:
            pieces.append(self._time_left())
        return "  ".join(pieces)

    def _time_left(self) -> str:
        # By audio: rows may differ a hundredfold in length.
        elapsed_s = time.monotonic() - self._start_s
        left_s = elapsed_s * (self._total_s / self._audio_s - 1)
        return f"{self._audio_s / elapsed_s:.1f} s of audio/s, {left_s:.0f} s left"

    def on_predict_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Begin to draw; rows of an earlier, interrupted process count as done."""
        data = trainer.datamodule
        self._rows = int(data.done.sum())
        self._total = data.survey.num_rows
        self._audio_s = 0.0
        self._total_s = sum(data.audio_s)
        self._start_s = time.monotonic()
        self._begin(phase_view(pl_module).clock)

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: LightningModule,
        *arguments: Any,
    ) -> None:
        """Count a batch; without a terminal each tenth of the rows leaves a line."""
        data = trainer.datamodule
        batch = arguments[2]
        before = 10 * self._rows // self._total
        self._rows += data.num_rows[batch]
        self._audio_s += data.audio_s[batch]

        is_tenth = 10 * self._rows // self._total > before
        if self._enabled and is_tenth and not sys.stdout.isatty():
            self._print_line()

    def on_predict_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Stop drawing; the last line stays."""
        self._end(leave=True)

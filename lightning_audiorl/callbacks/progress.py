"""One line that says where a run stands: RL step, phase, reward, KL."""

from __future__ import annotations

import logging
import math
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_audiorl.callbacks.view import RunView, run_view
from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.strategies import Phase, PhaseClock, rl_strategy

# RL steps whose mean stands beside the last value.
_AVERAGED = 10

_SHOWN = {"reward/mean": "reward", "kl": "kl", "loss": "loss"}


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> duration_text(75.2), duration_text(3675)
        ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"


def bar_text(done: int, total: int, width: int) -> str:
    """A bar of ``width`` characters.

    Example:
        >>> bar_text(1, 4, width=8)
        '[==      ]'
    """
    filled = width * done // total
    return f"[{'=' * filled}{' ' * (width - filled)}]"


def _metric_texts(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """Reward and KL of the last of some RL steps, or the loss where there is no reward; the first with its mean.

    A step's reward depends on which prompts it drew: one alone tells little.

    Example:
        >>> _metric_texts([{"reward/mean": 0.2, "kl": 0.0}, {"reward/mean": 0.4, "kl": 0.1}])
        ['reward 0.4 (mean of 2: 0.3)', 'kl 0.1']
    """
    if not steps:
        return []
    last = steps[-1]
    names = ["reward/mean", "kl"] if "reward/mean" in last else ["loss"]

    texts = []
    for name in names:
        known = [step[name] for step in steps if math.isfinite(step.get(name, math.nan))]
        if not math.isfinite(last.get(name, math.nan)):
            continue
        text = f"{_SHOWN[name]} {last[name]:.4g}"
        if name == names[0] and len(known) > 1:
            text += f" (mean of {len(known)}: {sum(known) / len(known):.4g})"
        texts.append(text)
    return texts


def _phase_seconds(metrics: dict[str, float]) -> dict[str, float]:
    """Seconds of each phase of an RL step, and of moving parts where any were moved."""
    seconds = {}
    for name, value in metrics.items():
        if name.startswith("seconds/"):
            seconds[name.removeprefix("seconds/")] = value
    if metrics.get("moving/mib"):
        seconds["moving"] = metrics["moving/seconds"]
    return seconds


class PhaseProgressBar(ProgressBar):
    """Shows RL steps of the run, the present phase, reward and KL (or the loss).

    On a terminal one line is drawn again and again; elsewhere a line is printed at each tenth of the run, and when
    none was for a while.

    Args:
        refresh_s: seconds between two drawings on a terminal.
        line_every_s: elsewhere, seconds after which a line is printed though no tenth is complete.
        width: characters of the bar.
    """

    def __init__(
        self,
        refresh_s: float = 0.5,
        line_every_s: float = 60.0,
        width: int = 20,
    ) -> None:
        super().__init__()
        check_number("PhaseProgressBar.refresh_s", refresh_s, above=0)
        check_number("PhaseProgressBar.line_every_s", line_every_s, above=0, infinite=True)
        check_count("PhaseProgressBar.width", width, at_least=1)
        self.refresh_s = refresh_s
        self.line_every_s = line_every_s
        self.width = width
        self._enabled = True

        # What is shown: the run, its present phase, the set that is evaluated, and the metrics of the last steps.
        self._run: RunView | None = None
        self._clock = PhaseClock()
        self._evaluating = ""
        self._recent: tuple[dict[str, float], ...] = ()

        # Steps of this process, and the seconds that they took.
        self._num_steps = 0
        self._steps_s = 0.0
        self._step_start_s = 0.0

        # Characters of the line on the terminal, and when one was printed last where there is none.
        self._drawn = 0
        self._last_line_s = 0.0

        # Two threads write: that of the hooks, and the one that draws between them.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # What has to be put back when nothing is drawn any more.
        self._above = ExitStack()

    def disable(self) -> None:
        """Show nothing; Lightning calls it on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show something again."""
        self._enabled = True

    # --- what is shown

    def line(self) -> str:
        """The present state in one line."""
        if self._run is None:
            return ""

        done = self._run.rl_step
        total = self._run.num_steps
        phase = self._clock.current

        if self._evaluating:
            pieces = [f"evaluating at RL step {done}: {self._evaluating}"]
            if phase:
                pieces.append(phase)
            return "  ".join(pieces)

        bar = bar_text(done, total, self.width)
        pieces = [f"RL step {done}/{total} {bar}"]
        if phase:
            pieces.append(phase + self._held(phase))
        metrics = _metric_texts(self._recent)
        if metrics:
            pieces.append("  ".join(metrics))
        if self._num_steps:
            step_s = self._steps_s / self._num_steps
            left = duration_text(step_s * (total - done))
            pieces.append(f"{step_s:.2f} s/step, {left} left")
        return " | ".join(pieces)

    def _held(self, phase: Phase) -> str:
        """What of the model is on the device, where a strategy keeps a ledger."""
        if self._trainer is None:
            return ""
        ledger = rl_strategy(self._trainer.strategy).ledger
        if ledger is None:
            return ""

        held = ledger.resident_bytes.get(phase, {})
        if not held:
            return ""
        mib = sum(held.values()) / 2**20
        return f" ({mib:.0f} MiB of parts on the device)"

    def _draw(self) -> None:
        """Draw the line over the last one."""
        # A line as wide as the terminal would wrap, and could not be drawn over.
        text = self.line()[: shutil.get_terminal_size().columns - 1]
        with self._lock:
            sys.stdout.write("\r" + text.ljust(self._drawn))
            sys.stdout.flush()
            self._drawn = len(text)

    def _clear(self) -> None:
        if self._drawn:
            sys.stdout.write("\r" + " " * self._drawn + "\r")
            self._drawn = 0

    def _print_line(self) -> None:
        """One line that stays; it ends with the seconds of each phase of the last step."""
        self._last_line_s = time.monotonic()
        line = self.line()
        seconds = _phase_seconds(self._recent[-1] if self._recent else {})
        if seconds and not self._evaluating:
            phases = ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items())
            line += f"  ({phases})"
        print(line, flush=True)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the line; Lightning prints through this."""
        with self._lock:
            self._clear()
            print(*args, **kwargs)

    def _wipe(self) -> None:
        """Make room for a message of somebody else."""
        with self._lock:
            self._clear()
            sys.stdout.flush()

    @contextmanager
    def _messages_above(self) -> Iterator[None]:
        """Within, log records and warnings find the line wiped; it is drawn anew below them."""
        make_record = logging.getLogRecordFactory()
        show_warning = warnings.showwarning

        def record_above(*args: Any, **kwargs: Any) -> logging.LogRecord:
            self._wipe()
            return make_record(*args, **kwargs)

        def warning_above(*args: Any, **kwargs: Any) -> None:
            self._wipe()
            show_warning(*args, **kwargs)

        logging.setLogRecordFactory(record_above)
        warnings.showwarning = warning_above
        try:
            yield
        finally:
            logging.setLogRecordFactory(make_record)
            warnings.showwarning = show_warning

    def _watch(self) -> None:
        """In a thread of its own, since a phase begins and ends where no hook is called."""
        while not self._stop.wait(self.refresh_s):
            if sys.stdout.isatty():
                self._draw()
            elif time.monotonic() - self._last_line_s > self.line_every_s:
                self._print_line()

    # --- hooks

    def _begin(self, clock: PhaseClock) -> None:
        """Draw from now on, with the phases that ``clock`` tells."""
        self._clock = clock
        if self._enabled and self._thread is None:
            self._last_line_s = time.monotonic()
            self._stop.clear()
            if sys.stdout.isatty():
                self._above.enter_context(self._messages_above())

            # A daemon: it must not keep alive a process whose training has failed.
            self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._thread.start()

    def _end(self, leave: bool = False) -> None:
        """Stop drawing; with ``leave`` the last line stays on a terminal."""
        if self._thread is None:
            return

        # The thread first: it must not draw over what is left here.
        self._stop.set()
        self._thread.join()
        self._thread = None
        self._above.close()

        if leave and sys.stdout.isatty():
            self._draw()
            sys.stdout.write("\n")
            self._drawn = 0
        self._clear()

    def _follow(self, run: RunView) -> None:
        self._run = run
        self._begin(run.clock)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to draw."""
        self._follow(run_view(pl_module))

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,
    ) -> None:
        """An RL step begins."""
        self._step_start_s = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,
    ) -> None:
        """An RL step ends; without a terminal each tenth of the run leaves a line."""
        self._steps_s += time.monotonic() - self._step_start_s
        self._num_steps += 1

        run = run_view(pl_module)
        # A new tuple each time: the thread that draws may be reading the last one.
        self._recent = (*self._recent, run.step_metrics)[-_AVERAGED:]
        done = run.rl_step
        total = run.num_steps
        # In a file nobody sees a line move; ten of them tell a run.
        is_tenth = 10 * done // total > 10 * (done - 1) // total
        if self._enabled and is_tenth and not sys.stdout.isatty():
            self._print_line()

    def _on_evaluation_start(
        self,
        run: RunView,
        batch_idx: int,
        dataloader_idx: int,
        totals: Any,
    ) -> None:
        names = list(run.last_hypotheses)
        name = f"set {dataloader_idx}"
        if dataloader_idx < len(names):
            name = names[dataloader_idx]
        total = totals[dataloader_idx] if isinstance(totals, list) else totals

        first = not self._evaluating
        self._evaluating = f"{name} {batch_idx + 1}/{total}"
        self._follow(run)
        if first and self._enabled and not sys.stdout.isatty():
            print(f"evaluating at RL step {run.rl_step}: {', '.join(names)}", flush=True)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show which set is evaluated, and how far it is."""
        self._on_evaluation_start(
            run_view(pl_module), batch_idx, dataloader_idx, trainer.num_val_batches
        )

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show which set is tested, and how far it is."""
        self._on_evaluation_start(
            run_view(pl_module), batch_idx, dataloader_idx, trainer.num_test_batches
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Back to the RL steps, if there are any."""
        self._evaluating = ""
        if trainer.state.fn != "fit":
            self._end()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop drawing."""
        self._evaluating = ""
        self._end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop drawing; the last line stays."""
        self._end(leave=True)

    def on_exception(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        exception: BaseException,
    ) -> None:
        """Stop drawing, so that the message of the exception stays readable."""
        self._end()

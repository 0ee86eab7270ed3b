"""What stands around a run: progress, samples, checkpoints, the hacking watch, early stopping, export, report."""

from __future__ import annotations

from lightning_audiorl.callbacks.checkpoint import RLCheckpoint
from lightning_audiorl.callbacks.early_stop import EarlyStop
from lightning_audiorl.callbacks.export import Export
from lightning_audiorl.callbacks.guards import Guard
from lightning_audiorl.callbacks.hacking import HackingWatch
from lightning_audiorl.callbacks.metric_table import figure_table, metric_table
from lightning_audiorl.callbacks.progress import PhaseProgressBar
from lightning_audiorl.callbacks.report import RunReport
from lightning_audiorl.callbacks.samples import SampleLogger
from lightning_audiorl.callbacks.view import RunView, run_view

__all__ = [
    "EarlyStop",
    "Export",
    "Guard",
    "HackingWatch",
    "PhaseProgressBar",
    "RLCheckpoint",
    "RunReport",
    "RunView",
    "SampleLogger",
    "figure_table",
    "metric_table",
    "run_view",
]

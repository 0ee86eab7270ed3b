"""Commands beside Lightning's own: one function each, its arguments are the command's."""

from __future__ import annotations

from collections.abc import Callable

from lightning_audiorl.commands.assemble import assemble
from lightning_audiorl.commands.calibrate import calibrate
from lightning_audiorl.commands.export import export
from lightning_audiorl.commands.manifest import manifest
from lightning_audiorl.commands.plan.command import plan
from lightning_audiorl.commands.predict import predict
from lightning_audiorl.commands.report import report

COMMANDS: dict[str, Callable[..., None]] = {
    "assemble": assemble,
    "calibrate": calibrate,
    "export": export,
    "manifest": manifest,
    "plan": plan,
    "predict": predict,
    "report": report,
}

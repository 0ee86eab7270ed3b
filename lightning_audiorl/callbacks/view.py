"""All that callbacks see of a run: which step it is at, what it has measured, what it has sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.strategies.phases import PhaseClock
from lightning_audiorl.types import Hypothesis, PromptBatch, Scores

#: Metrics by name, by "<set>" or "<set>/<decoding>".
Results = Mapping[str, Mapping[str, float]]


class StepView(Protocol):
    """The samples of one RL step: B prompts, G samples each."""

    @property
    def batch(self) -> PromptBatch:
        """The prompts."""

    @property
    def groups(self) -> list[list[Hypothesis]]:
        """B groups of G decoded samples."""

    @property
    def scores(self) -> Scores:
        """Their rewards, [B, G]."""


@runtime_checkable
class PhaseView(Protocol):
    """What a LightningModule shows that runs in phases, be it training or prediction."""

    @property
    def clock(self) -> PhaseClock:
        """The present phase, and the seconds of each in this step."""


@runtime_checkable
class RunView(PhaseView, Protocol):
    """What a LightningModule shows to the callbacks of this package; every algorithm is one.

    Callbacks never write to it. A module of your own has these attributes, and the callbacks follow it too.
    """

    @property
    def rl_step(self) -> int:
        """RL steps done."""

    @property
    def num_steps(self) -> int:
        """RL steps of the run."""

    @property
    def seed(self) -> int:
        """Keys every draw of the run."""

    @property
    def policy(self) -> Policy:
        """The model that trains."""

    @property
    def start_hash(self) -> str | None:
        """Content hash of the policy when training began."""

    @property
    def step_metrics(self) -> dict[str, float]:
        """Metrics of the last RL step by log key."""

    @property
    def last_step(self) -> StepView | None:
        """Samples and rewards of the last RL step; None where nothing is sampled or rewarded."""

    @property
    def evaluation(self) -> SetEvaluation:
        """What is measured on evaluation sets."""

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """One record per evaluation: ``rl_step``, ``kind`` ("val" or "test") and ``results``, see `Results`."""

    @property
    def last_hypotheses(self) -> dict[str, list[list[Hypothesis]]]:
        """Groups of the last evaluation by set, its first rows, under the first decoding."""

    @property
    def ledger_table(self) -> str | None:
        """Memory by phase of the last RL step as a Markdown table; None where the strategy keeps no ledger."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """As `torch.nn.Module.load_state_dict`."""


def run_view(pl_module: object) -> RunView:
    """The LightningModule of a hook as callbacks see it.

    Raises:
        TypeError: for a module that shows less than `RunView`.
    """
    # Its members count, not its base class: callbacks import no algorithm, and a user's module will do.
    if isinstance(pl_module, RunView):
        return pl_module
    raise _foreign(pl_module, RunView)


def phase_view(pl_module: object) -> PhaseView:
    """The LightningModule of a hook, of which only the phases matter.

    Raises:
        TypeError: for a module without a clock.
    """
    if isinstance(pl_module, PhaseView):
        return pl_module
    raise _foreign(pl_module, PhaseView)


def _foreign(pl_module: object, wanted: type) -> TypeError:
    missing: list[str] = []
    for protocol in wanted.__mro__[:-1]:  # the last one is object
        members = [name for name in vars(protocol) if not name.startswith("_")]
        missing += [name for name in members if not hasattr(pl_module, name)]
    return TypeError(
        f"the callbacks of lightning_audiorl cannot follow a {type(pl_module).__name__}: it has no "
        f"{', '.join(missing)}; use a module of lightning_audiorl.algorithms, or give yours what "
        f"lightning_audiorl.callbacks.view.{wanted.__name__} lists"
    )


def nothing_learnt(pl_module: object) -> str | None:
    """Why a run has changed nothing, in a sentence; None where it has, and where nobody has watched its updates."""
    watch = getattr(pl_module, "update_watch", None)
    verdict: str | None = None if watch is None else watch.verdict()
    return verdict


def said_once(pl_module: object) -> list[dict[str, Any]]:
    """``{"rl_step", "text"}`` of what a run has warned of about its rows, see `engine.rarely_right`."""
    watch = getattr(pl_module, "rarely_right", None)
    return [] if watch is None else list(watch.alerts)


def row_results(pl_module: object) -> Mapping[str, Sequence[RowResult]]:
    """What the last evaluation says of each row, by set; empty of a module that keeps none."""
    results: Mapping[str, Sequence[RowResult]] = getattr(pl_module, "row_results", {})
    return results


def validations(run: RunView) -> list[dict[str, Any]]:
    """The evaluations of a run, oldest first, those before a resume among them; tests left out."""
    return [one for one in run.evaluations if one["kind"] == "val"]


def flat_metrics(results: Results, kind: str = "val") -> dict[str, float]:
    """Metrics by log key.

    Example:
        >>> flat_metrics({"long": {"wer": 0.3}})
        {'val/long/wer': 0.3}
    """
    flat: dict[str, float] = {}
    for set_name, metrics in results.items():
        for name, value in metrics.items():
            flat[f"{kind}/{set_name}/{name}"] = value
    return flat

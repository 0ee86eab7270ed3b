"""How often the right answer is sampled: metrics of an RL step, and a warning where it hardly ever is."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_audiorl.checks import check_count
from lightning_audiorl.engine.distributed import all_reduce
from lightning_audiorl.engine.reference_texts import is_empty, reference_log_probs
from lightning_audiorl.engine.rollout import Sampler
from lightning_audiorl.losses import CrossEntropy, Loss, LossSettings, RLStep
from lightning_audiorl.models.policy import Context, Policy
from lightning_audiorl.rewards import Reward, RewardMix
from lightning_audiorl.rewards.base import TextReward
from lightning_audiorl.strategies import RLStrategy
from lightning_audiorl.types import Hypothesis, PromptBatch, Scores, Utterance

_log = logging.getLogger(__name__)

#: RL steps that the warning looks back on, and fewest groups of a kind of row that it speaks of.
WINDOW = 10
LEAST_GROUPS = 10

# Two samples earn the same where their rewards differ by less.
_SAME = 1e-6


def kind_of_row(row: Utterance) -> str:
    """The subset of an RL set that a row is of, else its kind, else whether anything is said in it.

    Example:
        >>> kind_of_row(Utterance("a", (), "", 1.0, extra={"kind": "hum", "subset": "nonspeech"}))
        'nonspeech'
        >>> kind_of_row(Utterance("a", (), "one", 1.0)), kind_of_row(Utterance("a", (), "", 1.0))
        ('rows with text', 'rows without text')
    """
    for name in ("subset", "kind"):
        value = row.extra.get(name)
        if isinstance(value, str) and value:
            return value
    return "rows without text" if is_empty(row) else "rows with text"


@dataclass
class KindCounts:
    """What the groups of one kind of row came to in one RL step, or in several.

    Args:
        groups: those that could be judged.
        stuck: those in which nothing right was sampled, and from which little is learnt.
        texts: reference texts whose log-probability was measured.
        log_prob: its sum over them.
    """

    groups: int = 0
    stuck: int = 0
    texts: int = 0
    log_prob: float = 0.0

    def add(self, other: KindCounts) -> None:
        """Add the counts of another step."""
        self.groups += other.groups
        self.stuck += other.stuck
        self.texts += other.texts
        self.log_prob += other.log_prob


def nothing_right(
    scores: Scores, rows: Sequence[Utterance], rewards: Sequence[Reward]
) -> tuple[Tensor, Tensor] | None:
    """Which groups hold no sample that earns as much as the reference text would.

    Only rewards that compare texts are looked at: they cost nothing for one text more. Those that listen, ask somebody
    or measure are left out, of samples and reference alike.

    Args:
        scores: [B, G] of the samples, with their parts.
        rows: B.
        rewards: of the mix.

    Returns:
        [B] bool, on the CPU: groups with nothing right, and groups that could be judged at all: some sample is valid,
        and no reward failed on the reference. None where no reward compares texts.

    Example:
        >>> from lightning_audiorl.rewards import Accuracy
        >>> rows = [Utterance("a", (), "one two", 1.0), Utterance("b", (), "", 1.0)]
        >>> parts = {"accuracy": torch.tensor([[1.0, 0.5], [-1.0, 0.0]])}
        >>> scores = Scores(parts["accuracy"], torch.ones(2, 2, dtype=torch.bool), parts)
        >>> nothing_right(scores, rows, [Accuracy()])
        (tensor([False,  True]), tensor([True, True]))
    """
    compared = [reward for reward in rewards if isinstance(reward, TextReward) and reward.weight]
    if not compared:
        return None

    ahead = torch.zeros(scores.total.shape, dtype=torch.float64)
    for reward in compared:
        # Rounded as the parts of the samples are.
        of_references = torch.tensor(_reference_values(reward, rows), dtype=torch.float32)
        ahead += reward.weight * (
            scores.parts[reward.name].cpu().double() - of_references.double()[:, None]
        )

    valid = scores.valid.cpu()
    judged = (valid & ahead.isfinite()).any(-1)
    is_right = valid & (ahead >= -_SAME)
    return judged & ~is_right.any(-1), judged


def _reference_values(reward: TextReward, rows: Sequence[Utterance]) -> list[float]:
    """What each row's own text earns; NaN where the reward fails."""
    values = []
    for row in rows:
        try:
            values.append(float(reward.score([Hypothesis(row, row.text, finished=True)])[0]))
        except Exception:  # noqa: BLE001 - a user's reward may raise anything; of samples the mix has said so
            values.append(math.nan)
    return values


class SampledRun(Protocol):
    """What there is to know of the run: an `RLModule`."""

    policy: Policy
    losses: list[Loss[Any]]
    loss_settings: LossSettings
    rewards: RewardMix | None
    sampler: Sampler
    log_every: int


class RarelyRight(Callback):
    """Measures in each RL step whether the right answer was sampled, and says once where it rarely is.

    A kind of row is named where, over the last 10 RL steps, nothing right was sampled in more than half of its groups
    and little can be learnt from these: the right answer is no text at all, or all samples of the group earn the same.
    (From wrong transcripts that differ in their errors much is learnt.) Nothing is said where the reference is already
    a sample of its group, or a loss of the run is `CrossEntropy`.

    Args:
        run: whose steps are measured; one without rewards, or with a policy that speaks, is not.
        every: RL steps between two that measure the references' log-probability, at the least; only steps that are
            logged do, the first of them always. 0 is never.

    Attributes:
        alerts: ``{"rl_step", "text"}`` of what was said.
    """

    def __init__(self, run: SampledRun, every: int = 10) -> None:
        check_count(f"{type(run).__name__}.reference_logprob_every_n_steps", every)
        self.run = run
        # Only steps that are logged are worth the pass.
        self.period = math.ceil(every / run.log_every) * run.log_every

        speaks = run.policy.speaks
        self.rewards = None if run.rewards is None or speaks else run.rewards.rewards
        self.is_remedied = any(map(_uses_references, run.losses))

        self.alerts: list[dict[str, Any]] = []
        self._window: list[dict[str, KindCounts]] = []
        # By the identity of their rows, which live as long as the step: dynamic sampling moves them about.
        self._log_probs: dict[int, float] = {}

    # --- a step

    def look(self, batch: PromptBatch, context: Context, rl_step: int) -> None:
        """Measure the references of some prompts, where the step is one that is measured.

        Args:
            batch: B prompts.
            context: they, encoded; where the policy can run.
            rl_step: RL steps done.
        """
        if self.rewards is None or not self._is_due(rl_step + 1):
            return

        settings = self.run.loss_settings
        measured = reference_log_probs(
            self.run.policy,
            context,
            batch.texts,
            settings.decoding.temperature,
            settings.chunk_size,
            self.run.sampler.batch_size,
        )
        for row, log_prob in zip(batch.rows, measured, strict=True):
            self._log_probs[id(row)] = log_prob

    def _is_due(self, number: int) -> bool:
        """Whether step ``number``, from 1, is one that is measured."""
        if not self.period:
            return False
        return number == self.run.log_every or number % self.period == 0

    def metrics(self, step: RLStep, strategy: RLStrategy) -> dict[str, float]:
        """Metrics of a step, the same on every rank; nothing where nothing is measured.

        ``nothing_right_share`` of the groups; where the references were measured, ``reference_logprob``, the mean over
        rows, and ``empty_answer_probability``, the mean over the rows whose right answer is no text.
        """
        if self.rewards is None:
            return {}
        rows = step.batch.rows
        log_probs = [self._log_probs.get(id(row), math.nan) for row in rows]
        was_measured = bool(self._log_probs)
        self._log_probs = {}

        found = nothing_right(step.scores, rows, self.rewards)
        counts: dict[str, KindCounts] = {}
        if found is not None:
            counts = _counts(step, log_probs, *found)
        self._window = [*self._window, counts][-WINDOW:]

        # Sums of all ranks, so that no mean is one of means.
        metrics: dict[str, float] = {}
        if found is not None:
            nothing, judged = found
            metrics |= _mean("nothing_right_share", nothing[judged].tolist(), strategy)
        if was_measured:
            known = [value for value in log_probs if not math.isnan(value)]
            pairs = zip(rows, log_probs, strict=True)
            empty = [
                math.exp(value) for row, value in pairs if is_empty(row) and not math.isnan(value)
            ]
            metrics |= _mean("reference_logprob", known, strategy)
            metrics |= _mean("empty_answer_probability", empty, strategy)
        return metrics

    # --- the warning

    def rarely_right(self) -> str | None:
        """What is to be said of the last steps; None where there is nothing."""
        if self.is_remedied or len(self._window) < WINDOW:
            return None
        totals: dict[str, KindCounts] = {}
        for step in self._window:
            for kind, counts in step.items():
                totals.setdefault(kind, KindCounts()).add(counts)

        num_groups = sum(counts.groups for counts in totals.values())
        named = []
        for kind, counts in totals.items():
            if counts.groups >= LEAST_GROUPS and 2 * counts.stuck > counts.groups:
                named.append(_sentence(kind, counts, num_groups))
        if not named:
            return None
        return (
            f"the right answer is rarely sampled: {'; '.join(named)}. Little is learnt from such groups. Set "
            "reference_sample: {} (the reference is one more sample of its group) or sft_weight (a second loss, "
            "CrossEntropy, with a schedule), or change the share of such rows; see docs/rarely_right.md"
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Say it, once in a run."""
        if self.alerts:
            return
        text = self.rarely_right()
        if text is None:
            return
        rl_step = int(pl_module.rl_step)  # type: ignore[arg-type]
        self.alerts.append({"rl_step": rl_step, "text": text})
        if trainer.is_global_zero:
            _log.warning("RL step %d: %s", rl_step, text)

    # --- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The last steps, and what was said."""
        window = []
        for step in self._window:
            window.append({kind: asdict(counts) for kind, counts in step.items()})
        return {"window": window, "alerts": list(self.alerts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process."""
        self.alerts = list(state_dict["alerts"])
        self._window = []
        for step in state_dict["window"]:
            self._window.append({kind: KindCounts(**counts) for kind, counts in step.items()})


def _uses_references(loss: Loss[Any]) -> bool:
    """Whether a loss learns from the reference texts themselves."""
    if isinstance(loss, CrossEntropy):
        return True
    return loss.advantages is not None and loss.advantages.reference is not None


def _counts(
    step: RLStep, log_probs: Sequence[float], nothing: Tensor, judged: Tensor
) -> dict[str, KindCounts]:
    """Counts by kind of row."""
    spread = _spread(step.scores)
    counts: dict[str, KindCounts] = {}
    for i, row in enumerate(step.batch.rows):
        one = KindCounts()
        if judged[i]:
            one.groups = 1
            teaches = not is_empty(row) and spread[i] > _SAME
            one.stuck = int(bool(nothing[i]) and not teaches)
        if not math.isnan(log_probs[i]):
            one.texts = 1
            one.log_prob = log_probs[i]
        counts.setdefault(kind_of_row(row), KindCounts()).add(one)
    return counts


def _spread(scores: Scores) -> list[float]:
    """[B] how far the best valid sample of a group is from the worst."""
    best = scores.total.masked_fill(~scores.valid, -math.inf).amax(-1)
    worst = scores.total.masked_fill(~scores.valid, math.inf).amin(-1)
    spread: list[float] = (best - worst).tolist()
    return spread


def _mean(name: str, values: Sequence[float], strategy: RLStrategy) -> dict[str, float]:
    """The mean over the values of all ranks; nothing where there is none."""
    total = all_reduce(strategy, math.fsum(values))
    number = all_reduce(strategy, float(len(values)))
    return {name: total / number} if number else {}


def _sentence(kind: str, counts: KindCounts, num_groups: int) -> str:
    """What there is to say of one kind of row."""
    share = 100 * counts.stuck / counts.groups
    of_mix = 100 * counts.groups / max(1, num_groups)
    text = (
        f"of {kind!r} ({of_mix:.0f} % of the rows drawn) {share:.0f} % of {counts.groups} groups over {WINDOW} RL "
        "steps have no sample that earns what the reference text does"
    )
    if not counts.texts:
        return text
    mean = counts.log_prob / counts.texts
    return f"{text}, whose log-probability is {mean:.2f} on average"

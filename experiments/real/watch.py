"""What is looked at while an arm of experiments/real/runs.py trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lightning import Callback

from experiments.real.evaluate import Row, empty_probabilities, transcripts
from lightning_audiorl.types import PromptBatch, Utterance

#: Metrics of a step that are kept, where it has them.
KEPT = ("reward/mean", "kl", "loss", "grad_norm", "reference/log_prob", "nothing_right_share")


class Watch(Callback):
    """Each step's metrics and CPU seconds, and how non-speech is answered along the run.

    What evaluations cost is not counted as training.

    Args:
        rows: non-speech, looked at after the steps ``at``.
        speech: transcribed after the steps ``at``.
        probe: a few of them, looked at after every second of the first ``last`` steps.
        at: steps.
        last: step of the last look.

    Attributes:
        steps: one record a step.
        curve: one record a look: ``step``, ``rows`` and ``speech``.
        probes: (step, mean probability of the empty answer) of each look at ``probe``.
    """

    def __init__(
        self,
        rows: Sequence[Utterance],
        speech: Sequence[Utterance],
        probe: Sequence[Utterance],
        at: Sequence[int],
        last: int,
    ) -> None:
        self.rows = list(rows)
        self.speech = list(speech)
        self.probe = list(probe)
        self.at = set(at)
        self.last = last
        self.steps: list[dict[str, float]] = []
        self.curve: list[dict[str, Any]] = []
        self.probes: list[tuple[int, float]] = []
        self._since = 0.0

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all steps."""
        return sum(step["cpu_s"] for step in self.steps)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._since = time.process_time()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int
    ) -> None:
        cpu_s = time.process_time() - self._since
        metrics = pl_module.step_metrics
        record = {name: metrics[name] for name in KEPT if name in metrics}
        record |= {"cpu_s": cpu_s} | self._of_nonspeech(pl_module)
        record |= {name: metrics[name] for name in metrics if name.startswith("seconds/")}
        self.steps.append(record)

        step = pl_module.rl_step
        if step in self.at:
            found = empty_probabilities(pl_module.policy, self.rows)
            speech = transcripts(pl_module.policy, self.speech)
            self.curve.append({"step": step, "rows": found, "speech": speech})
        if step <= self.last and step % 2 == 0:
            probed = empty_probabilities(pl_module.policy, self.probe)
            self.probes.append((step, mean_probability(probed)))
        self._since = time.process_time()

    def last_look(self, rows: Sequence[Row], policy: Any) -> dict[str, Any]:
        """The look after the last step: non-speech as the evaluation at the end found it."""
        found = [row | {"empty": not row["text"].strip()} for row in rows]
        speech = transcripts(policy, self.speech)
        return {"step": len(self.steps), "rows": found, "speech": speech}

    def _of_nonspeech(self, pl_module: Any) -> dict[str, float]:
        """Share of the samples of this step's non-speech rows that have any text; nothing where none was drawn."""
        step = pl_module.last_step
        if step is None:
            return {}
        texts = [
            hypothesis.text.strip()
            for group in step.groups
            for hypothesis in group
            if not hypothesis.row.text.strip()
        ]
        if not texts:
            return {}
        return {"not_empty_share": sum(map(bool, texts)) / len(texts)}


def mean_probability(rows: Sequence[Row]) -> float:
    """Mean probability of the empty answer."""
    return sum(float(row["p_empty"]) for row in rows) / len(rows)

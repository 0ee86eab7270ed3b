"""Evaluation of named sets under named decodings, the same for every algorithm."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, product

from torchmetrics import Metric

from lightning_audiorl.checks import check_count
from lightning_audiorl.engine.reference_texts import is_empty, reference_log_probs
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.finite import NotFiniteError
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.metrics.reference import ReferenceProbability
from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.models.policy import Policy, SampleKey
from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Rollout

#: Rows of each set whose hypotheses are kept for reports.
MAX_KEPT_ROWS = 64


@dataclass(frozen=True)
class EvalDecoding:
    """How a set is decoded for its metrics.

    Args:
        decoding: greedy by default.
        num_samples: hypotheses per utterance; metrics are over all of them.

    Example:
        >>> EvalDecoding().decoding.temperature
        0.0
    """

    decoding: Decoding = field(default_factory=lambda: Decoding(temperature=0.0))
    num_samples: int = 1

    def __post_init__(self) -> None:
        check_count("EvalDecoding.num_samples", self.num_samples, at_least=1)


class Evaluator:
    """Collects metrics by set and decoding.

    The first decoding's metrics are named ``<set>/<metric>``, the others' ``<set>/<decoding>/<metric>``.

    Attributes:
        last_hypotheses: groups by set, the first 64 rows, under the first decoding.
        row_results: by set, what the metrics say of each row of this rank, under the first decoding.
    """

    def __init__(
        self, decodings: Mapping[str, EvalDecoding], evaluation: SetEvaluation, panel: JudgePanel
    ) -> None:
        self.decodings = dict(decodings)
        self.evaluation = evaluation
        self.panel = panel
        self.set_names: list[str] = []
        #: Rows of each set that this rank has evaluated.
        self.num_rows: dict[str, int] = {}
        #: What was said of each set's rows.
        self.said: dict[str, str] = {}
        self.last_hypotheses: dict[str, list[list[Hypothesis]]] = {}
        self.row_results: dict[str, list[RowResult]] = {}
        self._metrics: dict[tuple[str, str], Metric] = {}
        self._references: dict[str, ReferenceProbability] = {}

    def begin(self, set_names: Sequence[str]) -> None:
        """Begin the metrics of every set anew."""
        self.set_names = list(set_names)
        self.num_rows = dict.fromkeys(set_names, 0)
        self.last_hypotheses = {name: [] for name in set_names}
        self.row_results = {name: [] for name in set_names}
        self._metrics = {}
        for name, decoding in product(set_names, self.decodings):
            self._metrics[name, decoding] = self.evaluation.new()
        self._references = {}
        if self.evaluation.reference_logprob:
            self._references = {name: ReferenceProbability() for name in set_names}

        keys = [self._key(name, decoding) for name, decoding in self._metrics]
        for (name, decoding), key in zip(self._metrics, keys, strict=True):
            if keys.count(key) > 1:
                raise ValueError(
                    f"evaluation set {name!r} under the decoding {decoding!r} has the metrics {key}/..., and so has "
                    "another set or decoding; rename one of them"
                )

    def update(
        self,
        policy: Policy,
        batch: PromptBatch,
        set_index: int,
        seed: int,
        phase: Callable[[Phase], AbstractContextManager[None]],
        encode_in: Phase = "encode",
    ) -> None:
        """Encode one batch of the set number ``set_index`` once, and decode and measure it under every decoding."""
        name = self.set_names[set_index]
        self.num_rows[name] += len(batch)
        long, short = _long_and_short(policy, batch)
        if long:
            self._update_long(policy, batch.select(long), name, phase)
            batch = batch.select(short)
        if long and not short:
            return

        start = time.perf_counter()
        with phase(encode_in):
            context = policy.encode(batch)
        encode_s = time.perf_counter() - start

        first: list[list[Hypothesis]] | None = None
        main = next(iter(self.decodings))
        for label, how in self.decodings.items():
            start = time.perf_counter()
            # No RL step in the key: at every step a set is decoded with the same draws.
            key = SampleKey(seed, 0, f"evaluate/{label}")
            with phase("rollout"):
                rollout = policy.sample(context, how.num_samples, how.decoding, key)
            _check_sampled(rollout, batch, name)

            with phase("reward"):
                groups = hypotheses(policy, batch, rollout, context)
                seconds = encode_s + time.perf_counter() - start
                self._metrics[name, label].update(list(chain.from_iterable(groups)), seconds)
            if label == main:
                first = groups
                self._describe(name, groups)

        if name in self._references:
            with phase("rollout"):
                log_probs = reference_log_probs(policy, context, batch.texts)
            self._references[name].update(log_probs, [is_empty(row) for row in batch.rows])

        self._keep(name, first or [])

    def _update_long(
        self,
        policy: Policy,
        batch: PromptBatch,
        name: str,
        phase: Callable[[Phase], AbstractContextManager[None]],
    ) -> None:
        """Decode and measure clips beyond the policy's window, which its family reads in one way alone: greedily."""
        for label, how in self.decodings.items():
            if how.decoding.temperature > 0 or how.num_samples > 1:
                raise ValueError(
                    f"evaluation set {name!r}, row {batch.rows[0].id!r}: clips beyond the window of "
                    f"{type(policy).__name__} are decoded greedily, once, and the decoding {label!r} samples; leave it "
                    "out, or set max_duration_s and on_too_long: skip in the data module"
                )

        start = time.perf_counter()
        with phase("rollout"):
            said = policy.transcribe_long(batch)
        with phase("reward"):
            pairs = zip(batch.rows, said, strict=True)
            groups = [[Hypothesis(row, text, num_tokens)] for row, (text, num_tokens) in pairs]
            seconds = time.perf_counter() - start
            for label in self.decodings:
                self._metrics[name, label].update(list(chain.from_iterable(groups)), seconds)
        self._describe(name, groups)
        self._keep(name, groups)

    def _describe(self, name: str, groups: Sequence[list[Hypothesis]]) -> None:
        """What the metric of a set under the first decoding says of the rows that it has just counted."""
        metric = self._metrics[name, next(iter(self.decodings))]
        rows_of = getattr(metric, "rows_of", None)
        if rows_of is not None:
            self.row_results[name] += rows_of(self.panel.with_transcripts(groups))

    def _keep(self, name: str, groups: Sequence[list[Hypothesis]]) -> None:
        """The first rows of a set, with what the judges have heard."""
        kept = self.last_hypotheses[name]
        room = max(0, MAX_KEPT_ROWS - len(kept))
        kept.extend(self.panel.with_transcripts(list(groups[:room])))
        self.panel.clear()

    def compute(self) -> dict[str, dict[str, float]]:
        """Metrics by "<set>" or "<set>/<decoding>"."""
        results: dict[str, dict[str, float]] = {}
        for (name, label), metric in self._metrics.items():
            values = {key: float(value) for key, value in metric.compute().items()}
            # What the references are is the same under every decoding.
            if name in self._references and label == next(iter(self.decodings)):
                measured = self._references[name].compute()
                values |= {key: float(value) for key, value in measured.items()}
            results[self._key(name, label)] = values
        return results

    def _key(self, set_name: str, decoding: str) -> str:
        """What the metrics of a set under a decoding are called."""
        main = next(iter(self.decodings))
        return set_name if decoding == main else f"{set_name}/{decoding}"


def _long_and_short(policy: Policy, batch: PromptBatch) -> tuple[list[int], list[int]]:
    """The numbers of the clips that the policy reads in its long form, and of the others."""
    span_s = policy.clip_span_s
    if not policy.long_form or span_s is None:
        return [], list(range(len(batch)))
    longest = round(span_s[1] * batch.sample_rate_hz)
    is_long = (batch.num_samples > longest).tolist()
    numbers = range(len(batch))
    return [i for i in numbers if is_long[i]], [i for i in numbers if not is_long[i]]


def _check_sampled(rollout: Rollout, batch: PromptBatch, name: str) -> None:
    """See that the samples came from a distribution: of NaN, some token is always drawn.

    Raises:
        NotFiniteError: naming the first row.
    """
    is_broken = (rollout.keep & ~rollout.log_probs.isfinite()).flatten(1).any(1)
    if is_broken.any():
        row = batch.rows[int(is_broken.nonzero()[0])]
        raise NotFiniteError(
            f"evaluation set {name!r}, row {row.id!r}: the policy gives tokens no probabilities but NaN, though its "
            "weights are finite; does it overflow in half precision? Set trainer.precision to bf16-mixed or 32-true"
        )


def flat_metrics(kind: str, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Finite metrics by log key.

    Example:
        >>> flat_metrics("val", {"long": {"wer": 0.25, "cer": float("nan")}})
        {'val/long/wer': 0.25}
    """
    # A set without reference words has no WER, say: what is NaN is not logged, and nothing can monitor it.
    flat = {}
    for set_name, metrics in results.items():
        for name, value in metrics.items():
            if math.isfinite(value):
                flat[f"{kind}/{set_name}/{name}"] = value
    return flat

"""The hacking watch and chance: it is silent where nothing has changed, and speaks where something has."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_audiorl.callbacks import HackingWatch
from lightning_audiorl.metrics.functional import UtteranceCounts
from lightning_audiorl.metrics.rows import RowResult, recognition_parts
from lightning_audiorl.reports.noise import noise_bound, student_bound
from lightning_audiorl.types import Utterance
from tests.callbacks import runs

NUM_VALIDATIONS = 8
NUM_ROWS = 60
SETS = ("digits", "long")


class Recogniser:
    """One whose errors are chance: each row has its own probability of an error, and any row may loop."""

    def __init__(self, seed: int, loops: float = 0.02) -> None:
        self.random = random.Random(seed)
        self.loops = loops

    def errors(self, num_words: int, share: float) -> int:
        return sum(self.random.random() < share for _ in range(num_words))

    def rows(self, hardness: list[float], words: list[int], set_name: str) -> list[RowResult]:
        """What an evaluation says of rows; nothing is kept from one to the next."""
        results = []
        for number, (share, num_words) in enumerate(zip(hardness, words, strict=True)):
            wrong = self.errors(num_words, share)
            deleted = self.errors(wrong, 0.4)
            loops = self.errors(1, self.loops)
            inserted = self.errors(num_words, share / 3) + 20 * loops
            counts = UtteranceCounts(
                utterances=1,
                words=num_words,
                hits=num_words - wrong,
                substitutions=wrong - deleted,
                deletions=deleted,
                insertions=inserted,
                hypothesis_words=num_words - deleted + inserted,
                loops=loops,
                hallucinated=loops,
                exact=int(wrong + inserted == 0),
            )
            row = Utterance(f"{set_name}-{number:03d}", (), "", 1.0)
            results.append(RowResult(row, {}, recognition_parts([counts])))
        return results


def metrics_of(rows: list[RowResult]) -> dict[str, float]:
    metrics = {}
    for name in rows[0].parts:
        above = sum(row.parts[name][0] for row in rows)
        below = sum(row.parts[name][1] for row in rows)
        metrics[name] = above / below if below else float("nan")
    return metrics


def simulated(watch: HackingWatch, seed: int, factors: list[float]) -> list[dict[str, Any]]:
    """The alerts of a run whose reward rises at each step; errors are ``factors`` times as likely as at first."""
    recogniser = Recogniser(seed)
    rng = recogniser.random
    hardness = {name: [0.4 * rng.random() for _ in range(NUM_ROWS)] for name in SETS}
    words = {name: [rng.randint(4, 15) for _ in range(NUM_ROWS)] for name in SETS}

    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=False, world_size=1
    )
    module = runs.view()
    for number, factor in enumerate(factors):
        rows = {}
        for name in SETS:
            harder = [factor * share for share in hardness[name]]
            rows[name] = recogniser.rows(harder, words[name], name)
        module.rl_step = number
        module.row_results = rows
        results = {name: metrics_of(of_set) for name, of_set in rows.items()}
        module.evaluations.append({"rl_step": number, "kind": "val", "results": results})
        watch.on_validation_end(trainer, module)
        module.step_metrics = {"reward/mean": 0.1 * number}
        watch.on_train_batch_end(trainer, module)
    return watch.alerts


def share_of_alarms(num_runs: int, **settings: Any) -> float:
    """Share of runs in which nothing changes and the watch speaks all the same."""
    unchanged = [1.0] * NUM_VALIDATIONS
    alarms = 0
    for seed in range(num_runs):
        alarms += bool(simulated(HackingWatch(**settings), seed, unchanged))
    return alarms / num_runs


def test_a_run_that_does_not_change_is_told_nothing() -> None:
    """The tolerances alone cry wolf in nearly each run; with the rows at most one run in twenty may be told."""
    assert share_of_alarms(5, false_alarms=None) == 1
    assert share_of_alarms(12) == 0


@pytest.mark.slow
def test_many_runs_that_do_not_change() -> None:
    """However small the changes that are looked at: here all."""
    assert share_of_alarms(400, tolerance=0.0, gap_tolerance=0.0, drift_tolerance=0.0) <= 0.05


def test_a_run_that_gets_worse_is_told() -> None:
    """Twice as many errors in the last three of eight validations."""
    told = 0
    for seed in range(10):
        alerts = simulated(HackingWatch(), seed, [1.0] * 5 + [2.0] * 3)
        told += any("/wer went from" in alert["text"] for alert in alerts)
        assert not [alert for alert in alerts if alert["rl_step"] < 5]
    assert told == 10


def test_a_change_must_also_be_worth_telling() -> None:
    """Beyond chance in a large set, and not beyond the tolerance."""
    alerts = simulated(HackingWatch(tolerance=0.5), 0, [1.0] * 5 + [2.0] * 3)
    assert not [alert for alert in alerts if "/wer went from" in alert["text"]]


def test_a_watch_that_goes_on_from_a_checkpoint_says_the_same(tmp_path: Path) -> None:
    factors = [1.0, 1.0, 2.0, 2.0]
    whole = simulated(HackingWatch(), 3, factors)
    assert whole

    # The same evaluations; at each one the watch comes from a file.
    class Resumed(HackingWatch):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            torch.save(self.state_dict(), tmp_path / "state")
            again = HackingWatch()
            again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
            HackingWatch.on_validation_end(again, trainer, pl_module)
            self.load_state_dict(again.state_dict())

    assert simulated(Resumed(), 3, factors) == whole


def test_few_rows_that_all_changed_alike_are_not_certain() -> None:
    def bound(num_rows: int) -> float:
        before = torch.tensor([[0.0, 1.0]]).repeat(num_rows, 1)
        after = torch.tensor([[1.0, 1.0]]).repeat(num_rows, 1)
        return noise_bound([before], [after], lambda ratios: ratios[..., 0], 0.001)

    assert bound(3) > 1 > bound(30)
    assert bound(1) == float("inf")


def test_an_error_rate_above_100_percent_by_chance_is_no_empty_answer() -> None:
    """One row of ten that loops says nothing of the others."""
    by_chance = [(3.0, 4.0)] * 9 + [(40.0, 4.0)]
    surely = [(6.0, 4.0), (5.0, 4.0)] * 20
    for parts, is_told in ((by_chance, False), (surely, True)):
        watch = HackingWatch()
        rows = [
            RowResult(Utterance(f"{number:02d}", (), "", 1.0), {}, {"wer": part})
            for number, part in enumerate(parts)
        ]
        trainer: Any = SimpleNamespace(
            state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=False, world_size=1
        )
        results = {"long": metrics_of(rows)}
        assert results["long"]["wer"] > 1
        record = {"rl_step": 0, "kind": "val", "results": results}
        module = runs.view(evaluations=[record], row_results={"long": rows}, rewards=object())
        watch.on_validation_end(trainer, module)
        assert bool(watch.alerts) is is_told


def test_the_bound_of_student_is_never_below_the_true_one() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 5, 9, 30, 1000):
        for level in (0.05, 0.001, 1e-6):
            true = -stats.t.ppf(level / 2, freedom)
            assert student_bound(level, freedom) >= 0.999 * true


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_of_false_alarms_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="false_alarms: want a share between 0 and 1"):
        HackingWatch(false_alarms=share)

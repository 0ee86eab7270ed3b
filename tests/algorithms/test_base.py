from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from lightning_audiorl.algorithms import SFT, EvalDecoding
from lightning_audiorl.data import AsrDataModule, NonSpeech
from lightning_audiorl.strategies.phases import PHASES, PhaseClock
from lightning_audiorl.types import Decoding
from tests.algorithms.tiny import SHORT, Recorder, fit, flat, make_grpo, make_policy
from tests.helpers import assert_close

DECODINGS = {
    "greedy": EvalDecoding(Decoding(temperature=0.0, max_new_tokens=6)),
    "sampled": EvalDecoding(SHORT, num_samples=3),
}


def noise_data() -> AsrDataModule:
    rows = NonSpeech(num_rows=6, min_s=0.1, max_s=0.3)
    return AsrDataModule(
        train=None, val={"a": rows, "b": NonSpeech(2, ["silence"], 0.1, 0.2)}, test={"c": rows}
    )


def evaluate(module: Any, kind: str, folder: Path) -> Any:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", logger=CSVLogger(folder), **quiet)  # type: ignore[arg-type]
    getattr(trainer, kind)(module, datamodule=noise_data(), verbose=False)
    return module


def test_named_sets_under_named_decodings(tmp_path: Path) -> None:
    module = evaluate(SFT(make_policy(), 1, eval_decodings=DECODINGS), "validate", tmp_path)
    (record,) = module.evaluations
    assert (record["rl_step"], record["kind"]) == (0, "val")
    assert list(record["results"]) == ["a", "a/sampled", "b", "b/sampled"]
    for figures in record["results"].values():
        assert {"wer", "nonspeech_text_rate", "real_time_factor"} <= set(figures)
        assert all(isinstance(value, float) for value in figures.values())
    assert {name: len(groups) for name, groups in module.last_hypotheses.items()} == {
        "a": 6,
        "b": 2,
    }
    assert all(len(group) == 1 for group in module.last_hypotheses["a"])
    assert "val/a/sampled/nonspeech_text_rate" in next(tmp_path.rglob("metrics.csv")).read_text()
    assert "val/b/nonspeech_text_rate" in module.trainer.callback_metrics
    evaluate(module, "test", tmp_path)
    assert list(module.evaluations[1]["results"]) == ["c", "c/sampled"]


def test_evaluation_decodes_alike_in_every_algorithm_and_at_every_step(tmp_path: Path) -> None:
    sampled = {"sampled": DECODINGS["sampled"]}
    module = make_grpo(eval_decodings=sampled, seed=5)
    first = evaluate(module, "validate", tmp_path).last_hypotheses
    module.rl_step = 77
    assert evaluate(module, "validate", tmp_path).last_hypotheses == first
    other = SFT(make_policy(), 1, eval_decodings=sampled, seed=5)
    assert evaluate(other, "validate", tmp_path).last_hypotheses == first
    other.seed = 6
    assert evaluate(other, "validate", tmp_path).last_hypotheses != first


def test_evaluation_changes_nothing_in_a_run() -> None:
    """Neither weights nor figures, however often; the model is back in the mode that it was in."""

    def run(**settings: Any) -> tuple[Any, Recorder]:
        module = make_grpo(num_steps=3, eval_decodings=DECODINGS)
        module.policy.model.model.language_model.eval()
        modes = [m.training for m in module.modules()]
        recorder = Recorder()
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            max_epochs=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[recorder],
            **settings,
        )
        data = noise_data()
        data.train = [_subset()]
        data.batch_size = 2
        trainer.fit(module, datamodule=data)
        assert [m.training for m in module.modules()] == modes
        return module, recorder

    often, seldom = run(val_check_interval=1, num_sanity_val_steps=-1), run(limit_val_batches=0)
    assert [e["rl_step"] for e in often[0].evaluations] == [0, 1, 2, 3]
    assert seldom[0].evaluations == []
    assert_close(flat(often[1].weights[-1]), flat(seldom[1].weights[-1]), "exact")
    for a, b in zip(often[1].metrics, seldom[1].metrics, strict=True):
        assert {k: v for k, v in a.items() if "seconds" not in k} == {
            k: v for k, v in b.items() if "seconds" not in k
        }


def _subset() -> Any:
    from lightning_audiorl.data import Subset

    return Subset(NonSpeech(num_rows=50, min_s=0.1, max_s=0.3, seed=3))


def test_figures_are_logged_by_rl_step(tmp_path: Path) -> None:
    """And are on disk at once: a killed run has lost none."""
    on_disk: list[int] = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            files = list(tmp_path.rglob("metrics.csv"))
            on_disk.append(len(files[0].read_text().splitlines()) - 1 if files else 0)

    fit(
        make_grpo(num_steps=4, num_updates=2, log_every_n_steps=2),
        None,
        Look(),
        logger=CSVLogger(tmp_path),
    )
    assert on_disk == [0, 1, 1, 2]
    header, *lines = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    names = header.split(",")
    assert {
        "loss",
        "kl",
        "entropy",
        "reward/judge/std",
        "reward/mean",
        "length/mean",
        "clip_high",
    } <= set(names)
    assert {f"seconds/{name}" for name in PHASES} <= set(names)
    assert [line.split(",")[names.index("step")] for line in lines] == ["2", "4"]


def test_half_precision_that_scales_gradients_is_refused() -> None:
    module = make_grpo()
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer._accelerator_connector.precision_plugin.precision = "16-mixed"
    with pytest.raises(ValueError, match="use bf16-mixed"):
        module.setup("fit")


def test_processes_without_a_phase_strategy_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "world_size", property(lambda self: 2))
    with pytest.raises(RuntimeError, match="phase_ddp or phase_fsdp"):
        fit(make_grpo())


def test_phases_are_timed_and_told_to_the_strategy() -> None:
    told: list[tuple[str, bool]] = []

    class Strategy:
        @contextmanager
        def phase(self, name: str) -> Iterator[None]:
            told.append((name, True))
            try:
                yield
            finally:
                told.append((name, False))

    clock = PhaseClock()
    with clock.enter("encode", Strategy()):
        assert clock.current == "encode"
    with clock.enter("update"):
        pass
    with pytest.raises(KeyError), clock.enter("update", Strategy()):
        raise KeyError
    assert clock.current is None
    assert told == [("encode", True), ("encode", False), ("update", True), ("update", False)]
    assert clock.seconds.keys() == {"encode", "update"}
    assert all(seconds >= 0 for seconds in clock.seconds.values())
    clock.reset()
    assert clock.seconds == {}


def test_phases_of_a_step_in_their_order() -> None:
    seen: list[str] = []
    module = make_grpo(num_updates=2)
    enter = module.clock.enter
    module.clock.enter = lambda name, strategy=None: (seen.append(name), enter(name, strategy))[1]  # type: ignore[method-assign]
    fit(module)
    assert list(dict.fromkeys(seen)) == list(PHASES)
    assert seen.count("encode") == seen.count("rollout") == 1
    assert torch.is_grad_enabled()

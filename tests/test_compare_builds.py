"""The comparison of two builds sees a changed number, name, text and tensor; the scenarios are what they say."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from compare.results import KINDS, after, compare, is_measured, leaves, read  # noqa: E402
from compare.scenarios import MEANT, merged, scenarios  # noqa: E402
from compare_builds import without  # noqa: E402
from lightning.pytorch.loggers import TensorBoardLogger  # noqa: E402


def run_folder(folder: Path, **changes: Any) -> Path:
    """What a run of two steps leaves."""
    values: dict[str, Any] = {
        "loss": 0.25,
        "weight": 1.0,
        "text": "one",
        "wer": float("nan"),
        "momentum": 0.5,
    } | changes
    logger = TensorBoardLogger(str(folder), name="", version="")
    for step in (1, 2):
        logger.log_metrics(
            {"loss": values["loss"] * step, "seconds/update": hash(folder) % 1000}, step=step
        )
    logger.experiment.add_text("val/set", values["text"], 2)
    logger.save()
    checkpoint = {
        "state_dict": {"policy.weight": torch.full((2, 3), values["weight"])},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.full((2, 3), values["momentum"])}}}],
        "lr_schedulers": [{"last_epoch": 2}],
        "audiorl": {
            "rl_step": 2,
            "evaluations": [{"results": {"set": {"wer": values["wer"], "rtf": 0.1}}}],
        },
    }
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder


def differing(base: Path, present: Path) -> dict[str, float]:
    """Kinds that differ, and the largest difference of each."""
    tables = read(base), read(present)
    results = {kind: compare(tables[0][kind], tables[1][kind]) for kind in KINDS}
    return {kind: result.largest for kind, result in results.items() if not result.is_equal}


def test_a_constant_that_one_build_draws_and_another_does_not_is_no_difference(
    tmp_path: Path,
) -> None:
    """Here each point of curves that do not change, there what is drawn of them once they do."""
    base = run_folder(tmp_path / "base")
    present = run_folder(tmp_path / "present")
    drawn = TensorBoardLogger(str(base), name="", version="")
    for step in (1, 2, 3, 4):
        later = 0.5 if step == 4 else 0.1
        drawn.log_metrics({"never": 0.0, "later": later, "odd": math.nan}, step=step)
    drawn.save()
    held_back = TensorBoardLogger(str(present), name="", version="")
    for step, later in ((1, 0.1), (3, 0.1), (4, 0.5)):
        held_back.log_metrics({"later": later}, step=step)
    held_back.save()
    assert differing(base, present) == {}


@pytest.mark.parametrize(
    ("change", "kind", "size"),
    [
        ({"loss": 0.25 + 2**-20}, "metrics", 2**-19),
        ({"weight": 1.0 + 2**-23}, "weights", 2**-23),
        ({"momentum": -0.5}, "optimizer", 1.0),
        ({"text": "two"}, "texts", math.inf),
        ({"wer": 0.5}, "evaluations", math.inf),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_number_is_seen(
    change: dict[str, Any], kind: str, size: float, tmp_path: Path
) -> None:
    base, same, other = (tmp_path / name for name in ("base", "same", "other"))
    run_folder(base)
    assert differing(base, run_folder(same)) == {}
    assert differing(base, run_folder(other, **change)) == {kind: size}


def test_what_differs_is_named() -> None:
    result = compare({"a@1": 1.0, "b@1": 2.0, "c@1": 0.0}, {"a@1": 1.5, "b@1": 4.0, "d@1": 0.0})
    assert (result.num, result.num_differing, result.largest, result.where) == (2, 2, 2.0, "b@1")
    assert (result.only_base, result.only_present) == (["c@1"], ["d@1"])
    assert not compare({}, {}).is_equal
    assert not compare({"a": 0.0}, {"a": 0.0, "b": 1.0}).is_equal
    assert compare({"a": 0.0}, {"a": 0.0, "b": 1.0}, may_grow=True).is_equal
    assert not compare({"a": 0.0}, {"a": -0.0}).is_equal
    assert not compare({"a": 1}, {"a": 1.0}).is_equal
    assert not compare({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.float64)}).is_equal


def test_seconds_are_left_out_and_memory_of_parts_is_not() -> None:
    measured = (
        "seconds/update@1",
        "val/set/real_time_factor@2",
        "callbacks/RunReport/total_s",
        "peak_mib/update@1",
    )
    assert all(map(is_measured, measured))
    assert not any(
        map(
            is_measured, ("loss@1", "reward/mean@1", "grad_norm@3", "resident_mib/policy@1", "kl@2")
        )
    )


def test_a_resumed_run_is_compared_from_its_beginning() -> None:
    names = {
        "metrics": ["loss@2", "loss@3"],
        "weights": ["w"],
        "checkpoint": ["loops/fit", "audiorl/rl_step"],
    }
    table: Any = {kind: dict.fromkeys(names.get(kind, []), 0.0) for kind in KINDS}
    later = after(table, 2, 4)
    assert list(later["metrics"]) == ["loss@3"]
    assert list(later["weights"]) == ["w"]
    assert list(later["checkpoint"]) == ["audiorl/rl_step"]


def test_ignored_values_are_left_out() -> None:
    table: Any = {"metrics": {"kl@1": 0.0, "loss@1": 0.0}}
    assert without(table, ["metrics/kl@*"]) == {"metrics": {"loss@1": 0.0}}


def test_settings_are_laid_over_each_other() -> None:
    assert merged({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}
    assert dict(leaves({"a": {"b": 1}, "c": [2.0, None]})) == {"a/b": 1, "c/0": 2.0, "c/1": None}


def test_scenarios_cover_the_algorithms() -> None:
    known = scenarios()
    trained = {
        scenario.settings["model"]["class_path"].rsplit(".", 1)[1] for scenario in known.values()
    }
    assert trained == {"SFT", "GRPO", "DiffRO", "GRPODiffRO"}
    strategies = {scenario.settings["trainer"].get("strategy") for scenario in known.values()}
    assert strategies == {None, "phase_single", "phase_ddp", "phase_fsdp"}
    assert {scenario.devices for scenario in known.values()} == {1, 2}
    assert all(0 <= scenario.resume < scenario.num_steps for scenario in known.values())


def test_differences_by_design_are_few_and_named() -> None:
    meant = {name: scenario.meant for name, scenario in scenarios().items() if scenario.meant}
    assert meant == {"grpo_whisper": ("checkpoint/audiorl/finetune/lora_targets/*",)}
    # Of all of them only what is read, and no number.
    assert not [one for one in MEANT if one.startswith(("metrics", "weights", "optimizer"))]
    rounding = {name: one.rounding for name, one in scenarios().items() if one.rounding}
    assert rounding == {"grpo_dapo": 1e-3}


def test_rounding_by_design_is_bounded() -> None:
    result = compare({"a": 1.0}, {"a": 1.5})
    result.rounding = 0.5
    assert result.is_equal
    result.rounding = 0.25
    assert not result.is_equal
    result = compare({"a": 1.0}, {"a": float("nan")})
    result.rounding = 1e9
    assert not result.is_equal

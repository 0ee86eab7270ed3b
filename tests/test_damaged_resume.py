"""A run goes on, is evaluated and is begun from whole checkpoints only; beside a damaged one the last good is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_audiorl.algorithms import SFT
from lightning_audiorl.callbacks import RLCheckpoint
from lightning_audiorl.models import FunAsrNanoPolicy
from tests.algorithms.tiny import fit, make_batch, make_grpo, make_policy
from tests.damage import CHECKPOINTS, outcome

NEWEST = "step-000002.ckpt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run of three steps; the second is gone on from."""
    folder = tmp_path_factory.mktemp("run")
    saving = RLCheckpoint(every_n_steps=1, keep=3, dirpath=str(folder))
    fit(SFT(make_policy(), 3), None, saving, enable_checkpointing=True)
    return folder


class Looked(Exception):
    """Ends a run that has been looked at."""


def resumed(path: Path) -> dict[str, Tensor]:
    """What a run has in its hands when it goes on for one more step, and the optimizer's part of it."""
    module = SFT(make_policy(), 3)
    seen: dict[str, Tensor] = {}

    def look(self: Any) -> None:
        seen.update({name: value.clone() for name, value in module.policy.state_dict().items()})
        for number, state in enumerate(module.optimizers().optimizer.state.values()):  # type: ignore[union-attr]
            seen[f"optimizer {number}"] = state["exp_avg"].clone()
        raise Looked

    module.on_train_batch_start = lambda *_: look(module)  # type: ignore[method-assign]
    with pytest.raises(Looked):
        fit(module, None, ckpt_path=str(path))
    return seen


def evaluated(path: Path) -> dict[str, Tensor]:
    module = SFT(make_policy(), 3)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    loader = DataLoader([make_batch()], batch_size=None)  # type: ignore[arg-type]
    trainer.validate(module, loader, ckpt_path=str(path), verbose=False)
    return dict(module.policy.state_dict())


def begun(path: Path) -> dict[str, Tensor]:
    return dict(FunAsrNanoPolicy(str(path)).state_dict())


WAYS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "resume": resumed,
    "validate": evaluated,
    "init_from": begun,
}


def damaged(finished: Path, folder: Path, kind: str) -> Path:
    """A copy of the run whose newest checkpoint is damaged, under both of its names."""
    for name in ("step-000001.ckpt", NEWEST):
        shutil.copyfile(finished / name, folder / name)
    CHECKPOINTS[kind](folder / NEWEST)
    (folder / "last.ckpt").hardlink_to(folder / NEWEST)
    return folder / "last.ckpt"


def check(finished: Path, folder: Path, kind: str, way: str) -> str:
    path = damaged(finished, folder, kind)
    load = WAYS[way]
    whole = load(finished / NEWEST)
    found = outcome(lambda: load(path), whole, path)
    if found == "refused":
        with pytest.raises(
            (ValueError, OSError), match=r"the last good one there is .*step-000001\.ckpt"
        ):
            load(path)
    return found


@pytest.mark.fault(
    "Starts and checkpoints",
    "a checkpoint cut short, emptied, with a flipped byte, a missing tensor, NaN, or a changed optimizer",
    "resuming, evaluating and init_from refuse it, with its path and the last good checkpoint beside it",
)
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("resume", "cut at 60%"),
        ("resume", "sixty bytes flipped"),
        ("resume", "the optimizer's value changed"),
        ("resume", "a tensor missing"),
        ("validate", "one value changed"),
        ("validate", "cut at 0%"),
        ("validate", "NaN"),
        ("validate", "text"),
        ("init_from", "no start_hash"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_a_good_one_named(
    way: str, kind: str, finished: Path, tmp_path: Path
) -> None:
    assert check(finished, tmp_path, kind, way) == "refused"


@pytest.mark.slow
@pytest.mark.fault(
    "Starts and checkpoints",
    "a checkpoint damaged in one of 68 ways, by which a run goes on or is evaluated",
    "it is refused with its path and the last good one beside it, or weights and optimizer are those that were saved",
)
@pytest.mark.parametrize("way", ["resume", "validate"])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_no_damage_goes_on_in_silence(way: str, kind: str, finished: Path, tmp_path: Path) -> None:
    check(finished, tmp_path, kind, way)


@pytest.mark.fault(
    "Starts and checkpoints",
    "a checkpoint of an earlier build, without hashes",
    "it is gone on from, evaluated and begun from as before",
)
def test_earlier_checkpoints_go_on(finished: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(finished / NEWEST, weights_only=True)
    del checkpoint["audiorl"]["hashes"]
    path = tmp_path / "earlier.ckpt"
    torch.save(checkpoint, path)
    for way, load in WAYS.items():
        assert outcome(lambda load=load: load(path), load(finished / NEWEST), path) == "equal", way


@pytest.mark.fault(
    "Starts and checkpoints",
    "a checkpoint that is not there, or all are damaged",
    "the error says which good one there is, or that there is none",
)
def test_a_missing_checkpoint_names_a_good_one(finished: Path, tmp_path: Path) -> None:
    for load in WAYS.values():
        with pytest.raises(
            FileNotFoundError, match=r"no checkpoint .*gone\.ckpt; the last good one there is"
        ):
            load(finished / "gone.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is empty.*; there is no good checkpoint in"):
        begun(tmp_path / "last.ckpt")


@pytest.mark.fault(
    "Starts and checkpoints",
    "a checkpoint of another algorithm or another start is gone on from",
    "the error names the checkpoint",
)
def test_a_checkpoint_of_another_run_is_named(finished: Path) -> None:
    with pytest.raises(
        ValueError, match=r"ckpt_path .*step-000002\.ckpt: a run of SFT, not of GRPO"
    ):
        fit(make_grpo(), ckpt_path=str(finished / NEWEST))

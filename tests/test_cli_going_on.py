"""``--ckpt_path last`` for the training of a part, and for evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import test_cli_parts
from tests.command import class_of, run, tiny_config, write_manifest


def speaker_judge(folder: Path, num_steps: int) -> dict[str, Any]:
    network = class_of("judges.XvectorNetwork", width=8)
    model = class_of(
        "judges.SpeakerTraining",
        network=network,
        num_steps=num_steps,
        speakers=["", "b"],
        folder=str(folder / "run" / "judge"),
    )
    data = test_cli_parts.data()
    data["init_args"].pop("val")
    trainer = {"accelerator": "cpu", "default_root_dir": str(folder / "run"), "logger": False}
    return {"trainer": trainer, "model": model, "data": data}


@pytest.mark.fault(
    "Runs that stop and go on",
    "the training of a judge, codec or Token2Text that has ended is made longer",
    "it goes on from --ckpt_path last; where nothing is left to train it says so",
)
def test_the_training_of_a_part_goes_on(tmp_path: Path) -> None:
    run(tmp_path, speaker_judge(tmp_path, num_steps=1))
    longer = run(tmp_path, speaker_judge(tmp_path, num_steps=3), "--ckpt_path", "last")
    assert longer.model.global_step == 3
    first, second = (
        torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)["global_step"]
        for name in ("last.ckpt", "epoch=0-step=3.ckpt")
    )
    assert first == second == 3
    with pytest.warns(
        UserWarning, match=r"already finished: step 3 of 3, nothing is left to train"
    ):
        run(tmp_path, speaker_judge(tmp_path, num_steps=3), "--ckpt_path", "last")
    with pytest.warns(UserWarning, match=r"this run writes to .*run-2"):
        run(tmp_path, speaker_judge(tmp_path, num_steps=1))
    assert (tmp_path / "run-2" / "judge" / "config.json").is_file()


@pytest.mark.fault(
    "Runs that stop and go on",
    "an evaluation of --ckpt_path last, or best, where there is none",
    "it is refused, and not the start evaluated instead",
)
def test_an_evaluation_wants_its_checkpoint(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    config = tiny_config(tmp_path, "SFT", num_steps=1)
    for name in ("last", "best"):
        with pytest.raises(
            FileNotFoundError, match=rf"--ckpt_path {name}: there is no .*{name}.ckpt"
        ):
            run(tmp_path, config, "--ckpt_path", name, command="validate")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    run(tmp_path, config)
    assert run(tmp_path, config, "--ckpt_path", "last", command="validate").model.rl_step == 1

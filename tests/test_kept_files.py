"""Files that a run must not lose: the user's own, and those that it begins from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import run, tiny_config, write_manifest


def config(folder: Path, num_steps: int = 1, **sections: Any) -> dict[str, Any]:
    """A supervised run of a step."""
    settings = tiny_config(folder, "SFT", num_steps=num_steps)
    settings["data"]["init_args"].pop("val")
    return settings | sections


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(tmp_path)
    return tmp_path


@pytest.mark.fault(
    "Runs that stop and go on",
    "a config.yaml of the user's in the folder that a run writes to, such as `.`",
    "it stays, also with --overwrite; the run's settings are saved beside it, and a line says so",
)
def test_a_users_settings_stay(folder: Path) -> None:
    own = folder / "run" / "config.yaml"
    own.parent.mkdir()
    own.write_text("# notes of mine\n")
    for more in ([], ["--overwrite"]):
        with pytest.warns(UserWarning, match=r"config\.yaml is a file of yours, and stays"):
            run(folder, config(folder), *more)
        assert own.read_text() == "# notes of mine\n"
        saved = yaml.safe_load((own.parent / "config_saved.yaml").read_text())
        assert saved["seed_everything"] == 7


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder; a lock says which process has it."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".run"]
    return {path: path.read_bytes() for path in files}


@pytest.mark.fault(
    "Runs that stop and go on",
    "an evaluation in the folder of a run",
    "every file of the run stays as it is; the evaluation has a folder of its own in it, and so has the next one",
)
def test_an_evaluation_has_a_folder_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, config(folder))
    whole = folder / "run"
    written = contents(whole)
    evaluated = config(folder, report={"enabled": True})
    evaluated["data"]["init_args"]["val"] = {"tones": str(folder / "train.jsonl")}

    run(folder, evaluated, "--ckpt_path", "last", command="validate")
    first = contents(whole)
    assert {path: first[path] for path in written} == written
    assert "tones" in (whole / "validate" / "validate.yaml").read_text()
    assert (whole / "validate" / "report" / "validate.json").is_file()
    assert f"is in {whole / 'validate'}\n" in capsys.readouterr().out

    # Another evaluation of the same run, while reports go to a folder of the user's.
    evaluated["report"]["dirpath"] = str(folder / "reports")
    run(folder, evaluated, command="validate")
    second = contents(whole)
    assert {path: second[path] for path in first} == first
    assert (folder / "reports-validate-2" / "validate.json").is_file()
    assert f"is in {whole / 'validate-2'}\n" in capsys.readouterr().out


@pytest.mark.fault(
    "Runs that stop and go on",
    "--overwrite where the new run begins from what the earlier one wrote, or does not begin at all",
    "nothing is removed, and the error names the file and the setting",
)
def test_overwrite_keeps_what_it_cannot_replace(folder: Path) -> None:
    run(folder, config(folder))
    last = folder / "run" / "checkpoints" / "last.ckpt"
    written = last.read_bytes()
    (folder / "link").symlink_to(folder / "run")
    paths = [last, folder / "link" / "checkpoints" / "last.ckpt", os.path.relpath(last)]
    for path in paths:
        settings = config(folder)
        settings["model"]["init_args"]["policy"]["init_args"]["init_from"] = str(path)
        with pytest.raises(ValueError, match=r"--overwrite would remove .*last\.ckpt, which model"):
            run(folder, settings, "--overwrite")
        assert last.read_bytes() == written

    settings = config(folder)
    settings["model"]["init_args"]["policy"]["init_args"]["init_from"] = "/no/such/folder"
    with pytest.raises(Exception, match="no folder /no/such/folder"):
        run(folder, settings, "--overwrite")
    assert last.read_bytes() == written


@pytest.mark.fault(
    "Runs that stop and go on",
    "--overwrite where the user's files have names that begin or end like a run's",
    "they stay",
)
def test_overwrite_keeps_files_of_like_names(folder: Path) -> None:
    run(folder, config(folder))
    mine = [
        folder / "run" / name
        for name in (
            "export/my_config.json",
            "export/tokenizer_notes.md",
            "export/model_of_mine.safetensors",
            "checkpoints/step-of-mine.ckpt",
        )
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (folder / "run" / "export" / "tokenizer.json").mkdir()
    run(folder, config(folder), "--overwrite")
    assert all(path.read_text() == "mine" for path in mine)
    assert (folder / "run" / "export" / "tokenizer.json").is_dir()


@pytest.mark.fault(
    "Runs that stop and go on",
    "--ckpt_path by a symbolic link to the run's folder",
    "the run goes on in its own folder",
)
def test_a_checkpoint_by_a_link_is_of_its_run(folder: Path) -> None:
    run(folder, config(folder))
    (folder / "elsewhere").symlink_to(folder / "run")
    link = folder / "elsewhere" / "checkpoints" / "last.ckpt"
    longer = run(folder, config(folder, num_steps=2), "--ckpt_path", str(link))
    assert longer.trainer.default_root_dir == str(folder / "run")
    assert longer.model.rl_step == 2


@pytest.mark.fault(
    "Runs that stop and go on",
    "a file where the run's folder is to be",
    "refused with its path and the setting",
)
def test_a_file_is_no_folder(folder: Path) -> None:
    (folder / "run").write_text("mine")
    with pytest.raises(OSError, match=r"run: .*is a file; give trainer\.default_root_dir another"):
        run(folder, config(folder))
    assert (folder / "run").read_text() == "mine"


@pytest.mark.fault(
    "Runs that stop and go on",
    "a monitor for the best checkpoint or for early stopping in a run that is never evaluated",
    "refused before the first step, with the settings to change",
)
@pytest.mark.parametrize("section", ["checkpoint", "early_stop"])
def test_a_monitor_wants_evaluations(folder: Path, section: str) -> None:
    settings = config(folder, **{section: {"monitor": "val/tones/wer"}})
    with pytest.raises(ValueError, match="the run has no evaluation to take it from"):
        run(folder, settings)
    settings["data"]["init_args"]["val"] = {"tones": str(folder / "train.jsonl")}
    settings["trainer"]["limit_val_batches"] = 0
    with pytest.raises(ValueError, match="the run has no evaluation to take it from"):
        run(folder, settings)


@pytest.mark.fault(
    "Runs that stop and go on",
    "`audiorl predict` whose out is the manifest that it reads, with --overwrite",
    "refused, and the manifest stays",
)
def test_predictions_do_not_replace_their_rows(folder: Path) -> None:
    from lightning_audiorl.commands.predict import predict
    from tests.algorithms.tiny import make_policy

    rows = folder / "train.jsonl"
    written = rows.read_text()
    with pytest.raises(ValueError, match=r"out would replace the rows, .*train\.jsonl"):
        predict(
            {"tiny": make_policy()},
            str(rows),
            str(folder / "." / "train.jsonl"),
            overwrite=True,
            trainer={"accelerator": "cpu"},
        )
    assert rows.read_text() == written


@pytest.mark.fault(
    "Runs that stop and go on",
    "an export into the folder that the policy was loaded from, at the end of a run or by `audiorl export`",
    "refused before anything is trained or written: checkpoints begin from that folder",
)
def test_an_export_does_not_replace_its_start(folder: Path) -> None:
    from lightning_audiorl.commands.export import export
    from lightning_audiorl.models import FunAsrNanoPolicy
    from tests.algorithms.tiny import make_policy

    start = folder / "start"
    make_policy().export(str(start))
    written = (start / "model.safetensors").read_bytes()
    (folder / "link").symlink_to(start)
    with pytest.raises(ValueError, match="is the folder that the policy was loaded from"):
        export(FunAsrNanoPolicy(str(start)), str(folder / "link"))

    settings = config(folder, export={"enabled": True, "dirpath": str(start)})
    settings["model"]["init_args"]["policy"]["init_args"]["init_from"] = str(start)
    with pytest.raises(ValueError, match="is the folder that the policy was loaded from"):
        run(folder, settings)
    assert (start / "model.safetensors").read_bytes() == written

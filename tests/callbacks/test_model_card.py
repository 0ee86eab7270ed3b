"""An exported folder says what its model is: base and licence, data, rewards, settings, metrics before and after."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl.algorithms import SFT
from lightning_audiorl.callbacks import Export, RLCheckpoint
from lightning_audiorl.callbacks.model_card import ModelCard, card_text, export_card
from lightning_audiorl.commands.export import export
from lightning_audiorl.data import AsrDataModule, Subset
from lightning_audiorl.models import FunAsrNanoPolicy, WhisperPolicy
from lightning_audiorl.run_folder import RunFolder
from lightning_audiorl.weights.cards import MARK, card_metadata, metadata_of
from tests.callbacks import runs
from tests.command import write_manifest
from tests.models.families import POLICIES, SPECS
from tests.models.test_export_ways import start_folder

NAMES = list(POLICIES)


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    text = (folder / "README.md").read_text()
    return metadata_of(text), text


@pytest.fixture(scope="module")
def finished(root: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps whose checkpoint and export are there."""
    folder = tmp_path_factory.mktemp("finished")
    saving = RLCheckpoint(every_n_steps=1)
    runs.fit(folder, root, Export(), saving, module=runs.grpo(num_steps=3))
    return folder


def test_a_run_says_what_it_was(finished: Path, root: str) -> None:
    metadata, text = card_of(finished / "export")
    assert metadata == {
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["lightning-audiorl", "grpo"],
        "metrics": ["wer", "cer"],
    }
    assert "There is no base" in text
    assert "a random TinyFunAsrNano after 3 steps of GRPO" in text
    assert "| train/0 | FsddDigits | 1 | 50 | - |" in text
    assert "| val/noise | NonSpeech | - | 2 | - |" in text
    assert "| accuracy | Accuracy | 1 |" in text
    assert "| hallucination | Hallucination | 1 |" in text

    # Before and after, of every set; the settings, which a YAML reader takes.
    for name in ("digits ", "digits/sampled ", "noise "):
        assert f"\n{name}" in text
    assert "step 0 " in text
    assert "step 3 " in text
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert settings["optim"]["lr"] == 1e-3
    assert settings["losses"] == ["PolicyGradient"]
    assert (settings["num_steps"], settings["seed"], settings["finetune"]["lm"]) == (3, 0, "all")
    assert "Versions: lightning_audiorl " in text
    # Nothing of this machine.
    assert str(finished) not in text
    assert root not in text


def test_a_checkpoint_is_exported_with_the_card_of_its_run(finished: Path, tmp_path: Path) -> None:
    policy = FunAsrNanoPolicy(str(finished / "checkpoints" / "last.ckpt"))
    export(policy, str(tmp_path / "command"))
    # But for the evaluation behind the last step, which comes after the checkpoint is written.
    _, of_run = card_of(finished / "export")
    _, of_command = card_of(tmp_path / "command")
    assert of_command.partition("## Metrics")[0] == of_run.partition("## Metrics")[0]
    assert of_command.partition("## Data")[2] == of_run.partition("## Data")[2]
    assert "\ndigits " in of_command


def test_hours_are_those_of_the_manifest(tmp_path: Path) -> None:
    manifest = str(write_manifest(tmp_path))
    data = AsrDataModule(train=[Subset(manifest, {0: 1.0, 2: 0.5})], val={"tones": manifest})
    train, val = data.facts()
    assert train == {
        "set": "train/0",
        "source": "train.jsonl",
        "share": {0: 1.0, 2: 0.5},
        "rows": 6,
        "hours": pytest.approx(2.7 / 3600),
    }
    assert (val["set"], val["share"], val["hours"]) == ("val/tones", None, train["hours"])

    policy = FunAsrNanoPolicy(SPECS["fun_asr_nano"])
    text = card_text(ModelCard(policy, {"data": [train, val]}))
    assert "| train/0 | train.jsonl | 1 from step 0, 0.5 from step 2 | 6 | 0.00 |" in text


@pytest.mark.parametrize("family", NAMES)
def test_the_lines_that_load_it_are_right(family: str, tmp_path: Path) -> None:
    policy = POLICIES[family](start_folder(family, True, tmp_path / "start"))
    export(policy, str(tmp_path / "export"))
    metadata, text = card_of(tmp_path / "export")
    lines = text.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    exec(lines.replace("path/to/this/folder", str(tmp_path / "export")), found)
    assert type(found["model"]) is type(policy.model)
    assert found.get("processor") or found["tokenizer"]
    task = {"text_lm": "text-generation", "speech_lm": "text-to-speech"}
    assert metadata["pipeline_tag"] == task.get(family, "automatic-speech-recognition")
    assert "nothing has trained them since" in text


def test_base_and_licence_are_those_of_the_base(tmp_path: Path) -> None:
    start = Path(start_folder("whisper", True, tmp_path / "my-whisper"))
    known = (
        "base_model: openai/whisper-base\nlicense: other\nlicense_name: house\nlanguage: [en, de]"
    )
    (start / "README.md").write_text(f"---\n{known}\nwidget: [1]\n---\n# Mine\n")
    export(WhisperPolicy(str(start)), str(tmp_path / "one"))
    metadata, text = card_of(tmp_path / "one")
    assert {key: metadata.get(key) for key in yaml.safe_load(known)} == yaml.safe_load(known)
    assert "widget" not in metadata
    assert "holds for these weights too: house." in text
    assert "# my-whisper\n" in text

    # Further down the chain the base is still known.
    export(WhisperPolicy(str(tmp_path / "one")), str(tmp_path / "two"))
    assert card_metadata(str(tmp_path / "two")) == metadata

    for broken in ("", "---\nlicense: [\n---\n", "---\n- mit\n---\n", "---\nlicense: mit\n"):
        (start / "README.md").write_text(broken)
        assert card_metadata(str(start)) == {}
    text = card_text(ModelCard(WhisperPolicy(str(start))))
    assert "For the licence see the base, my-whisper" in text


def test_a_readme_of_ones_own_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = WhisperPolicy(SPECS["whisper"])
    card = tmp_path / "README.md"
    card.write_text("mine")
    with caplog.at_level(logging.WARNING):
        export(policy, str(tmp_path))
    assert card.read_text() == "mine"
    assert "has a README.md of yours, which stays" in caplog.text

    card.unlink()
    export_card(tmp_path, ModelCard(policy, {"algorithm": "SFT"}, 5))
    assert "after 5 steps of SFT" in card.read_text()
    export_card(tmp_path, ModelCard(policy, {"algorithm": "SFT"}, 6))
    assert "after 6 steps of SFT" in card.read_text()
    # What it says is no longer so.
    policy.export(str(tmp_path))
    assert not card.exists()


def test_overwrite_removes_the_card_of_an_earlier_run_and_no_other(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("export", "export_best"):
        (tmp_path / name).mkdir()
    export_card(tmp_path / "export", ModelCard(WhisperPolicy(SPECS["whisper"])))
    (tmp_path / "export_best" / "README.md").write_text("mine")
    assert folder.written() == [tmp_path / "export" / "README.md"]
    folder.release()


def test_a_card_begins_with_its_metadata_and_its_mark(tmp_path: Path) -> None:
    text = card_text(ModelCard(WhisperPolicy(SPECS["whisper"])))
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert text.count(MARK) == 1
    assert json.dumps(metadata_of(text))


def test_a_switched_off_export_looks_at_nothing(root: str, tmp_path: Path) -> None:
    module = SFT(FunAsrNanoPolicy(runs.TINY), 1)
    callback = Export(enabled=False)
    runs.fit(tmp_path, root, callback, module=module)
    assert callback.state_dict() == {"run": {}}
    assert not (tmp_path / "export").exists()

"""The quickstarts: Whisper's command, the controls, the page over seeds and README's picture."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from experiments.before_after import main as draw
from experiments.quickstart_page import page
from experiments.quickstart_seeds import ARMS, SpokenTexts, differences
from lightning_audiorl.models import WhisperPolicy
from lightning_audiorl.reports.comparison import compare_rows
from lightning_audiorl.types import Utterance
from lightning_audiorl.weights.families import read_config
from tests.command import class_of, parser, run, write_manifest
from tests.data.fakes import fake_fsdd
from tests.reports.folders import make_run, rates, result, with_errors

ROOT = Path(__file__).parents[1]
TEXTS = "configs/tts/texts/digits_train.txt"
TINY = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "num_mel_bins": 16}


def whisper_command(*variables: str) -> list[str]:
    """The arguments that `make quickstart-whisper` gives `audiorl`."""
    command = ["make", "--dry-run", "--no-print-directory", "quickstart-whisper", *variables]
    # `make test` hands its own flags and level to the make below it.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=alone)
    text = plan.stdout.replace("\\\n", " ").splitlines()[-1]
    program, *arguments = shlex.split(text)
    assert program.endswith("audiorl")
    return arguments


def parsed(*variables: str) -> Any:
    return parser().parse_args(whisper_command(*variables)).fit


def test_make_takes_a_whisper_and_rows_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plain = parsed()
    assert plain.model.init_args.policy.init_args.init_from == "openai/whisper-base"
    assert plain.data.init_args.val["speech"].class_path.endswith("EspeakCorpus")

    own = parsed("WHISPER=/models/whisper", "DATA=/rows")
    assert own.model.init_args.policy.init_args.init_from == "/models/whisper"
    assert own.data.init_args.val["speech"] == "/rows/dev.jsonl"
    assert own.data.init_args.train[0]["source"] == "/rows/train.jsonl"

    # What is no speech is the same in both, in training and in evaluation.
    assert own.data.init_args.train[1] == plain.data.init_args.train[1]
    assert own.data.init_args.val["nonspeech"] == plain.data.init_args.val["nonspeech"]


def test_a_tiny_whisper_follows_the_quickstart(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "configs" / "quickstart_whisper.yaml").read_text())
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    config["report"] = {"enabled": False}
    model = config["model"]["init_args"]
    model["policy"]["init_args"]["init_from"] = class_of("models.TinyWhisper", **TINY)
    model |= {"num_steps": 1, "group_size": 2}
    model["decoding"]["max_new_tokens"] = 4
    model["eval_decodings"] = {"greedy": {"decoding": {"temperature": 0.0, "max_new_tokens": 4}}}
    manifest = str(write_manifest(tmp_path))
    data = config["data"]["init_args"]
    data["train"][0]["source"] = manifest
    data["val"] = {"speech": manifest, "nonspeech": class_of("data.NonSpeech", num_rows=4)}

    module = run(tmp_path, config).model
    assert module.rl_step == 1
    assert isinstance(module.policy, WhisperPolicy)
    assert set(module.evaluations[-1]["results"]) == {"speech", "nonspeech"}


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    with pytest.raises(OSError, match="no connection") as caught:
        read_config("openai/whisper-base")
    [note] = caught.value.__notes__
    assert note.startswith("openai/whisper-base is neither a folder here nor")
    assert "hf download openai/whisper-base" in note


# --- seeds


def test_a_control_learns_from_the_rows_of_its_quickstart() -> None:
    ours, control = (ARMS[arm]("asr") for arm in ("rl", "control"))
    assert control["data"] == ours["data"]
    assert control["model"]["init_args"]["optim"] == ours["model"]["init_args"]["optim"]
    assert control["model"]["init_args"]["policy"] == ours["model"]["init_args"]["policy"]

    # Of synthesis the same texts, with recordings.
    ours, control = (ARMS[arm]("tts") for arm in ("rl", "control"))
    source = control["data"]["init_args"]["train"][0]["source"]
    wanted = ours["data"]["init_args"]["train"][0]["source"]["init_args"]["texts"]
    assert source["init_args"]["path"] == wanted["init_args"]["path"] == TEXTS
    assert control["data"]["init_args"]["val"] == ours["data"]["init_args"]["val"]


def test_texts_are_spoken_by_recordings_of_their_digits(tmp_path: Path) -> None:
    rows = SpokenTexts(str(ROOT / TEXTS), fake_fsdd(tmp_path))
    texts = (ROOT / TEXTS).read_text().splitlines()
    assert [row.text for row in rows] == texts

    row = rows[0]
    assert row.text == "two zero"
    assert isinstance(row, Utterance)
    names = [Path(part["audio_filepath"]).stem.split("_") for part in row.extra["target"][:2]]
    assert [digit for digit, _, _ in names] == ["2", "0"]
    assert len({speaker for _, speaker, _ in names}) == 1
    # The training part.
    assert all(int(index) >= 9 for _, _, index in names)
    # Another take is another recording.
    more = SpokenTexts(str(ROOT / TEXTS), fake_fsdd(tmp_path), num_takes=2)
    assert len(more) == 2 * len(texts)
    assert more[len(texts)].text == row.text
    assert more[len(texts)].extra["target"] != row.extra["target"]
    assert rows[0] == SpokenTexts(str(ROOT / TEXTS), fake_fsdd(tmp_path))[0]


def record(seed: int, num_wrong: int) -> dict[str, Any]:
    """A seed of recognition: of twelve rows all are wrong at the start, as many as given by RL, six by the control."""
    rows = {
        "start": with_errors([1] * 12),
        "rl": with_errors([1] * num_wrong + [0] * (12 - num_wrong)),
        "control": with_errors([1] * 6 + [0] * 6),
    }
    metrics = {arm: {"wer": rates(of_arm)["wer"]} for arm, of_arm in rows.items()}

    def between(first: str, second: str) -> list[dict[str, Any]]:
        found = []
        for name in ("short", "medium", "long"):
            compared = compare_rows(
                {name: metrics[first]},
                {name: metrics[second]},
                {name: rows[first]},
                {name: rows[second]},
            )
            found += differences(compared)
        # The headline has the same numbers.
        return [*found, found[0] | {"set": "nonspeech", "metric": "nonspeech_text_rate"}]

    cost = {"cpu_s": 60.0, "num_steps": 30}
    return {
        "quickstart": "asr",
        "seed": seed,
        "made_with": {"commit": "abc", "machine": "m", "torch": "2", "transformers": "5"},
        "cost": {"rl": cost, "control": cost},
        "rl_to_start": between("start", "rl"),
        "control_to_start": between("start", "control"),
        "rl_to_control": between("control", "rl"),
    }


def test_the_page_says_wins_and_losses() -> None:
    text = page([record(0, 0), record(1, 12)])
    assert "RL is better than the start beyond chance in 1 of 2 seeds, the control in 2." in text
    assert "RL is lower than the control in 1 of 2 and higher in 1" in text
    assert "beyond chance better in 1, worse in 1." in text
    assert "The difference to the control is +0.0 ± 17.7 points. 2 of 5 seeds have run." in text
    assert "In no seed" not in text
    assert "**In no seed does RL exceed its control beyond chance.**" in page([record(0, 6)])
    assert "| seed 0 | 25.0 | 12.5 | 0.0 | -25.0 (-25.0 to -25.0) | -12.5 (" in text
    assert "## Synthesis" not in text


# --- the picture


def test_the_picture_shows_rows_by_a_rule(tmp_path: Path) -> None:
    before = [result("gained", "one wrong three", "one two three four"), *with_errors([0] * 12)]
    after = [result("gained", "one two three four"), *with_errors([1, *[0] * 11])]
    noise = [[result(f"n{place}", text, "") for place in range(12)] for text in ("you", "")]
    folder = make_run(
        tmp_path / "run", {"dev": before, "noise": noise[0]}, {"dev": after, "noise": noise[1]}
    )
    out = tmp_path / "picture.svg"
    arguments = [f"Speech={folder}:dev", f"Noise={folder}:noise", "--out", str(out)]
    draw(arguments)

    root = ElementTree.parse(out).getroot()
    drawn = [(one.get("class"), one.text) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    # Of speech the row that gained and the one that lost; of noise the one that gained.
    assert ("substitution", "wrong") in drawn
    assert ("deletion", "four") in drawn
    assert drawn.count(("insertion", "you")) == 1
    assert drawn.count(("soft", "before")) == 3
    assert any(text == "(nothing)" for _, text in drawn)

    first = out.read_text()
    draw(arguments)
    assert out.read_text() == first


def test_a_panel_names_a_run_and_a_set() -> None:
    with pytest.raises(SystemExit, match="want TITLE=RUN:SET"):
        draw(["Speech", "--out", "x.svg"])

"""Bad input on its way through Trainer or command line: the message still says what is wrong, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning import Trainer

from lightning_audiorl.algorithms import SFT, AudioRLModule
from lightning_audiorl.data import AsrDataModule, AudioError, ManifestError, ManifestRows, Subset
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano
from lightning_audiorl.rewards import Reward, RewardError
from lightning_audiorl.types import Hypothesis
from tests.algorithms.tiny import make_grpo, make_policy
from tests.command import class_of, run, tiny_config, write_manifest, write_rows
from tests.data.fakes import write_tone

GOOD = {"audio_filepath": "good.wav", "text": "one two", "duration": 0.3}
NO_DURATION = {"text": "one"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Audio of every kind: good, unreadable, empty, with NaN."""
    write_tone(tmp_path / "good.wav", 0.3)
    (tmp_path / "noise.wav").write_bytes(b"this is no audio" * 50)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, dtype="float32"), 16000)
    wave = np.zeros(4800, dtype="float32")
    wave[7] = math.nan
    soundfile.write(tmp_path / "nan.wav", wave, 16000, subtype="FLOAT")
    return tmp_path


def train(train: Any, module: AudioRLModule | None = None, **data: Any) -> AudioRLModule:
    """Two steps of SFT (or of ``module``) on the training data."""
    module = module or SFT(make_policy(), 2)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    data_module = AsrDataModule(train=train, batch_size=2, **data)
    Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(module, datamodule=data_module)
    return module


def manifest(folder: Path, bad: dict[str, Any]) -> str:
    """A good row and, in line 2, a bad one."""
    return str(write_rows(folder / "rows.jsonl", [GOOD, bad]))


@pytest.mark.parametrize(
    ("bad", "field", "problem"),
    [
        (GOOD | {"audio_filepath": "gone.wav"}, "audio_filepath", "no such file: .*gone.wav"),
        (
            NO_DURATION | {"audio_filepath": "noise.wav"},
            "audio_filepath",
            "noise.wav: not readable as audio",
        ),
        (NO_DURATION | {"audio_filepath": "empty.wav"}, "audio_filepath", "holds no samples"),
        ({"audio_filepath": "good.wav"}, "text", "is missing"),
        ({"text": "one"}, "audio_filepath", "is missing"),
        (GOOD | {"text": ["one"]}, "text", "expected a string, got list"),
        (GOOD | {"duration": "long"}, "duration", 'expected a number of seconds, got str "long"'),
        (GOOD | {"text": " "}, "text", "is empty"),
        (GOOD | {"id": "rows:1"}, "id", "already used in line 1"),
    ],
    ids=["gone", "unreadable", "empty", "no text", "no path", "type", "duration", "no words", "id"],
)
def test_manifest_rows(folder: Path, bad: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(ManifestError, match=f"rows.jsonl, line 2, field `{field}`: .*{problem}"):
        train(manifest(folder, bad))


@pytest.mark.parametrize(
    ("name", "problem"),
    [("noise", "not readable as audio"), ("empty", "holds no samples"), ("nan", "holds NaN")],
)
def test_audio_that_is_found_bad_when_read(folder: Path, name: str, problem: str) -> None:
    path = manifest(folder, GOOD | {"audio_filepath": f"{name}.wav"})
    with pytest.raises(AudioError, match=rf"row 'rows:2': .*{name}\.wav: {problem}"):
        train(path)


def test_bad_rows_may_be_skipped_and_are_counted(folder: Path) -> None:
    bad = [
        GOOD | {"audio_filepath": "gone.wav"},
        {"audio_filepath": "good.wav"},
        GOOD | {"text": ""},
    ]
    rows = ManifestRows(str(write_rows(folder / "rows.jsonl", [GOOD, *bad])), on_bad_row="skip")
    assert train([Subset(rows)]).rl_step == 2
    assert rows.skipped == {"missing file": 1, "missing text": 1, "empty text": 1}


def test_text_outside_the_vocabulary(folder: Path) -> None:
    path = manifest(folder, GOOD | {"text": "one pear"})
    with pytest.raises(
        ValueError, match=r"row 'rows:2.*text 'one pear' is outside the tokenizer's vocabulary"
    ):
        train(path)


def test_text_outside_the_vocabulary_is_no_hindrance_to_rl(folder: Path) -> None:
    """The reference is compared as text, not scored by the model."""
    assert train(manifest(folder, GOOD | {"text": "one pear"}), make_grpo(num_steps=2)).rl_step == 2


def test_clip_longer_than_the_model_takes(folder: Path) -> None:
    write_tone(folder / "long.wav", 1.0)
    path = manifest(folder, GOOD | {"audio_filepath": "long.wav", "duration": 1.0})
    tiny = TinyFunAsrNano(width=32, encoder_layers=1, lm_layers=1, heads=2, max_frames=8)
    with pytest.raises(
        ValueError, match=r"row 'rows:2' lasts 1\.00 s, more than the 0\.48 s that FunAsrNanoPolicy"
    ):
        train(path, SFT(FunAsrNanoPolicy(tiny), 2))
    with pytest.raises(
        ValueError, match=r"row 'rows:2' lasts 1\.00 s, more than max_duration_s=0\.5"
    ):
        train(path, max_duration_s=0.5)
    assert (
        train(path, SFT(FunAsrNanoPolicy(tiny), 2), max_duration_s=0.48, on_too_long="skip").rl_step
        == 2
    )


class Broken(Reward):
    """Fails as it is told: raises, or gives NaN, for each sample or the first of a step; or one value too few."""

    def __init__(self, how: str, weight: float = 1.0, name: str = "broken") -> None:
        super().__init__(weight, name)
        self.how = how

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        values = [float(len(h.text)) for h in hypotheses]
        if self.how == "short":
            return values[:-1]
        if "raise" in self.how and (len(hypotheses) > 1 or self.how == "raise"):
            raise KeyError("no judge")
        if self.how == "nan":
            return [math.nan] * len(values)
        return [math.nan, *values[1:]] if self.how == "nan once" else values


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "raise",
            r"reward 'broken' \(Broken\) failed on all 8 samples of a step; .*KeyError\('no judge'\).*rows:1",
        ),
        (
            "nan",
            r"reward 'broken' \(Broken\) failed on all 8 samples of a step; it gave nan for row 'rows:1",
        ),
        ("short", r"reward 'broken' \(Broken\) returned 7 values for 8 hypotheses"),
    ],
)
def test_a_broken_reward_stops_the_run(folder: Path, how: str, message: str) -> None:
    path = str(write_rows(folder / "rows.jsonl", [GOOD]))
    with pytest.raises(RewardError, match=message):
        train(path, make_grpo(make_policy(), Broken(how), num_steps=2))


@pytest.mark.parametrize(("how", "failed"), [("nan once", 1), ("raise in a batch", 0)])
def test_a_reward_that_fails_on_some_samples(folder: Path, how: str, failed: int) -> None:
    """They leave the step and are counted; a reward that only fails on whole batches is asked one by one."""
    module = make_grpo(make_policy(), Broken(how), num_steps=2)
    train(str(write_rows(folder / "rows.jsonl", [GOOD])), module)
    assert module.rl_step == 2
    assert module.step_metrics["reward_failures/broken"] == failed
    assert module.step_metrics["invalid_share"] == pytest.approx(failed / 8)
    assert module.step_metrics["grad_norm"] > 0


def test_equal_rewards_are_counted_and_move_nothing(folder: Path) -> None:
    module = make_grpo(make_policy(), Same(), num_steps=2, beta=0.0)
    before = torch.cat([p.detach().flatten() for p in module.policy.trainable().values()])
    train(str(write_rows(folder / "rows.jsonl", [GOOD])), module)
    after = torch.cat([p.detach().flatten() for p in module.policy.trainable().values()])
    assert module.step_metrics["zero_variance_share"] == 1
    assert torch.equal(before, after)


class Same(Reward):
    """1 for everything."""

    def __init__(self, weight: float = 1.0, name: str = "same") -> None:
        super().__init__(weight, name)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return [1.0] * len(hypotheses)


def test_through_the_command_line(folder: Path) -> None:
    config = tiny_config(folder)
    write_rows(folder / "train.jsonl", [GOOD, GOOD | {"audio_filepath": "gone.wav"}])
    with pytest.raises(
        ManifestError, match=r"train\.jsonl, line 2, field `audio_filepath`: no such file"
    ):
        run(folder, config)
    write_manifest(folder)
    config["model"]["init_args"]["rewards"]["init_args"]["rewards"] = [
        class_of("tests.test_bad_input.Broken", how="short")
    ]
    with pytest.raises(
        RewardError, match=r"reward 'broken' \(Broken\) returned 7 values for 8 hypotheses"
    ):
        run(folder, config)
    (folder / "train.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl: no such manifest"):
        run(folder, config)


def test_starting_weights_that_are_not_there(folder: Path) -> None:
    config = tiny_config(folder)
    write_manifest(folder)
    for given, message in {
        "./gone": r"^init_from: no folder \./gone",
        "gone": r"^init_from: no folder gone \(a hub id has the form owner/name\)",
        str(folder): r"^init_from: folder .* has no config\.json",
    }.items():
        config["model"]["init_args"]["policy"]["init_args"]["init_from"] = given
        with pytest.raises(FileNotFoundError, match=message):
            run(folder, config)


def test_a_setting_that_makes_no_sense_is_said_by_itself(folder: Path) -> None:
    """Not wrapped in what jsonargparse has to say of the types that it tried."""
    with pytest.raises(ValueError, match=r"^group_size must be at least 2, got 1"):
        run(folder, tiny_config(folder, group_size=1))
    with pytest.raises(ValueError, match=r"^Optim\.lr: want a finite number above 0"):
        run(folder, tiny_config(folder, optim={"lr": 0.0}))

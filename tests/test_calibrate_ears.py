"""``audiorl calibrate`` of ears: what judges are asked about, what is written, and what is warned of."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lightning_audiorl import cli
from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.commands.calibrate import calibrate
from lightning_audiorl.commands.ears import ear_calibrations, heard_clips
from lightning_audiorl.judges import AsrJudge, QualityPredictor, SpeakerEncoder
from lightning_audiorl.judges.transcript import Transcript
from lightning_audiorl.types import Utterance
from tests import speech
from tests.command import class_of
from tests.data.fakes import fake_fsdd

RATE_HZ = 8000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    speech.judge_folders(folder)
    fake_fsdd(folder, num_index=11)
    return folder


class Reads(AsrJudge):
    """Knows the text of a recording, and writes an x in noise; sure of itself."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__("reads", RATE_HZ)
        self.wrong = wrong

    @property
    def reports(self) -> tuple[str, ...]:
        return ("log_prob",)

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        heard: list[str | None] = []
        for wave, row in zip(waveforms, rows, strict=True):
            is_noise = is_white(wave) or self.wrong
            heard.append(Transcript("x" if is_noise else row.text, {"log_prob": -float(is_noise)}))
        return heard


def is_white(wave: Tensor) -> bool:
    """Half of the power is in the upper half of the band."""
    power = torch.fft.rfft(wave).abs().square()
    return bool(power[len(power) // 2 :].sum() > 0.4 * power.sum())


class Level(QualityPredictor):
    range = (0.0, 1.0)

    def predict(self, waveform: Tensor) -> float:
        return float(waveform.square().mean().sqrt())


class Same(SpeakerEncoder):
    def embed(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).repeat(len(waveform), 1)


def clips(folder: Path, **settings: Any) -> Any:
    rows = speech.rows(str(folder), num_rows=6, **settings)
    return heard_clips(
        rows,
        sample_rate_hz=RATE_HZ,
        prompt_s=(0.05, 5.0),
        batch_size=4,
        codec=TinyCodec(speech.CODEC),
    )


def test_what_ears_are_asked_about(folder: Path) -> None:
    heard = clips(folder)
    assert {kind: len(samples) for kind, samples in heard.by_kind.items()} == {
        "recordings": 6,
        "noise": 6,
        "resynthesis": 6,
    }
    for recording, noise in zip(heard.recordings, heard.by_kind["noise"], strict=True):
        one, other = recording.speech.waveform, noise.speech.waveform
        assert len(one) == len(other)
        assert float(other.square().mean()) == pytest.approx(float(one.square().mean()), rel=1e-4)
        assert is_white(other)
    texts = [sample.row.text for sample in heard.recordings]
    assert all(text != other.text for text, other in zip(texts, heard.other_texts, strict=True))
    speakers = [sample.row.speaker for sample in heard.recordings]
    assert all(speakers[i] != speakers[other] for i, other in enumerate(heard.other_voices))


def test_what_is_found_of_each_kind_of_ear(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ears = {"good": Reads(), "level": Level("level", RATE_HZ), "same": Same("same", RATE_HZ)}
    heard = clips(folder)
    with caplog.at_level(logging.WARNING):
        found = ear_calibrations(ears, heard)
    assert not caplog.records
    good = found["good"]
    assert good["cer"]["recordings"] == 0.0
    assert good["cer"]["noise"] == pytest.approx(1.0, abs=0.05)
    assert good["cer"]["wrong text"] > 0.3
    assert (good["measures"]["recordings"], good["measures"]["noise"]) == (
        {"log_prob": 0.0},
        {"log_prob": -1.0},
    )
    levels = found["level"]["quality"]
    assert levels["noise"] == pytest.approx(levels["recordings"], rel=1e-3)
    assert found["same"]["similarity"]["other voice"] == 1.0
    assert found["same"]["confused"] == 1.0

    with caplog.at_level(logging.WARNING):
        ear_calibrations({"deaf": Reads(wrong=True)}, heard)
    assert "judge 'deaf' errs on 97.5 % of the characters" in caplog.text
    assert "above max_error 30.0 %" in caplog.text


def test_rows_without_recordings_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no row has a recording of its text, which ears"):
        clips(folder, with_target=False)


def test_the_command_writes_and_prints_tables(folder: Path, tmp_path: Path, capsys: Any) -> None:
    settings = {
        "ears": {
            "one": class_of("judges.CtcJudge", folder=str(folder / "judge")),
            "two": class_of("judges.CtcJudge", folder=str(folder / "judge")),
        },
        "codec": class_of("codecs.TinyCodec", init_from=asdict(speech.CODEC)),
        "rows": class_of("data.speech.FsddSpeech", root=str(folder), num_rows=5),
        "prompt_s": [0.05, 5.0],
        "normalisers": {"en": class_of("text.SpokenNumberNormaliser", lang="en", reading="digits")},
        "out": str(tmp_path / "ears.json"),
    }
    config = tmp_path / "ears.yaml"
    config.write_text(yaml.safe_dump(settings))
    arguments = ["calibrate", "--config", str(config), "--ears.one.init_args.batch_size=2"]
    cli.main([*arguments, "--max_error=5.0"])
    written = json.loads((tmp_path / "ears.json").read_text())
    assert list(written) == ["settings", "ears"]
    assert list(written["ears"]) == ["one", "two"]
    assert written["ears"]["one"] == written["ears"]["two"]
    assert written["settings"] == {"num_rows": 5, "seed": 0, "max_error": 5.0}
    table = (tmp_path / "ears.md").read_text()
    assert capsys.readouterr().out.startswith(table)
    assert table.startswith("# 2 ears, 5 recordings\n")
    assert "| recogniser: CER % of | recordings | resynthesis | noise | wrong text |" in table


def test_ears_or_a_token2text_with_a_judge(folder: Path, tmp_path: Path) -> None:
    rows = speech.rows(str(folder), num_rows=2)
    for settings in ({}, {"token2text": "somewhere"}, {"judge": Reads(), "ears": {"a": Reads()}}):
        with pytest.raises(ValueError, match="give token2text with a judge, or ears, or all three"):
            calibrate(rows, str(tmp_path / "c.json"), **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_error"):
        calibrate(rows, str(tmp_path / "c.json"), ears={"a": Reads()}, max_error=math.nan)
    with pytest.raises(ValueError, match="'a' is a Linear; expected an AsrJudge"):
        ear_calibrations({"a": torch.nn.Linear(1, 1)}, clips(folder))  # type: ignore[dict-item]

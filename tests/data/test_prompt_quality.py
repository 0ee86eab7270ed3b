"""Measures of speaker prompts on waveforms whose level, noise and clipping are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from lightning_audiorl.data import (
    PromptClipping,
    PromptDuration,
    PromptLoudness,
    PromptMeasures,
    PromptNoise,
    measure_prompt,
)
from lightning_audiorl.data.audio.reading import AudioError
from lightning_audiorl.data.mix.selection import Candidate
from lightning_audiorl.data.mix.selection import by_prompt_quality as module
from lightning_audiorl.data.mix.selection.by_prompt_quality import (
    SILENT_DB,
    PromptRule,
    check_prompt,
    prompt_measures,
)
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Segment, Utterance

RATE_HZ = 16000


def bursts(level_db: float, noise_db: float | None, seconds: float = 4.0) -> Tensor:
    """A tone, on for 0.3 s and off for 0.2 s, at an RMS level while it is on; white noise all along."""
    time_s = torch.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = (
        torch.sin(2 * math.pi * 300 * time_s)
        * math.sqrt(2)
        * 10 ** (level_db / 20)
        * (time_s % 0.5 < 0.3)
    )
    if noise_db is None:
        return wave
    return wave + torch.randn(wave.shape, generator=keyed_generator("noise")) * 10 ** (
        noise_db / 20
    )


def row(path: Path, wave: Tensor, row_id: str = "r") -> Utterance:
    soundfile.write(path, wave.numpy(), RATE_HZ, subtype="FLOAT")
    return Utterance(row_id, (Segment(str(path), len(wave) / RATE_HZ),), "text", 9.0)


@pytest.mark.parametrize(
    ("level_db", "noise_db"), [(-20.0, -60.0), (-20.0, -40.0), (-30.0, -48.0), (-12.0, -70.0)]
)
def test_level_and_noise_of_bursts(level_db: float, noise_db: float) -> None:
    measures = measure_prompt(bursts(level_db, noise_db), RATE_HZ)
    assert measures.duration_s == 4.0
    assert measures.level_db == pytest.approx(level_db, abs=0.7)
    assert measures.snr_db == pytest.approx(level_db - noise_db, abs=1.5)
    assert measures.clipped == 0.0


def test_level_is_that_of_the_speech_not_of_the_pauses() -> None:
    dense, sparse = (
        bursts(-20.0, -70.0),
        torch.cat([bursts(-20.0, -70.0), torch.zeros(4 * RATE_HZ)]),
    )
    assert measure_prompt(dense, RATE_HZ).level_db == pytest.approx(
        measure_prompt(sparse, RATE_HZ).level_db, abs=0.05
    )
    # Digital silence between joined clips is not what a recording's noise is measured by.
    assert measure_prompt(sparse, RATE_HZ).snr_db == pytest.approx(50.0, abs=1.5)


def test_clipping_is_the_share_of_samples_at_full_scale() -> None:
    time_s = torch.arange(RATE_HZ) / RATE_HZ
    wave = (2 * torch.sin(2 * math.pi * 100 * time_s)).clamp(-1, 1)
    beyond = 2 * math.acos(0.99 / 2) / math.pi  # where |2 sin| is 0.99 or more
    assert measure_prompt(wave, RATE_HZ).clipped == pytest.approx(beyond, abs=0.01)
    assert measure_prompt(0.9 * wave, RATE_HZ).clipped == 0.0


def test_silence_nothing_and_a_single_click() -> None:
    assert measure_prompt(torch.zeros(8000), RATE_HZ) == PromptMeasures(0.5, 0.0, SILENT_DB, 0.0)
    assert measure_prompt(torch.zeros(0), RATE_HZ) == PromptMeasures(0.0, 0.0, SILENT_DB, 0.0)
    click = torch.zeros(1001)
    click[-1] = 0.5  # behind the last whole frame
    measures = measure_prompt(click, RATE_HZ)
    assert math.isfinite(measures.level_db)
    assert math.isfinite(measures.snr_db)
    assert measure_prompt(torch.full((7,), 0.5), RATE_HZ).level_db == pytest.approx(-6.02, abs=0.01)


@pytest.mark.parametrize(
    ("rule", "wave", "reason"),
    [
        (PromptDuration(1.0, 2.0), bursts(-20, -60, 0.5), "prompt shorter than 1 s"),
        (PromptDuration(1.0, 2.0), bursts(-20, -60, 2.5), "prompt longer than 2 s"),
        (PromptDuration(1.0, 2.0), bursts(-20, -60, 1.5), ""),
        (
            PromptClipping(0.01),
            bursts(0, -60).clamp(-1, 1),
            "more than 0.01 of the prompt's samples clipped",
        ),
        (PromptClipping(0.01), bursts(-6, -60), ""),
        (PromptLoudness(-30, -10), bursts(-35, -60), "prompt quieter than -30 dB"),
        (PromptLoudness(-30, -10), bursts(-5, -60), "prompt louder than -10 dB"),
        (PromptLoudness(-30, -10), torch.zeros(RATE_HZ), "prompt silent"),
        (PromptLoudness(-30, -10), bursts(-20, -60), ""),
        (PromptNoise(20), bursts(-20, -30), "signal-to-noise ratio of the prompt below 20 dB"),
        (PromptNoise(20), bursts(-20, -50), ""),
    ],
)
def test_rules_keep_good_prompts(
    tmp_path: Path, rule: PromptRule, wave: Tensor, reason: str
) -> None:
    verdict = rule.judge(Candidate(0, row(tmp_path / "a.wav", wave)))
    assert verdict.keep == (reason == "")
    assert reason in ("", verdict.reason)
    without = rule.judge(Candidate(0, Utterance("r", (), "text", 1.0)))
    assert (without.keep, without.reason) == (False, "no speaker prompt")


def test_a_prompt_of_many_rows_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    reads = module.read_audio
    monkeypatch.setattr(
        module, "read_audio", lambda one, rate_hz: read.append(one.id) or reads(one, rate_hz)
    )
    one = row(tmp_path / "a.wav", bursts(-20, -60, 1.0), "one")
    other = Utterance("other", one.segments, "another text", 1.0)
    noisy = [
        Utterance(name, one.segments, "text", 1.0, effects=("noise?kind=white&snr_db=5",))
        for name in "xy"
    ]
    found = [prompt_measures(each) for each in (one, other, *noisy)]
    assert read == ["one", "x", "y"]
    assert found[0] == found[1]
    assert found[2] != found[3]
    assert found[2] is not None
    assert found[2].snr_db < 12
    with pytest.raises(AudioError, match=r"row 'gone': .*no such file"):
        prompt_measures(Utterance("gone", (Segment(str(tmp_path / "b.wav"), 1.0),), "text", 1.0))


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (
            bursts(-20, -60, 0.2),
            r"row 'r': speaker prompt .*a\.wav is 0\.20 s long, want 0\.3 to 2 s; .*prompt_s",
        ),
        (bursts(-20, -60, 2.2), r"row 'r': speaker prompt .*a\.wav is 2\.20 s long"),
        (torch.zeros(RATE_HZ), r"row 'r': speaker prompt .*a\.wav is silent \(-120 dB"),
        (bursts(-70, -90, 1.0), r"row 'r': speaker prompt .*a\.wav is silent \(-7\d dB"),
    ],
)
def test_bad_prompts_name_row_and_file(tmp_path: Path, wave: Tensor, message: str) -> None:
    bad = row(tmp_path / "a.wav", wave)
    with pytest.raises(AudioError, match=message):
        check_prompt(bad, wave, RATE_HZ, (0.3, 2.0))
    check_prompt(bad, bursts(-40, -60, 1.0), RATE_HZ, (0.3, 2.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PromptDuration(3.0, 2.0),
        lambda: PromptClipping(1.5),
        lambda: PromptLoudness(-10, -20),
        lambda: PromptLoudness(-10, 3),
    ],
)
def test_bad_limits(make: type) -> None:
    with pytest.raises(ValueError, match=r"Prompt\w+: want"):
        make()

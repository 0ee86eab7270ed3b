from __future__ import annotations

import math

import pytest
import torch

from lightning_audiorl.data import NonSpeech, read_audio
from lightning_audiorl.data.audio.nonspeech import KINDS, render
from tests.helpers import assert_close


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duration_s", [0.0101, 1.37])
def test_every_kind_has_its_length_and_level_and_is_repeatable(
    kind: str, duration_s: float
) -> None:
    uri = f"synthetic:{kind}?seed=3&level_db=-30"
    wave = render(uri, duration_s, 16000)
    assert wave.shape == (round(duration_s * 16000),)
    assert bool(torch.isfinite(wave).all())
    assert_close(render(uri, duration_s, 16000), wave, "exact")
    if kind == "silence":
        assert float(wave.abs().max()) == 0.0
    else:
        assert abs(20 * math.log10(float(wave.square().mean().sqrt())) + 30) < 0.5
        assert not torch.equal(render(uri.replace("seed=3", "seed=4"), duration_s, 16000), wave)


@pytest.mark.parametrize(("kind", "exponent"), [("white", 0.0), ("pink", 1.0), ("brown", 2.0)])
def test_noises_have_their_colour(kind: str, exponent: float) -> None:
    power = (
        torch.fft.rfft(render(f"synthetic:{kind}?seed=1&level_db=-20", 4.0, 16000)).abs().square()
    )
    low, high = (
        power[400:800].mean(),
        power[3200:6400].mean(),
    )  # 100-200 Hz, 800-1600 Hz: three octaves apart
    assert abs(float(torch.log2(low / high)) / 3 - exponent) < 0.3


@pytest.mark.parametrize(
    ("uri", "duration_s", "says"),
    [
        ("white", 1.0, "synthetic:"),
        ("synthetic:speech", 1.0, "unknown kind 'speech'"),
        ("synthetic:white?sed=1", 1.0, "unknown option 'sed'"),
        ("synthetic:white?seed=x", 1.0, "seed=<int>"),
        ("synthetic:white", 0.0, "at least one sample"),
    ],
)
def test_bad_addresses_are_named(uri: str, duration_s: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        render(uri, duration_s, 16000)


def test_rows_are_empty_texts_with_unique_ids_that_bear_the_seed() -> None:
    rows = NonSpeech(num_rows=20, min_s=0.2, max_s=0.5, seed=5, level_db=(-40, -20))
    assert [rows[i] for i in range(20)] == list(rows)
    assert len({row.id for row in rows}) == 20
    assert {row.extra["kind"] for row in rows} == set(KINDS)
    for row in rows:
        assert "s5" in row.id
        assert row.text == ""
        assert 0.2 <= row.duration_s <= 0.5
        assert len(read_audio(row, 16000)) == round(row.duration_s * 16000)
    other = NonSpeech(num_rows=20, min_s=0.2, max_s=0.5, seed=6)
    assert not {row.id for row in other} & {row.id for row in rows}
    assert not {row.segments for row in other} & {row.segments for row in rows}


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="unknown kind 'rain'"):
        NonSpeech(kinds=["rain"])
    with pytest.raises(ValueError, match="min_s <= max_s"):
        NonSpeech(min_s=3, max_s=2)
    with pytest.raises(IndexError, match="row 3 asked for, rows 0 to 2 exist"):
        NonSpeech(num_rows=3)[3]

"""Effects by numbers: levels, bands and decay measured on their output."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchaudio.functional import fftconvolve

from lightning_audiorl.data.audio.effects import (
    EFFECTS,
    Degraded,
    apply_effects,
    parse_effect,
    room_response,
)
from lightning_audiorl.data.audio.nonspeech import KINDS, NonSpeech
from lightning_audiorl.data.audio.reading import AudioCache, AudioError, read_audio
from lightning_audiorl.data.manifest.files import read_manifest, write_manifest
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Segment, Utterance
from tests.data.fakes import Rows, write_tone
from tests.helpers import assert_close

RATE_HZ = 16000
EVERY_EFFECT = ("noise?kind=pink&snr_db=5", "reverb?rt60_s=0.3", "telephone", "gain?db=-6")


def white(num_samples: int = 2 * RATE_HZ, rms: float = 0.1) -> Tensor:
    return rms * torch.randn(num_samples, generator=keyed_generator("effects test", num_samples))


def rms_db(wave: Tensor) -> float:
    return 20 * math.log10(float(wave.square().mean().sqrt()))


def band_db(wave: Tensor, low_hz: float, high_hz: float, rate_hz: int = RATE_HZ) -> float:
    """Mean power density between two frequencies; a Hann window keeps loud bands from leaking into it."""
    power = torch.fft.rfft(wave * torch.hann_window(len(wave))).abs().square()
    hz = torch.fft.rfftfreq(len(wave), 1 / rate_hz)
    return 10 * math.log10(float(power[(hz >= low_hz) & (hz < high_hz)].mean()) + 1e-30)


def measured_rt60_s(response: Tensor, rate_hz: int) -> float:
    """Schroeder's backward integration, a line through -5 to -35 dB (ISO 3382, T30)."""
    left_db = 10 * torch.log10(response.double().square().flip(0).cumsum(0).flip(0))
    left_db -= left_db[0].clone()
    time_s = torch.arange(len(response), dtype=torch.float64) / rate_hz
    used = (left_db <= -5) & (left_db >= -35)
    time_s, left_db = time_s[used] - time_s[used].mean(), left_db[used] - left_db[used].mean()
    return float(-60 * (time_s * time_s).sum() / (time_s * left_db).sum())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "silence"])
@pytest.mark.parametrize("snr_db", [-5.0, 5.0, 20.0])
def test_noise_has_its_ratio_and_differs_between_rows(kind: str, snr_db: float) -> None:
    clean = white()
    effects = (f"noise?kind={kind}&snr_db={snr_db:g}",)
    noisy = apply_effects(clean, effects, "a", RATE_HZ)
    assert abs(rms_db(clean) - rms_db(noisy - clean) - snr_db) < 0.5
    assert not torch.equal(apply_effects(clean, effects, "b", RATE_HZ), noisy)


def test_two_noises_on_one_row_are_not_the_same_noise() -> None:
    clean = white()
    once = apply_effects(clean, ["noise?snr_db=0"], "a", RATE_HZ) - clean
    twice = apply_effects(clean, ["gain?db=0", "noise?snr_db=0"], "a", RATE_HZ) - clean
    assert abs(float((once * twice).sum() / (once.norm() * twice.norm()))) < 0.05


@pytest.mark.parametrize("rt60_s", [0.15, 0.5, 1.2])
@pytest.mark.parametrize("drr_db", [-10.0, 0.0, 6.0])
@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_a_room_decays_as_asked(rt60_s: float, drr_db: float, rate_hz: int) -> None:
    response = room_response(rt60_s, drr_db, rate_hz, keyed_generator("room", str(rt60_s)))
    assert abs(measured_rt60_s(response, rate_hz) / rt60_s - 1) < 0.15
    assert abs(float(response.square().sum()) - 1) < 1e-4
    assert abs(20 * math.log10(float(response[0] / response[1:].norm())) - drr_db) < 1e-3
    assert float(response[1 : round(0.003 * rate_hz)].abs().max()) == 0.0


def test_reverb_is_its_response_and_keeps_level_and_start() -> None:
    clean = white()
    impulse = torch.zeros(RATE_HZ)
    impulse[0] = 1.0
    response = apply_effects(impulse, ["reverb?rt60_s=0.4"], "a", RATE_HZ)
    assert abs(measured_rt60_s(response[: round(0.4 * RATE_HZ)], RATE_HZ) / 0.4 - 1) < 0.15
    heard = apply_effects(clean, ["reverb?rt60_s=0.4"], "a", RATE_HZ)
    assert_close(heard, fftconvolve(clean, response)[: len(clean)], "float32")
    assert abs(rms_db(heard) - rms_db(clean)) < 1.0
    late = torch.cat([torch.zeros(RATE_HZ), clean])
    heard = apply_effects(late, ["reverb"], "a", RATE_HZ)
    assert float(heard[:RATE_HZ].abs().max()) < 1e-6, "sound before its cause"
    assert not torch.equal(apply_effects(late, ["reverb"], "b", RATE_HZ), heard)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 44100])
def test_telephone_keeps_its_band_alone(rate_hz: int) -> None:
    clean = white(2 * rate_hz + 1)
    heard = apply_effects(clean, ["telephone"], "a", rate_hz)
    level_db = band_db(heard, 500, 3000, rate_hz)
    assert abs(level_db - band_db(clean, 500, 3000, rate_hz)) < 0.5
    for low_hz, high_hz in ((3650, rate_hz / 2), (0, 150)):
        assert band_db(heard, low_hz, high_hz, rate_hz) < level_db - 60


def test_telephone_quantises_to_eight_bits_and_ends_at_full_scale() -> None:
    time_s = torch.arange(RATE_HZ) / RATE_HZ
    tone = 0.5 * torch.sin(2 * math.pi * 1000.7 * time_s)
    heard = apply_effects(tone, ["telephone"], "a", RATE_HZ)[1000:-1000]
    clean = tone[1000:-1000]
    ratio_db = rms_db(clean) - rms_db(
        heard - clean * float((heard * clean).sum() / clean.square().sum())
    )
    assert (
        33 < ratio_db < 45
    )  # 8-bit mu-law gives 37 to 38 dB over a wide range of levels (ITU-T G.711, G.712)
    assert float(apply_effects(10 * tone, ["telephone"], "a", RATE_HZ).abs().max()) < 1.5


def test_gain() -> None:
    assert_close(apply_effects(white(), ["gain?db=-20"], "a", RATE_HZ), 0.1 * white())
    assert_close(apply_effects(white(), ["gain"], "a", RATE_HZ), 0.1 * white())


def test_order_counts() -> None:
    hiss = band_db(
        apply_effects(white(), ["noise?snr_db=0", "telephone"], "a", RATE_HZ), 5000, 7000
    )
    assert (
        hiss
        < band_db(apply_effects(white(), ["telephone", "noise?snr_db=0"], "a", RATE_HZ), 5000, 7000)
        - 40
    )


@pytest.mark.parametrize("num_samples", [0, 1, 7, 1599, 16000])
@pytest.mark.parametrize("effect", EVERY_EFFECT)
def test_length_stays_and_input_is_not_written_to(effect: str, num_samples: int) -> None:
    clean = white(num_samples)
    heard = apply_effects(clean, [effect], "a", RATE_HZ)
    assert heard.shape == clean.shape
    assert heard.dtype == torch.float32
    assert bool(torch.isfinite(heard).all())
    assert_close(clean, white(num_samples), "exact")
    assert bool(
        (apply_effects(torch.zeros(num_samples), [effect], "a", RATE_HZ).abs() < 1e-4).all()
    )


def test_a_training_row_sounds_as_the_manifest_row() -> None:
    clean = white(4000)
    heard = apply_effects(clean, EVERY_EFFECT, "a", RATE_HZ)
    for row_id in ("a", "a@0.3", "a@hallucination.12"):
        assert_close(apply_effects(clean, EVERY_EFFECT, row_id, RATE_HZ), heard, "exact")
    for row_id in ("b", "a@home", "a@home@0.3"):
        assert not torch.equal(apply_effects(clean, EVERY_EFFECT, row_id, RATE_HZ), heard)
    assert_close(
        apply_effects(clean, EVERY_EFFECT, "a@home@0.3", RATE_HZ),
        apply_effects(clean, EVERY_EFFECT, "a@home", RATE_HZ),
        "exact",
    )


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("echo?x=1", "no effect 'echo'; use one of noise, reverb, telephone, gain"),
        ("", "no effect ''"),
        ("noise?snr=3", "noise has no option 'snr'; kind, snr_db exist"),
        ("telephone?hz=1", "telephone has no option 'hz'; it has none"),
        ("noise?kind=rain", "kind='rain' is not allowed; use one of white, pink"),
        ("noise?kind=silence", "use one of white, pink"),
        ("noise?snr_db=loud", "snr_db='loud' is not allowed; use a number from -60 to 120"),
        ("noise?snr_db=", "snr_db='' is not allowed"),
        ("noise?snr_db=nan", "use a number"),
        ("reverb?rt60_s=0", "use a number from 0.05 to 10"),
        ("gain?db=inf", "use a number from -120 to 60"),
    ],
)
def test_bad_addresses_are_named(address: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|no effect|no option") as caught:
        parse_effect(address)
    assert says in str(caught.value)
    row = Utterance(
        "row7", (Segment("synthetic:white", 0.1),), "", 0.1, effects=("telephone", address)
    )
    with pytest.raises(AudioError, match="row 'row7': effect") as caught_in_row:
        read_audio(row, RATE_HZ)
    assert says in str(caught_in_row.value)
    with pytest.raises(ValueError, match=r"Degraded.effects\[1\]: effect"):
        Degraded(Rows([1.0]), ["telephone", address])


def test_options_are_read_and_filled_in() -> None:
    assert parse_effect("noise?snr_db=-3") == ("noise", {"kind": "white", "snr_db": -3.0})
    assert parse_effect("telephone") == ("telephone", {})
    # Those of a folder have no default.
    made = [name for name in EFFECTS if not name.endswith("_from")]
    assert [parse_effect(name)[0] for name in made] == ["noise", "reverb", "telephone", "gain"]


def test_read_audio_applies_effects_to_the_joined_clip(tmp_path: Path) -> None:
    tone = Segment(str(write_tone(tmp_path / "a.wav", 0.2)), 0.2, gap_s=0.1)
    plain = Utterance("r", (tone, tone), "x", 0.6)
    degraded = Degraded(_Given(plain), list(EVERY_EFFECT))[0]
    cache = AudioCache()
    heard = [read_audio(degraded, RATE_HZ, cache) for _ in range(2)]
    assert_close(heard[0], heard[1], "exact")
    assert_close(
        heard[0],
        apply_effects(read_audio(plain, RATE_HZ), EVERY_EFFECT, degraded.id, RATE_HZ),
        "exact",
    )
    assert len(heard[0]) == round(0.6 * RATE_HZ)
    assert float(read_audio(plain, RATE_HZ, cache).abs().max()) < 0.51, (
        "the cache holds what was in the file"
    )


class _Given(Rows):
    """The rows given."""

    def __init__(self, *rows: Utterance) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self.rows[index]


def test_degraded_rows_keep_all_else_and_list_their_source() -> None:
    source = NonSpeech(num_rows=3)
    rows = Degraded(source, ["telephone"])
    assert len(rows) == 3
    for row, before in zip(rows, source, strict=True):
        assert row.id == f"{before.id}+telephone"
        assert row.effects == ("telephone",)
        assert row.extra == {**before.extra, "sources": [before.id]}
        assert (row.segments, row.text, row.duration_s) == (
            before.segments,
            before.text,
            before.duration_s,
        )
    [twice] = Degraded(Degraded(Rows([1.0]), ["gain?db=-3"]), ["telephone", "noise"])
    assert twice.id == "r0+gain?db=-3+telephone+noise"
    assert twice.effects == ("gain?db=-3", "telephone", "noise")
    assert twice.extra["sources"] == ["r0+gain?db=-3", "r0"]
    with pytest.raises(IndexError, match="rows 0 to 2 exist"):
        rows[3]
    with pytest.raises(ValueError, match="at least one of noise, reverb"):
        Degraded(source, [])


def test_effects_survive_a_manifest(tmp_path: Path) -> None:
    rows = list(Degraded(Rows([1.0, 2.0]), list(EVERY_EFFECT)))
    write_manifest(rows, tmp_path / "degraded.jsonl")
    again = read_manifest(tmp_path / "degraded.jsonl")
    assert again == rows
    for one, other in zip(again, rows, strict=True):
        assert_close(read_audio(one, 8000), read_audio(other, 8000), "exact")

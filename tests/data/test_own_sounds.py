"""Noise and rooms of the user's own: drawn from a folder by key, the same in every epoch, process and place."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lightning_audiorl.data import Augment, Degraded, NonSpeech, read_audio
from lightning_audiorl.data.audio.effects import apply_effects
from lightning_audiorl.data.audio.own_sounds import convolved, noise_from, room_from

RATE_HZ = 16000


@pytest.fixture
def musan(tmp_path: Path) -> Path:
    """Five recordings, two of them shorter than a clip and at other rates."""
    folder = tmp_path / "musan"
    for number, (seconds, rate_hz) in enumerate(
        [(4.0, 16000), (3.0, 16000), (0.1, 16000), (0.3, 8000), (2.5, 44100)]
    ):
        path = folder / f"kind{number % 2}" / f"noise-{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(number)
        soundfile.write(path, draw.uniform(-0.3, 0.3, round(seconds * rate_hz)), rate_hz)
    (folder / "LICENSE").write_text("not audio")
    return folder


@pytest.fixture
def rirs(tmp_path: Path) -> Path:
    """Two rooms, one of eight microphones: 10 ms of nothing, the direct sound, an echo."""
    folder = tmp_path / "rirs"
    folder.mkdir()
    for name, delay, channels in (("near", 400, 1), ("far", 2000, 8)):
        response = np.zeros((4000, channels), dtype="float32")
        response[160] = 0.8
        response[160 + delay] = 0.4
        soundfile.write(folder / f"{name}.wav", response, RATE_HZ, subtype="FLOAT")
    return folder


def test_noise_is_as_loud_as_asked_for_and_each_row_has_its_own(musan: Path) -> None:
    wave = torch.sin(torch.arange(RATE_HZ) * 0.1)
    address = f"noise_from?folder={musan}&snr_db=5"
    noisy = [apply_effects(wave, [address], f"row {n}", RATE_HZ) for n in range(8)]
    for one in noisy:
        snr = 10 * torch.log10(wave.square().mean() / (one - wave).square().mean())
        assert float(snr) == pytest.approx(5.0, abs=1e-3)
    assert len({tuple(one[:50].tolist()) for one in noisy}) > 4
    # The suffix of a training epoch is no part of the key.
    again = apply_effects(wave, [address], "row 3@0.17", RATE_HZ)
    assert torch.equal(again, noisy[3])


def test_a_draw_does_not_depend_on_where_the_folder_lies(musan: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "m"
    shutil.copytree(musan, moved)
    for n in range(6):
        one = noise_from(str(musan), 12345, RATE_HZ, ("row", n))
        assert one.shape == (12345,)
        assert torch.equal(one, noise_from(str(moved), 12345, RATE_HZ, ("row", n)))


def test_a_room_keeps_the_place_of_speech(rirs: Path) -> None:
    wave = torch.zeros(RATE_HZ)
    wave[1000] = 1.0
    delays = set()
    for n in range(12):
        heard = convolved(wave, room_from(str(rirs), RATE_HZ, (n,)))
        assert heard.shape == wave.shape
        assert int(heard.argmax()) == 1000
        echo = heard.clone()
        echo[1000] = 0
        delays.add(int(echo.argmax()) - 1000)
        assert float(heard[1000] / echo.max()) == pytest.approx(2.0, rel=1e-3)
    assert delays == {400, 2000}


def test_rows_of_a_source_go_through_them(musan: Path, rirs: Path) -> None:
    rows = NonSpeech(kinds=["hum"], num_rows=2)
    effects = [f"room_from?folder={rirs}", f"noise_from?folder={musan}&snr_db=0"]
    source = Degraded(rows, effects)
    one = read_audio(source[0], RATE_HZ)
    assert one.shape == read_audio(rows[0], RATE_HZ).shape
    assert torch.equal(one, read_audio(source[0], RATE_HZ))
    assert not torch.equal(one, read_audio(rows[0], RATE_HZ))


def test_training_audio_may_have_both(musan: Path, rirs: Path) -> None:
    wave = torch.sin(torch.arange(RATE_HZ) * 0.1)
    plain = Augment()
    own = replace(plain, noise_folder=str(musan), room_folder=str(rirs))

    def heard(augment: Augment, step: int) -> torch.Tensor:
        return augment.apply(wave, seed=1, step=step, row_id="a", sample_rate_hz=RATE_HZ)

    assert all(torch.equal(heard(own, step), heard(own, step)) for step in range(4))
    # Speed is drawn as before, so lengths are those without the folders.
    assert [heard(own, n).shape for n in range(9)] == [heard(plain, n).shape for n in range(9)]
    assert any(not torch.equal(heard(own, n), heard(plain, n)) for n in range(9))
    quiet = replace(own, noise_probability=0.0, room_probability=0.0)
    dry = replace(plain, noise_probability=0.0)
    assert all(torch.equal(heard(quiet, n), heard(dry, n)) for n in range(9))


def test_what_cannot_be_drawn_from_is_said_at_once(tmp_path: Path, musan: Path) -> None:
    rows = NonSpeech(num_rows=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    for address, message in {
        "noise_from?snr_db=3": "names no folder; write noise_from[?]folder=",
        f"noise_from?folder={tmp_path}/no": "no such folder",
        f"room_from?folder={empty}": "holds no audio file",
        f"noise_from?folder={musan}&snr_db=loud": "use a number from -60 to 120",
    }.items():
        with pytest.raises(ValueError, match=message):
            Degraded(rows, [address])
    with pytest.raises(ValueError, match="no such folder"):
        Augment(noise_folder=str(tmp_path / "no"))
    with pytest.raises(ValueError, match=r"Augment.room_probability"):
        Augment(room_probability=1.5)


def test_silence_makes_neither_noise_nor_room(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), RATE_HZ)
    with pytest.raises(ValueError, match="all are digital silence"):
        noise_from(str(tmp_path), 4000, RATE_HZ, ("row",))
    with pytest.raises(ValueError, match=r"a.wav: is silent"):
        room_from(str(tmp_path), RATE_HZ, ("row",))

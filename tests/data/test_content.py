from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lightning_audiorl.data import AudioError
from lightning_audiorl.data.audio.content_hash import (
    ContentHashes,
    EvaluationContent,
    default_cache_path,
)
from lightning_audiorl.types import Segment, Utterance
from tests.data.fakes import write_tone

RATE_HZ = 8000


@pytest.fixture
def hashes(tmp_path: Path) -> Iterator[ContentHashes]:
    with ContentHashes(tmp_path / "cache" / "content.sqlite") as hashes:
        yield hashes


def noise(
    path: Path, seconds: float = 1.0, seed: int = 0, rate_hz: int = RATE_HZ, channels: int = 1
) -> Path:
    """Noise of 16 bits per sample, so that every lossless format holds the same numbers."""
    samples = np.random.default_rng(seed).integers(
        -8000, 8000, (round(seconds * rate_hz), channels), dtype=np.int16
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return path


def row(row_id: str, *segments: Segment | Path, effects: tuple[str, ...] = ()) -> Utterance:
    parts = tuple(part if isinstance(part, Segment) else Segment(str(part)) for part in segments)
    return Utterance(row_id, parts, "x", 1.0, effects=effects)


def test_content_is_what_decodes_not_name_or_container(
    tmp_path: Path, hashes: ContentHashes
) -> None:
    wav, flac = noise(tmp_path / "a.wav"), noise(tmp_path / "elsewhere" / "b.flac")
    found = hashes.file(str(wav))
    assert (found.rate_hz, found.num_frames) == (RATE_HZ, 8000)
    assert hashes.file(str(flac)) == found
    others = [
        noise(tmp_path / "seed.wav", seed=1),
        noise(tmp_path / "rate.wav", 0.5, rate_hz=2 * RATE_HZ),
        noise(tmp_path / "channels.wav", 0.5, channels=2),
    ]
    assert all(
        soundfile.info(path).frames * soundfile.info(path).channels == 8000 for path in others
    )
    assert len({found.hash, *(hashes.file(str(path)).hash for path in others)}) == 4


def test_a_cut_has_the_hash_of_the_same_audio_in_a_file_of_its_own(
    tmp_path: Path, hashes: ContentHashes
) -> None:
    long = noise(tmp_path / "long.wav", 3.0)
    samples, _ = soundfile.read(long, dtype="int16")
    soundfile.write(
        tmp_path / "part.wav", samples[RATE_HZ : 2 * RATE_HZ], RATE_HZ, subtype="PCM_16"
    )
    cut = hashes.stretch(Segment(str(long), 1.0, 1.0))
    whole = hashes.stretch(Segment(str(tmp_path / "part.wav")))
    assert cut is not None
    assert whole is not None
    assert cut.cut == whole.cut == whole.file != cut.file
    assert (cut.start_s, cut.end_s) == (1.0, 2.0)
    assert hashes.stretch(Segment(str(tmp_path / "part.wav"), 1.0004)) == whole
    with pytest.raises(
        AudioError, match=r"row 'r': .*nothing at offset 3.5 s, the file is 3.000 s"
    ):
        hashes.row(row("r", Segment(str(long), 1.0, 3.5)))
    with pytest.raises(AudioError, match=r"row 'r': .*no such file"):
        hashes.row(row("r", tmp_path / "none.wav"))
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"row 'r': .*text.wav: not readable as audio"):
        hashes.row(row("r", tmp_path / "text.wav"))


def test_silence_identifies_nothing(tmp_path: Path, hashes: ContentHashes) -> None:
    soundfile.write(tmp_path / "zeros.wav", np.zeros(8000, dtype="int16"), RATE_HZ)
    hum = Segment("synthetic:hum?seed=3", 1.5)
    assert hashes.row(row("r", tmp_path / "zeros.wav", Segment("synthetic:silence", 1.0))) == []
    evaluation = EvaluationContent(
        {"val/a": [row("e", hum, Segment("synthetic:silence", 1.0))]}, hashes
    )
    assert evaluation.collision(row("t", Segment("synthetic:silence", 1.0))) is None
    assert evaluation.collision(row("t", Segment("synthetic:hum?seed=4", 1.5))) is None
    assert evaluation.collision(row("t", Segment("synthetic:hum?seed=3", 1.0))) is None
    assert str(evaluation.collision(row("t", hum))).endswith("holds the audio of val/a row 'e'")


def test_what_is_decoded_once_is_remembered_between_instances(tmp_path: Path) -> None:
    path, cache = noise(tmp_path / "a.wav"), tmp_path / "content.sqlite"

    def look() -> tuple[str, int]:
        with ContentHashes(cache) as hashes:
            return hashes.file(str(path)).hash, hashes.num_decoded

    first, decoded = look()
    assert decoded == 1
    assert look() == (first, 0)
    os.utime(path, (1, 1))
    assert look() == (first, 1)
    noise(path, seed=5)
    changed, decoded = look()
    assert changed != first
    assert decoded == 1
    noise(path)
    assert look() == (first, 1)


def _fill(cache: str, paths: list[str]) -> None:
    for path in paths:
        with ContentHashes(cache) as hashes:
            hashes.file(path)


def test_processes_share_one_cache(tmp_path: Path) -> None:
    paths = [str(noise(tmp_path / f"{i}.wav", 0.01, seed=i)) for i in range(12)]
    cache = str(tmp_path / "content.sqlite")
    context = get_context("fork")
    workers = [context.Process(target=_fill, args=(cache, paths[start:])) for start in (0, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with ContentHashes(cache) as hashes:
        assert len({hashes.file(path).hash for path in paths}) == 12
        assert hashes.num_decoded == 0


def test_a_cache_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.sqlite").write_text(
        "this is not a database, and long enough to be seen as none" * 20
    )
    with pytest.raises(OSError, match=r"c.sqlite: not usable as the cache .* delete it") as raised:
        ContentHashes(tmp_path / "c.sqlite")
    assert isinstance(raised.value.__cause__, sqlite3.DatabaseError)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_path() == tmp_path / "xdg" / "lightning_audiorl" / "content.sqlite"


@pytest.fixture
def evaluation(tmp_path: Path, hashes: ContentHashes) -> EvaluationContent:
    sets = {
        "val/short": [row("v0", noise(tmp_path / "eval" / "v0.wav", seed=10))],
        "test/talk": [
            row("t0", Segment(str(noise(tmp_path / "eval" / "talk.wav", 3.0, seed=11)), 1.0, 1.0))
        ],
    }
    return EvaluationContent(sets, hashes)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_copy_under_another_name_is_refused(
    suffix: str, tmp_path: Path, evaluation: EvaluationContent
) -> None:
    copy = noise(tmp_path / "train" / f"harmless.{suffix}", seed=10)
    for planted in (
        row("p", copy),
        row("p", copy, effects=("noise?snr_db=0",)),
        row(
            "p",
            noise(tmp_path / "own.wav", seed=50),
            Segment(str(copy), 0.4, 0.3),
            Segment("synthetic:silence", 1.0),
        ),
    ):
        collision = evaluation.collision(planted)
        assert collision is not None
        assert (collision.row_id, collision.set_name, collision.other_id) == (
            "p",
            "val/short",
            "v0",
        )
    assert str(evaluation.collision(row("p", copy))) == (
        f"row 'p': {copy} (0.00 to 1.00 s) holds the audio of val/short row 'v0'"
    )


@pytest.mark.parametrize(
    ("offset_s", "duration_s", "refused"),
    [
        (0.0, 1.0, False),
        (0.0, 1.01, False),
        (0.0, 1.1, True),
        (1.4, 0.2, True),
        (1.0, 1.0, True),
        (2.0, None, False),
    ],
)
def test_parts_of_one_file_may_touch_but_not_overlap(
    offset_s: float,
    duration_s: float | None,
    refused: bool,
    tmp_path: Path,
    evaluation: EvaluationContent,
) -> None:
    copy = noise(tmp_path / "train" / "copy.flac", 3.0, seed=11)
    collision = evaluation.collision(row("p", Segment(str(copy), duration_s, offset_s)))
    assert (collision is not None) == refused
    if collision is not None:
        assert (collision.set_name, collision.other_id) == ("test/talk", "t0")


def test_a_very_short_stretch_is_not_taken_for_touching(
    tmp_path: Path, hashes: ContentHashes
) -> None:
    path = noise(tmp_path / "a.wav")
    evaluation = EvaluationContent({"val/a": [row("e", Segment(str(path), 0.01, 0.5))]}, hashes)
    assert evaluation.collision(row("p", path)) is not None
    assert evaluation.collision(row("p", Segment(str(path), 0.01, 0.509))) is None


def test_the_audio_of_an_evaluation_row_cut_out_is_found_in_a_file_of_its_own(
    tmp_path: Path, evaluation: EvaluationContent
) -> None:
    samples, _ = soundfile.read(tmp_path / "eval" / "talk.wav", dtype="int16")
    soundfile.write(tmp_path / "cut.wav", samples[RATE_HZ : 2 * RATE_HZ], RATE_HZ, subtype="PCM_16")
    assert evaluation.collision(row("p", tmp_path / "cut.wav")) is not None
    assert (
        evaluation.collision(row("p", write_tone(tmp_path / "tone.wav", rate_hz=RATE_HZ))) is None
    )


def test_the_identity_of_evaluation_sets_follows_their_content(tmp_path: Path) -> None:
    path = noise(tmp_path / "a.wav")

    def identity(sets: dict[str, list[Utterance]]) -> str:
        with ContentHashes(tmp_path / "content.sqlite") as hashes:
            return EvaluationContent(sets, hashes).identity

    first = identity({"val/a": [row("e", path)]})
    os.utime(path, (1, 1))
    assert identity({"val/a": [row("e", path)]}) == first
    assert identity({"val/a": [row("e", noise(tmp_path / "other" / "name.flac"))]}) == first
    assert identity({"val/b": [row("e", path)]}) != first
    assert identity({"val/a": [row("e", Segment(str(path), 0.5))]}) != first
    noise(path, seed=1)
    assert identity({"val/a": [row("e", path)]}) != first

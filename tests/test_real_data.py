"""The data of the real run, built from a few made-up recordings: what is held out stays out, and all comes again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments.real.data import TRAINED_KINDS, WINDOW_S, Sizes, build
from experiments.real.mix import HELD_OUT, mined, mix, subsets
from experiments.real.wavs import RATE_HZ
from lightning_audiorl.data import read_manifest
from lightning_audiorl.data.audio.content_hash import ContentHashes
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.types import Utterance
from tests.data.mixes import write_hypotheses

SIZES = Sizes(
    pool=8,
    joined=6,
    nonspeech=6,
    dev_nonspeech=3,
    test_per_kind=1,
    long_rows=3,
    long_s=200.0,
    fsdd=(4, 2),
)
#: Seconds of a prompt by part, and how many there are.
PARTS = {"train": (6.0, 12), "dev": (1.0, 3), "test": (9.0, 12)}


def write_wav(path: Path, seconds: float, seed: int, peak: float = 0.3) -> str:
    samples = np.random.default_rng(seed).uniform(-peak, peak, round(seconds * 8000))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 8000)
    return str(path)


def write_part(folder: Path, part: str, rows: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings: prompts of three parts, and what has no words."""
    folder = tmp_path_factory.mktemp("recordings")
    for part, (seconds, number) in PARTS.items():
        rows: list[dict[str, object]] = []
        for i in range(number):
            # One prompt does not fit into the window, one reaches full scale.
            lasts = 31.0 if part == "train" and i == 0 else seconds
            peak = 1.0 if i == 1 else 0.3
            name = f"{part}/{i}"
            path = write_wav(folder / "sounds" / f"{name}.wav", lasts, 100 * len(part) + i, peak)
            rows.append({"audio_filepath": path, "text": f"{part} {i}", "speaker": "a", "id": name})
        write_part(folder / "asterisk", part, rows)

    silent = ["beep", "silence/1", "silence-1"]
    paths = ["beep", "silence", "silence"]
    rows = []
    for name, file in zip(silent, paths, strict=True):
        path = write_wav(folder / "sounds" / f"{file}.wav", 0.4, 1, 0.001)
        rows.append({"audio_filepath": path, "text": "", "id": name})
    write_part(folder / "asterisk", "nonspeech", rows)
    return folder


@pytest.fixture(scope="module")
def fsdd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two takes of each digit: one of the test part, one of the training part."""
    root = tmp_path_factory.mktemp("fsdd")
    for digit in range(len(DIGIT_WORDS)):
        for take in (0, 9):
            write_wav(root / "recordings" / f"{digit}_ann_{take}.wav", 0.3, 50 * digit + take)
    return root


@pytest.fixture(scope="module")
def data(real: Path, fsdd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    build(real, out, fsdd, seed=0, sizes=SIZES)
    return out


def rows_of(data: Path, name: str) -> list[Utterance]:
    return read_manifest(data / f"{name}.jsonl", allow_empty_text=True)


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".wav", ".jsonl")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_command_writes_the_same_bytes_anywhere(
    real: Path, fsdd: Path, data: Path, tmp_path: Path
) -> None:
    build(real, tmp_path, fsdd, seed=0, sizes=SIZES)
    assert len(bytes_of(data)) > 20
    assert bytes_of(tmp_path) == bytes_of(data)


def test_what_is_there_is_kept_and_other_settings_are_refused(
    real: Path, fsdd: Path, tmp_path: Path
) -> None:
    first = build(real, tmp_path, fsdd, seed=0, sizes=SIZES)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    lost = next(iter(kept))
    lost.unlink()

    assert build(real, tmp_path, fsdd, seed=0, sizes=SIZES) == first
    for path, written_ns in kept.items():
        if path != lost:
            assert path.stat().st_mtime_ns == written_ns
    assert lost.is_file()

    with pytest.raises(ValueError, match="holds data of other seed; remove the folder"):
        build(real, tmp_path, fsdd, seed=1, sizes=SIZES)
    with pytest.raises(ValueError, match="other sizes"):
        build(real, tmp_path, fsdd, seed=0, sizes=replace(SIZES, pool=7))


def test_no_prompt_of_the_test_is_heard_in_training(data: Path) -> None:
    with ContentHashes(None) as hashes:

        def heard(*names: str) -> set[str]:
            rows = [row for name in names for row in rows_of(data, name)]
            return {stretch.cut for row in rows for stretch in hashes.row(row) if stretch.cut}

        training = heard("train_prompts", "train_joined", "mine_pool", "train_nonspeech")
        assert heard("train_joined") <= heard("train_prompts")
        assert training.isdisjoint(heard(*HELD_OUT))

    words = " ".join(row.text for row in rows_of(data, "mine_pool"))
    assert "train" in words
    assert "test" not in words
    assert "dev" not in words


def test_training_rows_fit_into_the_window(data: Path) -> None:
    rows = [*rows_of(data, "mine_pool"), *rows_of(data, "train_prompts")]
    assert max(row.duration_s for row in rows) <= WINDOW_S
    assert "train/0" not in {row.id for row in rows}

    joined = rows_of(data, "train_joined")
    assert len(joined) == SIZES.joined
    assert min(row.duration_s for row in joined) >= 15.0
    assert min(len(row.segments) for row in joined) >= 2
    assert len(rows_of(data, "mine_pool")) == SIZES.pool + SIZES.joined


def test_long_rows_are_one_file_and_use_a_prompt_twice_at_most(data: Path) -> None:
    rows = rows_of(data, "test_long")
    used = [source for row in rows for source in row.extra["sources"]]
    assert rows
    assert max(used.count(source) for source in used) <= 2
    assert sum(row.duration_s for row in rows) <= SIZES.long_s
    for row in rows:
        assert 30.0 <= row.duration_s <= 120.0
        assert len(row.segments) == 1


def test_the_test_has_sounds_that_training_lacks(data: Path) -> None:
    trained = {row.extra["kind"] for row in rows_of(data, "train_nonspeech")}
    tested = rows_of(data, "test_nonspeech")
    kinds = {row.extra["kind"]: row.extra["kind_in_training"] for row in tested}

    assert trained == set(TRAINED_KINDS)
    assert kinds == {kind: kind in trained for kind in kinds}
    assert {"beep", "silence", "hum", "white"} <= set(kinds)
    # A recording that is listed twice is one row.
    assert len(tested) == 2 + 6 * SIZES.test_per_kind
    assert not any(row.text for row in tested)


def test_files_are_of_one_rate_and_none_is_clipped(data: Path) -> None:
    files = sorted((data / "wav").rglob("*.wav"))
    assert len(files) > 20
    for path in files:
        samples, rate_hz = soundfile.read(path, always_2d=True)
        assert rate_hz == RATE_HZ
        assert samples.shape[1] == 1
        assert np.abs(samples).max() < 1.0


def test_a_mix_has_its_share_without_speech_and_rows_of_the_rules(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("experiments.real.mix.LEAST", 2)
    pool = rows_of(data, "mine_pool")
    wrong = [row.id for row in pool][::2]
    path = write_hypotheses(tmp_path / "hypotheses.jsonl", str(data / "mine_pool.jsonl"), wrong)
    hypotheses = Path(path)

    found = mined(data / "mine_pool.jsonl", hypotheses)
    assert found == {"hard": 0, "hallucinating": 7, "learnable": 0}

    made = subsets(data, hypotheses, nonspeech=0.4)
    shares = {name: round(subset["share"], 3) for name, subset in made.items()}
    assert shares == {"prompts": 0.2, "joined": 0.2, "hallucinating": 0.2, "nonspeech": 0.4}

    # Of the random mix there are more places than rows: 11 prompts, 6 joined, 6 without speech.
    assert mix(data, hypotheses, "paper")["rows"] == 11 + 6 + 7 + 6
    assert mix(data, hypotheses, "random")["rows"] == 11 + 6 + 6
    assert mix(data, hypotheses, "random_matched")["rows"] == 17 + 6
    paper = rows_of(data, "train_mix_paper")
    mined_ids = {row.id for row in paper if row.extra["subset"] == "hallucinating"}
    assert mined_ids == {f"hallucinating/{row_id}" for row_id in wrong}

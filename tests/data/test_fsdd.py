from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from lightning_audiorl.data import AudioError, FsddDigits, read_audio
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS, PART_INDEX
from tests.data.fakes import SPEAKERS, write_tone


def used(source: FsddDigits) -> set[str]:
    return {
        s.audio_filepath
        for row in source
        for s in row.segments
        if not s.audio_filepath.startswith("synthetic:")
    }


def test_parts_share_no_recording(root: str) -> None:
    parts = {part: FsddDigits(root, part, num_rows=300) for part in ("train", "dev", "test")}
    files = {part: used(source) for part, source in parts.items()}
    assert not files["train"] & files["dev"]
    assert not files["train"] & files["test"]
    assert not files["dev"] & files["test"]
    for part, (first, end) in PART_INDEX.items():
        assert files[part] <= parts[part].recordings()
        assert {int(Path(file).stem.split("_")[2]) for file in files[part]} == set(
            range(first, min(end, 12))
        )


def test_a_row_says_what_its_recordings_say(root: str) -> None:
    source = FsddDigits(root, num_words=(3, 5), num_rows=50, gap_s=(0.01, 0.02), edge_s=(0.0, 0.03))
    assert {len(row.text.split()) for row in source} == {3, 4, 5}
    for row in source:
        takes = [
            Path(s.audio_filepath).stem.split("_")
            for s in row.segments
            if s.audio_filepath.endswith("wav")
        ]
        assert row.text == " ".join(DIGIT_WORDS[int(digit)] for digit, _, _ in takes)
        assert {speaker for _, speaker, _ in takes} == {row.speaker}
        assert all(0.01 <= s.gap_s <= 0.02 for s in row.segments[1 : len(takes)])
        assert abs(len(read_audio(row, 16000)) / 16000 - row.duration_s) < 1e-3


def test_row_i_depends_on_its_number_alone(root: str) -> None:
    few, many = FsddDigits(root, num_rows=5, seed=1), FsddDigits(root, num_rows=5000, seed=1)
    assert [few[i] for i in (4, 0, 2)] == [many[i] for i in (4, 0, 2)]
    assert few[0].id == "fsdd-train-w1to7-s1-000000"
    assert [row.text for row in FsddDigits(root, num_rows=5, seed=2)] != [row.text for row in few]
    assert len({row.id for row in many}) == 5000
    long = FsddDigits(root, num_words=(20, 40), num_rows=5, seed=1)
    assert not any(
        b.text.startswith(a.text) for a, b in zip(few, long, strict=True) if len(a.text.split()) > 2
    )


def test_speakers_can_be_left_out_or_alone(root: str) -> None:
    assert {row.speaker for row in FsddDigits(root, num_rows=60)} == set(SPEAKERS)
    assert {row.speaker for row in FsddDigits(root, num_rows=60, exclude_speakers=["cy"])} == {
        "ann",
        "bob",
    }
    assert {row.speaker for row in FsddDigits(root, num_rows=60, only_speakers=["cy"])} == {"cy"}
    with pytest.raises(ValueError, match="unknown speaker 'theo'; this folder has ann, bob, cy"):
        FsddDigits(root, exclude_speakers=["theo"])
    with pytest.raises(ValueError, match="no speaker is left"):
        FsddDigits(root, exclude_speakers=["cy"], only_speakers=["cy"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"part": "eval"}, "part must be one of"),
        ({"num_words": (0, 3)}, "1 <= low <= high"),
        ({"num_words": (4, 3)}, "1 <= low <= high"),
        ({"num_rows": 0}, "num_rows >= 1"),
        ({"gap_s": (0.3, 0.1)}, "gap_s"),
        ({"edge_s": (-0.1, 0.1)}, "edge_s"),
    ],
)
def test_bad_settings_are_named(root: str, settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FsddDigits(root, **settings)


def test_a_folder_that_is_not_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recordings found; root must be"):
        FsddDigits(str(tmp_path / "nowhere"))
    (tmp_path / "empty" / "recordings").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no recordings found"):
        FsddDigits(str(tmp_path / "empty"))
    write_tone(tmp_path / "names" / "recordings" / "seven.wav")
    with pytest.raises(ValueError, match=r"seven\.wav: expected a name like 7_jackson_32"):
        FsddDigits(str(tmp_path / "names"))


def test_broken_recordings_are_named(tmp_path: Path) -> None:
    bad = write_tone(tmp_path / "text" / "recordings" / "1_ann_0.wav")
    bad.write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"1_ann_0\.wav: not readable"):
        FsddDigits(str(tmp_path / "text"))
    empty = write_tone(tmp_path / "none" / "recordings" / "1_ann_0.wav")
    soundfile.write(empty, [], 8000)
    with pytest.raises(AudioError, match="holds no samples"):
        FsddDigits(str(tmp_path / "none"))
    write_tone(tmp_path / "part" / "recordings" / "1_ann_0.wav")
    with pytest.raises(
        ValueError, match=r"'ann' has no recording of digit 0 with index in \[0, 5\), the test part"
    ):
        FsddDigits(str(tmp_path / "part"), "test")

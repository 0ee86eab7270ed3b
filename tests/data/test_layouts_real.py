"""Real recordings in every layout: of the Free Spoken Digit Dataset, where ``FSDD_ROOT`` names a checkout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lightning_audiorl.data import ManifestRows
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS, scan_fsdd
from tests.data.layouts import CASES, Clip, manifest
from tests.data.test_layout_sources import NAMES, batches, opened, same
from tests.data.test_layouts import check_round_trip

ROOT = os.environ.get("FSDD_ROOT", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ROOT, reason="FSDD_ROOT names no checkout"),
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Each digit once by each of three speakers, named as the other clips of these tests are."""
    folder = tmp_path_factory.mktemp("fsdd")
    recordings = [recording for recording in scan_fsdd(ROOT) if recording.index == 0]
    speakers = sorted({recording.speaker for recording in recordings})[:3]
    made = []
    for recording in recordings:
        if recording.speaker not in speakers:
            continue
        number = str(11 + speakers.index(recording.speaker))
        path = folder / f"{number}-1-{recording.digit:04d}.wav"
        shutil.copy(recording.audio_filepath, path)
        made.append(Clip(path.stem, number, DIGIT_WORDS[recording.digit], path))
    return sorted(made, key=lambda clip: clip.id)


@pytest.fixture(scope="module")
def plain(clips: list[Clip]) -> ManifestRows:
    return ManifestRows(str(manifest(clips[0].path.parent, clips)))


@pytest.mark.parametrize("name", CASES)
def test_real_clips_come_back_to_the_bit(
    name: str,
    tmp_path: Path,
    clips: list[Clip],
    plain: ManifestRows,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(clips) == 30
    check_round_trip(name, tmp_path, clips, plain)
    assert "speakers   " in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_real_clips_are_those_of_a_manifest(
    name: str, tmp_path: Path, clips: list[Clip], plain: ManifestRows
) -> None:
    source = opened(name, tmp_path, clips)
    for num_workers in (0, 2):
        same(batches(source, 3, 4, num_workers=num_workers), batches(plain, 3, 4))

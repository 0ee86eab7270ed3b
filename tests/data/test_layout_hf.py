"""Sets of Hugging Face's ``datasets``: Parquet folders, clips that are paths, columns by name, and what is refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from lightning_audiorl.data import HfDataset, ManifestError, ManifestRows, read_audio
from tests.data.layouts import Clip, encoded, make_clips, manifest, placed

datasets = pytest.importorskip("datasets", reason="needs the extra `datasets`")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return make_clips(tmp_path_factory.mktemp("clips"), 6)


def table(clips: list[Clip], first: bool = True) -> Any:
    """The clips as a data set, with the audio of the first or without."""
    audio: list[Any] = [{"bytes": encoded(c, "flac"), "path": c.path.name} for c in clips]
    if not first:
        audio[0] = None
    columns = {"wav": audio, "words": [c.text for c in clips], "name": [c.id for c in clips]}
    return datasets.Dataset.from_dict(columns).cast_column("wav", datasets.Audio(decode=False))


NAMES = {"text": "words", "row_id": "name"}


def same(rows: HfDataset, clips: list[Clip]) -> None:
    """The rows of a plain manifest."""
    plain = ManifestRows(str(manifest(clips[0].path.parent, clips)))
    assert [(row.id, row.text) for row in rows] == [(row.id, row.text) for row in plain]
    for row, wanted in zip(rows, plain, strict=True):
        assert read_audio(row, 16000).equal(read_audio(wanted, 16000))


def test_a_folder_of_parquet_is_read(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "set").mkdir()
    table(clips).to_parquet(tmp_path / "set" / "train.parquet")
    same(HfDataset(str(tmp_path / "set"), "train", cache=str(tmp_path / "cache"), **NAMES), clips)


def test_a_folder_of_audio_is_for_another_kind(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which ``datasets`` would first write copies, encoded by torchcodec."""
    if importlib.util.find_spec("torchcodec") is not None:
        pytest.skip("torchcodec is here")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    root = tmp_path / "set"
    lines = ["file_name,words"]
    for clip in clips:
        placed(root / clip.path.name, clip.path.read_bytes())
        lines.append(f"{clip.path.name},one")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="audiorl manifest --kind folder"):
        HfDataset(str(root), cache=str(tmp_path / "cache"), text="words")


def test_a_part_of_a_set_is_the_part(tmp_path: Path, clips: list[Clip]) -> None:
    part = table(clips).select([4, 1, 3])
    part.save_to_disk(str(tmp_path / "set"))
    rows = HfDataset(str(tmp_path / "set"), cache=str(tmp_path / "cache"), **NAMES)
    same(rows, [clips[4], clips[1], clips[3]])


def test_what_is_not_there_is_named(tmp_path: Path, clips: list[Clip]) -> None:
    root = str(tmp_path / "set")
    both = {"train": table(clips), "dev": table(clips)}
    datasets.DatasetDict(both).save_to_disk(root)
    cache = str(tmp_path / "cache")
    for settings, message in (
        ({}, "split is needed; give one of train, dev"),
        ({"split": "test"}, "split 'test' is not there; give one of train, dev"),
        ({"split": "dev"}, "field `text`: no column text or sentence .* among wav, words, name"),
        ({"split": "dev", "text": "said"}, "no column said among wav, words, name"),
        ({"split": "dev", "text": "words", "audio": "flac"}, "field `audio`: no column flac"),
    ):
        with pytest.raises(ValueError, match=message):
            HfDataset(root, cache=cache, **settings)


def test_a_row_without_audio_is_named(tmp_path: Path, clips: list[Clip]) -> None:
    table(clips, first=False).save_to_disk(str(tmp_path / "set"))
    settings = {"text": "words", "cache": str(tmp_path / "cache")}
    with pytest.raises(ManifestError, match=r"row 0, field `wav`: neither bytes nor a path"):
        HfDataset(str(tmp_path / "set"), **settings)
    rows = HfDataset(str(tmp_path / "set"), on_bad_row="skip", **settings)
    assert len(rows) == 5
    assert rows.skipped == {"no audio": 1}


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path) -> None:
    with (
        patch.dict(sys.modules, {"datasets": None}),
        pytest.raises(ImportError, match=r"pip install 'lightning-audiorl\[datasets\]'"),
    ):
        HfDataset(str(tmp_path))

"""Data sets used where they lie: the batches of a run are those of a manifest, in any process, after any stop."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from lightning_audiorl.data import (
    AsrDataModule,
    HfDataset,
    LhotseCuts,
    ManifestRows,
    RowSource,
    TarShards,
)
from lightning_audiorl.data.datamodules import asr
from lightning_audiorl.data.layouts import sources
from lightning_audiorl.data.manifest.files import write_manifest
from lightning_audiorl.data.mix.spec import source_hash
from lightning_audiorl.types import PromptBatch, Utterance
from tests.data.layouts import CASES, Clip, make_clips, manifest


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return make_clips(tmp_path_factory.mktemp("clips"))


def opened(name: str, folder: Path, clips: list[Clip]) -> RowSource:
    """The clips written in a layout below a folder, as a source."""
    source = str(CASES[name].write(folder / name, clips))
    cache = str(folder / "cache")
    if name == "nemo":
        return TarShards(
            f"{source}/audio_{{0..1}}.tar", f"{source}/tarred_audio_manifest.json", cache=cache
        )
    if name == "webdataset":
        return TarShards(source, cache=cache)
    if name == "hf":
        return HfDataset(source, "train", cache=cache)
    return LhotseCuts(source, cache=cache)


NAMES = ("nemo", "webdataset", "hf", "cuts", "shar")


def batches(source: RowSource | str, start: int, num: int, **settings: int) -> list[PromptBatch]:
    """Some training batches, from a step on."""
    data = AsrDataModule(train=[asr.Subset(source)], batch_size=4, seed=3, **settings)
    data.next_step = start
    return [batch for _, batch in zip(range(num), data.train_dataloader(), strict=False)]


def same(ones: list[PromptBatch], others: list[PromptBatch]) -> None:
    """The same rows with the same samples."""
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        assert one.ids == other.ids
        assert one.texts == other.texts
        assert torch.equal(one.waveform, other.waveform)
        assert torch.equal(one.num_samples, other.num_samples)


@pytest.mark.parametrize("name", NAMES)
def test_the_batches_of_a_run_are_those_of_a_manifest(
    name: str, tmp_path: Path, clips: list[Clip]
) -> None:
    source = opened(name, tmp_path, clips)
    plain = ManifestRows(str(manifest(clips[0].path.parent, clips)))
    wanted = batches(plain, 0, 9)
    same(batches(source, 0, 9), wanted)
    # What follows a stop, in a new process or not.
    again = pickle.loads(pickle.dumps(source))
    same(batches(again, 4, 5), wanted[4:])

    for rank in range(2):
        with patch.object(asr, "_rank_and_size", lambda rank=rank: (rank, 2)):
            same(batches(source, 2, 3), batches(plain, 2, 3))


@pytest.mark.parametrize("name", ["nemo", "hf"])
def test_loader_processes_give_the_same(name: str, tmp_path: Path, clips: list[Clip]) -> None:
    source = opened(name, tmp_path, clips)
    same(batches(source, 1, 4, num_workers=2), batches(source, 1, 4))


@pytest.mark.parametrize("name", ["webdataset", "shar", "hf"])
def test_rows_are_found_once(name: str, tmp_path: Path, clips: list[Clip]) -> None:
    first = opened(name, tmp_path, clips)
    again = type(first)(first.path, cache=str(tmp_path / "cache"))  # type: ignore[attr-defined,call-arg]
    with patch.object(type(first.layout), "rows", side_effect=AssertionError):  # type: ignore[attr-defined]
        cached = type(first)(first.path, cache=str(tmp_path / "cache"))  # type: ignore[attr-defined,call-arg]
    assert list(cached) == list(again) == list(first)
    assert [cached[i] for i in range(len(cached))] == list(cached)
    # A mix that is built of them is known again.
    assert source_hash(cached) == source_hash(first)
    assert len(list((tmp_path / "cache").glob("*.jsonl"))) == (2 if name == "hf" else 1)


def test_rows_are_found_again_where_the_files_changed(tmp_path: Path, clips: list[Clip]) -> None:
    source = opened("cuts", tmp_path, clips)
    assert len(source) == 24
    opened("cuts", tmp_path, clips[:5])
    assert len(LhotseCuts(str(tmp_path / "cuts" / "cuts.jsonl.gz"), cache=str(tmp_path))) == 5


def test_bad_audio_is_named_by_its_place_and_may_be_skipped(
    tmp_path: Path, clips: list[Clip], damage: Callable[[Path], None]
) -> None:
    root = CASES["webdataset"].write(tmp_path / "set", clips)
    source = TarShards(str(root), cache=str(tmp_path / "cache"))
    damage(root / "shard-000000.tar")
    with pytest.raises(ValueError, match=r"TarShards .*shard-000000.tar, 11-1-0000.wav, field"):
        batches(source, 0, 6)

    skipping = TarShards(str(root), cache=str(tmp_path / "cache"), on_bad_row="skip")
    assert skipping.skipped == {"unreadable audio": 1}
    assert len(skipping) == 23
    same(batches(skipping, 0, 3), batches(skipping, 0, 3))


@pytest.fixture
def damage() -> Callable[[Path], None]:
    """Makes nothing of the first clip of a shard, whose size stays."""

    def overwrite(shard: Path) -> None:
        data = bytearray(shard.read_bytes())
        data[512:560] = bytes(48)
        shard.write_bytes(data)

    return overwrite


def test_processes_that_begin_at_once_do_not_change_each_other_s_rows(
    tmp_path: Path, clips: list[Clip]
) -> None:
    root = CASES["cuts"].write(tmp_path / "set", clips)
    cache = str(tmp_path / "cache")
    first: list[LhotseCuts] = []

    def write(rows: Iterable[Utterance], path: Path) -> None:
        """Writes the rows while another process does, which is done sooner."""
        write_manifest(rows, path)
        if not first:
            with patch.object(sources, "write_manifest", write_manifest):
                first.append(LhotseCuts(str(root), cache=cache))

    with patch.object(sources, "write_manifest", write):
        second = LhotseCuts(str(root), cache=cache)
    assert [first[0][i] for i in range(24)] == [second[i] for i in range(24)]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_streaming_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="a batch is a function of the step"):
        HfDataset("someone/set", streaming=True)


def test_a_cache_is_not_left_half_written(tmp_path: Path, clips: list[Clip]) -> None:
    root = CASES["cuts"].write(tmp_path / "set", clips)
    lines = root.with_name("bad.jsonl")
    lines.write_text(json.dumps({"id": "a", "type": "MixedCut"}) + "\n")
    with pytest.raises(ValueError, match=r"bad.jsonl, line 1, field `type`: a MixedCut is not"):
        LhotseCuts(str(lines), cache=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []

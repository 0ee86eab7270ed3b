from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch import Tensor

from lightning_audiorl.data import (
    AsrDataModule,
    Augment,
    FsddDigits,
    ManifestRows,
    NonSpeech,
    RowSource,
    Subset,
)
from lightning_audiorl.types import PromptBatch
from tests.data.fakes import Rows, write_tone
from tests.helpers import assert_close


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    write_tone(tmp_path / "a.wav", 0.2)
    write_tone(tmp_path / "b.wav", 0.4)
    rows = [{"audio_filepath": name, "text": name[0]} for name in ("a.wav", "b.wav")]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path / "m.jsonl")


def module(root: str, **settings: Any) -> AsrDataModule:
    settings = {
        "train": [
            Subset(FsddDigits(root, num_rows=50), 0.8),
            Subset(NonSpeech(9, min_s=0.1, max_s=0.2), 0.2),
        ],
        "val": {
            "short": FsddDigits(root, "dev", num_rows=11),
            "noise": NonSpeech(5, min_s=0.1, max_s=0.2),
        },
        "batch_size": 5,
    } | settings
    return AsrDataModule(**settings)


def take(data: AsrDataModule, num: int) -> list[PromptBatch]:
    return list(islice(data.train_dataloader(), num))


def assert_same_batches(actual: list[PromptBatch], expected: list[PromptBatch]) -> None:
    assert [batch.ids for batch in actual] == [batch.ids for batch in expected]
    for one, other in zip(actual, expected, strict=True):
        assert_close(one.waveform, other.waveform, "exact")
        assert one.rows == other.rows


def test_a_batch_is_padded_with_zeros(root: str) -> None:
    (batch,) = take(module(root), 1)
    assert len(batch) == 5
    assert batch.sample_rate_hz == 16000
    assert batch.waveform.shape == (5, int(batch.num_samples.max()))
    for wave, num_samples, row in zip(
        batch.waveform, batch.num_samples.tolist(), batch.rows, strict=True
    ):
        assert abs(num_samples / 16000 - row.duration_s) < 1e-3
        assert float(wave[num_samples:].abs().sum()) == 0.0


def test_ids_stay_unique_when_rows_come_again(root: str) -> None:
    ids = [i for batch in take(module(root), 25) for i in batch.ids]
    assert len(set(ids)) == len(ids) == 125
    assert len({i.split("@")[0] for i in ids}) < 125


@pytest.mark.parametrize("settings", [{}, {"pool": 4}, {"augment": Augment()}, {"num_workers": 2}])
def test_training_goes_on_from_next_step(root: str, settings: dict[str, Any]) -> None:
    whole = (
        take(module(root), 6) if "num_workers" in settings else take(module(root, **settings), 6)
    )
    data = module(root, **settings)
    data.load_state_dict({"next_step": 3})
    assert data.state_dict() == {"next_step": 3}
    assert_same_batches(take(data, 3), whole[3:])


def test_augmented_rows_carry_their_new_length(root: str) -> None:
    (batch,) = take(module(root, augment=Augment(speed=(0.9, 0.9))), 1)
    (plain,) = take(module(root), 1)
    assert batch.ids == plain.ids
    for row, num_samples, before in zip(
        batch.rows, batch.num_samples.tolist(), plain.rows, strict=True
    ):
        assert row.duration_s == num_samples / 16000
        assert abs(row.duration_s * 0.9 - before.duration_s) < 2e-3


def test_evaluation_sets_are_read_once_longest_first(root: str) -> None:
    data = module(root, max_batch_s=2.0)
    assert data.val_names == ["short", "noise"]
    short, noise = data.val_dataloader()
    batches = list(short)
    assert len(batches) == len(short) > 1
    assert sorted(i for batch in batches for i in batch.ids) == [
        row.id for row in data.rows("val/short")
    ]
    durations = [row.duration_s for batch in batches for row in batch.rows]
    assert durations == sorted(durations, reverse=True)
    assert all(text == "" for batch in noise for text in batch.texts)


def test_workers_read_evaluation_sets_in_the_same_order(root: str) -> None:
    plain, split = module(root, max_batch_s=2.0), module(root, max_batch_s=2.0, num_workers=2)
    assert_same_batches(list(split.val_dataloader()[0]), list(plain.val_dataloader()[0]))


def test_ranks_take_contiguous_parts_of_a_batch(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = take(module(root), 3)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(
            "lightning_audiorl.data.datamodules.asr._rank_and_size", lambda rank=rank: (rank, 2)
        )
        parts.append(take(module(root), 3))
    for step, batch in enumerate(whole):
        assert parts[0][step].ids + parts[1][step].ids == batch.ids
        assert len(parts[0][step]) == 2


def test_a_refill_is_further_rows_that_depend_on_step_and_attempt_alone(root: str) -> None:
    data, later = module(root, augment=Augment()), module(root, augment=Augment())
    drawn = {i for batch in take(data, 12) for i in batch.ids}
    later.load_state_dict({"next_step": 9})
    batch = data.refill(step=4, attempt=1, num_prompts=10)
    assert_same_batches([later.refill(4, 1, 10)], [batch])
    assert all(i.split("@")[1] in ("0.r4.1", "1.r4.1") for i in batch.ids)
    assert len(set(batch.ids)) == 10
    assert not drawn & set(batch.ids)
    for step, attempt in ((5, 1), (4, 2)):
        assert [i.split("@")[0] for i in data.refill(step, attempt, 10).ids] != [
            i.split("@")[0] for i in batch.ids
        ]
    for row, num_samples in zip(batch.rows, batch.num_samples.tolist(), strict=True):
        assert row.duration_s == num_samples / 16000
    assert data.next_step == 0
    with pytest.raises(ValueError, match=r"num_rows=0"):
        data.refill(0, 0, 0)


def test_ranks_refill_with_different_rows(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = module(root).refill(2, 0, 8)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(
            "lightning_audiorl.data.datamodules.asr._rank_and_size", lambda rank=rank: (rank, 2)
        )
        parts.append(module(root).refill(2, 0, 4))
    assert parts[0].ids + parts[1].ids == whole.ids


def test_one_source_is_a_mix_of_one() -> None:
    rows = NonSpeech(num_rows=5, seed=1)
    alone = AsrDataModule(train=rows, batch_size=2)
    mix = AsrDataModule(train=[Subset(rows)], batch_size=2)
    first, same = (next(iter(data.train_dataloader())) for data in (alone, mix))
    assert [row.id for row in first.rows] == [row.id for row in same.rows]


def test_manifest_paths_are_sources(manifest: str) -> None:
    data = AsrDataModule(train=manifest, val={"m": manifest}, batch_size=2)
    assert sorted(take(data, 1)[0].texts) == ["a", "b"]
    assert isinstance(data.rows("val/m"), ManifestRows)
    with pytest.raises(KeyError, match="no data set 'val/n'; val has m"):
        data.rows("val/n")
    with pytest.raises(ValueError, match="`train` is empty"):
        AsrDataModule().train_dataloader()


def test_too_long_rows_are_named_or_left_out_and_counted(manifest: str) -> None:
    limit: dict[str, Any] = {"max_duration_s": 0.3, "batch_size": 2}
    with pytest.raises(ValueError, match=r"train/0: row 'm:2' lasts 0\.40 s"):
        AsrDataModule(train=manifest, **limit).train_dataloader()
    with pytest.raises(
        ValueError, match=r"val/m: row 'm:2' lasts 0\.40 s, more than max_duration_s=0\.3"
    ):
        AsrDataModule(val={"m": manifest}, **limit).val_dataloader()
    with pytest.raises(ValueError, match="train/0: row 'r1' lasts"):
        take(AsrDataModule(train=[Subset(Rows([0.1, 0.9]))], **limit), 1)

    data = AsrDataModule(train=manifest, val={"m": manifest}, on_too_long="skip", **limit)
    assert take(data, 1)[0].texts == ["a", "a"]
    assert [batch.texts for batch in data.val_dataloader()[0]] == [["a"]]
    assert data.num_too_long == {"train/0": 1, "val/m": 1}
    with pytest.raises(ValueError, match="all 1 rows are longer"):
        AsrDataModule(val={"r": Rows([0.9])}, on_too_long="skip", **limit).val_dataloader()


class Recorder(LightningModule):
    """Stands for an algorithm: one training step per batch, and it tells the data module where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.automatic_optimization = False
        self.trained: list[list[str]] = []
        self.validated: list[tuple[int, int]] = []

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        self.trained.append(batch.ids)
        self.optimizers().step()
        data = self.trainer.datamodule
        data.next_step += 1

    def validation_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validated.append((dataloader_idx, len(batch)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x


def trainer(folder: Path, max_steps: int, callbacks: list[Any]) -> Trainer:
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        default_root_dir=folder,
        callbacks=callbacks,
        **quiet,
    )


def test_a_resumed_lightning_run_sees_the_same_batches(root: str, tmp_path: Path) -> None:
    whole = Recorder()
    saved = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    trainer(tmp_path, 7, [saved]).fit(whole, module(root))
    assert len(whole.trained) == 7
    assert {loader for loader, _ in whole.validated} == {0, 1}
    resumed = Recorder()
    trainer(tmp_path, 7, []).fit(resumed, module(root), ckpt_path=str(tmp_path / "step=3.ckpt"))
    assert resumed.trained == whole.trained[3:]


def test_the_cli_builds_it_from_yaml(root: str, manifest: str, tmp_path: Path) -> None:
    fsdd = {
        "class_path": "lightning_audiorl.data.FsddDigits",
        "init_args": {"root": root, "num_words": [1, 3]},
    }
    noise = {
        "class_path": "lightning_audiorl.data.NonSpeech",
        "init_args": {"num_rows": 3, "kinds": ["hum"]},
    }
    config = {
        "data": {
            "train": [
                {"source": fsdd, "share": {0: 1.0, 10: 0.5}},
                {"source": noise},
                {"source": manifest},
            ],
            "val": {"digits": fsdd, "noise": noise, "mine": manifest},
            "augment": {"speed": [0.95, 1.05]},
        }
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    args = ["--config", str(tmp_path / "config.yaml"), "--data.batch_size=3"]
    data = LightningCLI(
        Recorder, AsrDataModule, run=False, save_config_callback=None, args=args
    ).datamodule
    assert isinstance(data.train, list)
    assert [type(subset) for subset in data.train] == [Subset] * 3
    assert data.train[0].share == {0: 1.0, 10: 0.5}
    assert data.augment == Augment(speed=(0.95, 1.05))
    assert all(isinstance(data.rows(f"val/{name}"), RowSource) for name in data.val_names)
    assert len(take(data, 1)[0]) == 3

    with pytest.raises(SystemExit):
        LightningCLI(Recorder, AsrDataModule, run=False, args=[*args, "--data.batchsize=3"])

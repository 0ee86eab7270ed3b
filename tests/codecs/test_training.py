"""Training of the tiny codec, on sounds that are made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from lightning_audiorl.codecs import CodecTraining, TinyCodec, TinyCodecConfig
from lightning_audiorl.codecs.training import mel_errors, perplexity, random_crops
from lightning_audiorl.data import AsrDataModule, NonSpeech, Subset
from lightning_audiorl.types import PromptBatch, Utterance
from tests.helpers import assert_close

SMALL = TinyCodecConfig(width=24, layers=1, num_mels=24, n_fft=512, iterations=1)


def batch() -> PromptBatch:
    """Ramps of 10 and 4 samples."""
    waveform = torch.arange(1.0, 11.0).repeat(2, 1)
    waveform[1, 4:] = 0
    rows = tuple(Utterance(name, (), "", 0.0) for name in "ab")
    return PromptBatch(waveform, torch.tensor([10, 4]), 16000, rows)


def trainer(folder: Path) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=1,
        val_check_interval=1_000_000,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def data(sample_rate_hz: int = 16000) -> AsrDataModule:
    sounds = NonSpeech(
        num_rows=12, kinds=["hum", "music"], min_s=0.4, max_s=0.8, level_db=(-30.0, -10.0)
    )
    return AsrDataModule(
        train=[Subset(sounds)],
        val={"held": sounds},
        batch_size=4,
        sample_rate_hz=sample_rate_hz,
        max_batch_s=4.0,
    )


def test_crops_are_stretches_of_their_clip_and_keyed() -> None:
    crops = random_crops(batch(), 6, (0, 3))
    start = int(crops[0, 0])
    assert_close(crops[0], torch.arange(start, start + 6.0), "exact")
    assert 1 <= start <= 5
    assert crops[1].tolist() == [1, 2, 3, 4, 0, 0]
    assert_close(
        random_crops(batch().select([0]), 6, (0, 3))[0], crops[0], "exact"
    )  # whatever else is in the batch
    starts = {int(random_crops(batch(), 6, (0, step))[0, 0]) for step in range(60)}
    assert starts == {1, 2, 3, 4, 5}


def test_figures_by_hand() -> None:
    absolute, squared = mel_errors(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 0.0]))
    assert (float(absolute), float(squared)) == (1.5, 2.5)
    assert perplexity(torch.tensor([5, 5, 0])) == pytest.approx(2.0)
    assert perplexity(torch.tensor([9, 0])) == pytest.approx(1.0)
    assert perplexity(torch.zeros(3)) == 0.0


def test_training_lowers_the_error_and_writes_the_codec(tmp_path: Path) -> None:
    before = CodecTraining(TinyCodec(SMALL), num_steps=1)
    first = trainer(tmp_path).validate(before, data(), verbose=False)[0]
    module = CodecTraining(TinyCodec(SMALL), num_steps=40, warmup_steps=5, crop_s=0.4)
    run = trainer(tmp_path)
    run.fit(module, data())
    assert module.global_step == 40
    figures = {key: float(value) for key, value in run.callback_metrics.items()}
    assert figures["val/held/mel_l1"] < 0.5 * first["val/held/mel_l1"]
    assert 1 < figures["val/held/perplexity"] <= figures["val/held/codes_used"] <= 512
    loaded = TinyCodec(str(tmp_path / "codec"))
    wave = data().load(list(NonSpeech(num_rows=1))).waveform
    num_samples = torch.tensor([wave.shape[1]])
    assert_close(
        loaded.encode(wave, num_samples)[0], module.codec.encode(wave, num_samples)[0], "exact"
    )
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_same_seed_trains_the_same_codec(tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        run = trainer(tmp_path / name)
        run.limit_val_batches = 0
        run.fit(CodecTraining(TinyCodec(SMALL), num_steps=3, folder=str(tmp_path / name)), data())
        weights.append(TinyCodec(str(tmp_path / name)).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="the data are at 8000 Hz and the codec at 16000 Hz; set sample_rate_hz"
    ):
        trainer(tmp_path).fit(CodecTraining(TinyCodec(SMALL), num_steps=1), data(8000))
    with pytest.raises(ValueError, match="num_steps: want a whole number of at least 1"):
        CodecTraining(TinyCodec(SMALL), num_steps=0)

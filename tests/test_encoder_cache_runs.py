"""Runs whose encoder outputs are kept: how often clips are encoded, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from lightning_audiorl.algorithms import SFT, Optim
from lightning_audiorl.data import AsrDataModule, Augment, NonSpeech, Subset
from lightning_audiorl.models import EncoderCache, TinyWhisper, WhisperPolicy
from tests.algorithms.tiny import trainable
from tests.command import run, tiny_config, write_manifest

_SIZES = TinyWhisper(
    width=16, encoder_layers=1, decoder_layers=1, heads=2, chunk_length_s=1, num_mel_bins=8
)


def data(**settings: Any) -> AsrDataModule:
    """64 training and 32 evaluation clips, all different."""
    train = NonSpeech(64, kinds=["white"], min_s=0.1, max_s=0.3, seed=1)
    val = NonSpeech(32, kinds=["pink"], min_s=0.1, max_s=0.3, seed=2)
    return AsrDataModule([Subset(train)], val={"noise": val}, batch_size=16, **settings)


def epochs(num: int, cache: EncoderCache | None, **settings: Any) -> SFT:
    """Four steps of 16 clips each, an evaluation before them and one after each epoch."""
    policy = WhisperPolicy(_SIZES, encoder_cache=cache)
    module = SFT(policy, num_steps=4 * num, optim=Optim(lr=1e-3))
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        max_epochs=-1,
    )
    datamodule = data(**settings)
    trainer.validate(module, datamodule, verbose=False)
    trainer.fit(module, datamodule)
    return module


def test_four_epochs_and_five_evaluations_encode_each_clip_once() -> None:
    kept = epochs(4, EncoderCache())
    plain = epochs(4, None)
    assert len(kept.evaluations) == 5
    assert plain.policy.num_encoded == 4 * 64 + 5 * 32
    assert kept.policy.num_encoded == 64 + 32
    assert kept.step_metrics["loss"] == pytest.approx(plain.step_metrics["loss"], abs=1e-5)


def test_augmented_rows_are_not_kept_and_evaluation_rows_are() -> None:
    cache = EncoderCache()
    module = epochs(2, cache, augment=Augment())
    assert module.policy.num_encoded == 2 * 64 + 32
    # 50 positions of 16 numbers each.
    assert cache.num_bytes == 32 * 50 * 16 * 4


@pytest.mark.slow
def test_what_has_to_be_encoded_again_changes_no_bit(tmp_path: Path) -> None:
    size = 16 * 50 * 4 / 2**30
    caches = [
        EncoderCache(),
        EncoderCache(memory_gib=10 * size),
        EncoderCache(memory_gib=0, folder=str(tmp_path), disk_gib=60 * size),
    ]
    whole, little, files = (epochs(2, cache).policy for cache in caches)
    assert whole.num_encoded == 96
    assert min(little.num_encoded, files.num_encoded) > 96
    for policy in (little, files):
        weights = trainable(policy)
        for name, values in trainable(whole).items():
            assert torch.equal(values, weights[name]), name


def cached_config(run_folder: Path, **cache: Any) -> dict[str, Any]:
    config = tiny_config(run_folder, num_steps=4)
    config["model"]["init_args"]["policy"]["init_args"]["encoder_cache"] = cache
    config["checkpoint"] = {"every_n_steps": 2, "keep": 9}
    return config


def test_a_run_that_goes_on_with_an_empty_cache_is_the_whole_run(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    config = cached_config(tmp_path, memory_gib=0.1)
    whole = run(tmp_path, config)
    checkpoint = next(tmp_path.rglob("*2.ckpt"))
    config["trainer"]["default_root_dir"] = str(tmp_path / "other")
    resumed = run(tmp_path, config, "--ckpt_path", str(checkpoint))
    assert resumed.model.rl_step == whole.model.rl_step == 4
    weights = trainable(resumed.model.policy)
    for name, values in trainable(whole.model.policy).items():
        assert torch.equal(values, weights[name]), name


def test_fit_and_validate_share_a_folder(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    config = cached_config(tmp_path, folder=str(tmp_path / "kept"), dtype="bfloat16")
    fitted = run(tmp_path, config)
    assert fitted.model.policy.num_encoded == 6
    config["trainer"]["default_root_dir"] = str(tmp_path / "other")
    config.pop("checkpoint")
    validated = run(tmp_path, config, command="validate")
    assert validated.model.policy.num_encoded == 0


def test_what_was_found_is_logged_and_the_ledger_counts_the_memory(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    config = cached_config(tmp_path, memory_gib=0.1)
    config["trainer"] |= {"strategy": "phase_single", "val_check_interval": 2}
    module = run(tmp_path, config).model
    # Two of six rows in each of four steps: the last one meets what it has met, in training or in an evaluation.
    assert module.step_metrics["encoder_cache/hit_share"] == 1.0
    gib = module.step_metrics["encoder_cache/gib"]
    assert gib == module.policy.encoder_cache.num_bytes / 2**30 > 0
    assert module.step_metrics["host_mib/encoder_cache"] == pytest.approx(1024 * gib)
    assert "| encoder cache, on the host | " in module.ledger_table


def test_without_a_cache_nothing_more_is_logged() -> None:
    assert not [name for name in epochs(1, None).step_metrics if "cache" in name]


def test_an_encoder_whose_outputs_are_all_at_hand_stays_parked(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    config = cached_config(tmp_path, memory_gib=0.1)
    # Every step takes all six rows; nothing of the first one's evaluation is there yet.
    config["data"]["init_args"]["batch_size"] = 6
    config["trainer"] |= {"num_sanity_val_steps": 0}
    plain = run(tmp_path, config).model
    assert "seconds/encode" in plain.step_metrics

    config["trainer"] |= {"strategy": "phase_single", "default_root_dir": str(tmp_path / "other")}
    placed = run(tmp_path, config).model
    assert placed.policy.num_encoded == plain.policy.num_encoded == 6
    assert "resident_mib/encode" not in placed.step_metrics
    assert "resident_mib/rollout" in placed.step_metrics
    weights = trainable(placed.policy)
    for name, values in trainable(plain.policy).items():
        assert torch.equal(values, weights[name]), name

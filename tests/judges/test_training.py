from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor

from lightning_audiorl.codecs import TinyCodec, TinyCodecConfig
from lightning_audiorl.data import AsrDataModule, RowSource
from lightning_audiorl.data.datamodules.asr import Subset, collate
from lightning_audiorl.judges import (
    CtcTraining,
    LogMelGru,
    MfccConv,
    SpeakerTraining,
    XvectorNetwork,
)
from lightning_audiorl.judges.training.base import JudgeTraining
from lightning_audiorl.judges.training.ctc import character_ids
from lightning_audiorl.judges.training.speaker import margin_loss, mean_cosines
from lightning_audiorl.judges.training.vocoded import vocoded
from lightning_audiorl.types import PromptBatch, Utterance
from tests.helpers import assert_close
from tests.judges.fakes import RATE_HZ, tone

WORDS = {"a": 120.0, "b": 240.0}


class Tones(RowSource):
    """Row i says one of two words in one of two voices."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        word, voice = "ab"[index % 2], ("low", "high")[index // 2 % 2]
        return Utterance(f"tone{index}", (), word, 0.4, speaker=voice)


class ToneData(AsrDataModule):
    """Words are pitches, voices are whether the tone has harmonics."""

    def wave(self, row: Utterance) -> Tensor:
        clip = tone(WORDS[row.text], 0.2)
        if row.speaker == "low":
            time_s = torch.arange(len(clip)) / RATE_HZ
            clip = 0.3 * (2 * torch.pi * WORDS[row.text] * time_s).sin()
        silence = torch.zeros(800)
        return torch.cat([silence, clip, silence])

    def load(self, rows: Sequence[Utterance]) -> PromptBatch:
        return collate(rows, [self.wave(row) for row in rows], RATE_HZ)

    def _train_batch(self, draws: list[Any], step: int) -> PromptBatch:
        return self.load([self.rows("train/0")[draw.row] for draw in draws])


def fit(module: JudgeTraining, folder: Path) -> None:
    data = ToneData([Subset(Tones())], val={"dev": Tones()}, sample_rate_hz=RATE_HZ, batch_size=8)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=module.num_steps,
        val_check_interval=module.num_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    trainer.fit(module, datamodule=data)


def test_ctc_learns_two_tones_and_writes_its_folder(tmp_path: Path) -> None:
    network = MfccConv(characters="ab", width=16, dilations=(1, 2), dropout=0.0)
    module = CtcTraining(network, 80, lr=2e-2, warmup_steps=3)
    fit(module, tmp_path)
    assert module.metrics["dev/cer"] < 0.2, "an untrained one has 1.0"
    config = json.loads((tmp_path / "judge" / "config.json").read_text())
    assert config["kind"] == "MfccConv"
    assert config["figures"] == module.metrics | {"steps": 80.0}


def test_speaker_training_tells_two_voices_apart(tmp_path: Path) -> None:
    module = SpeakerTraining(
        XvectorNetwork(width=16, dim=8),
        30,
        ["low", "high"],
        lr=1e-2,
        warmup_steps=3,
        folder=str(tmp_path / "x"),
    )
    fit(module, tmp_path)
    assert module.metrics["dev/accuracy"] == 1.0
    assert module.metrics["dev/same"] > 0.8
    assert module.metrics["dev/different"] < 0.5
    assert (tmp_path / "x" / "model.safetensors").is_file()


def test_vocoding_is_keyed_and_keeps_lengths(tmp_path: Path) -> None:
    module = CtcTraining(LogMelGru(characters="ab", width=8), 1, vocoded_probability=0.5)
    batch = ToneData().load([Tones()[i] for i in range(12)])
    plain, lengths = module.inputs(batch)
    assert_close(plain, batch.waveform, "exact")
    once, again = (module.inputs(batch, augmented=True)[0] for _ in range(2))
    assert_close(once, again, "exact")
    changed = (once != plain).any(-1)
    assert 0 < int(changed.sum()) < 12
    module.vocoded_probability = 0.0
    assert_close(module.inputs(batch, augmented=True)[0], plain, "exact")
    assert lengths.tolist() == [3200] * 12


def test_vocoded_speech_keeps_its_spectrum_roughly() -> None:
    clip = tone(200.0, 0.5)
    again = vocoded(clip, RATE_HZ, num_mels=60)
    assert again.shape == clip.shape
    window = torch.hann_window(512)
    before, after = (
        torch.stft(wave, 512, window=window, return_complex=True).abs().mean(-1)
        for wave in (clip, again)
    )
    assert torch.cosine_similarity(before, after, dim=0) > 0.85
    assert (clip - again).abs().max() > 0.05, "the phase should be lost"
    assert_close(vocoded(torch.ones(100), RATE_HZ), torch.ones(100), "exact")


def test_margin_loss() -> None:
    cosines = torch.tensor([[0.8, 0.1], [-0.2, 0.5]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    own = torch.tensor([0.8, 0.5], dtype=torch.float64).acos().add(0.2).cos()
    logits = 20 * torch.tensor([[own[0], 0.1], [-0.2, own[1]]], dtype=torch.float64)
    assert_close(
        margin_loss(cosines, labels, 0.2, 20.0),
        torch.nn.functional.cross_entropy(logits, labels),
        "float64",
    )


def test_mean_cosines() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    same, different = mean_cosines(embeddings, torch.tensor([0, 0, 1]))
    assert same == pytest.approx(0.6)
    assert different == pytest.approx(0.4)


def test_bad_rows() -> None:
    with pytest.raises(
        ValueError, match=r"row 'r1': its text has '7', which is not among the judge's characters"
    ):
        character_ids(Utterance("r1", (), "route 7", 1.0), "abcdefghijklmnopqrstuvwxyz ")
    assert character_ids(Utterance("r1", (), "Ab b!", 1.0), "ab ") == [1, 2, 3, 2]
    long = Utterance("r2", (), "ab" * 40, 0.1)
    module = CtcTraining(LogMelGru(characters="ab", width=8), 1)
    with pytest.raises(ValueError, match=r"row 'r2': 6 frames of audio for 80 characters"):
        module.loss(tone(120.0, 0.1)[None], torch.tensor([800]), [long])
    speakers = SpeakerTraining(XvectorNetwork(width=8), 1, ["low", "high"])
    with pytest.raises(ValueError, match="row 'r3': speaker 'nobody' is not among"):
        speakers.loss(
            tone(120.0)[None],
            torch.tensor([4000]),
            [Utterance("r3", (), "a", 1.0, speaker="nobody")],
        )


def test_some_clips_go_through_the_codec() -> None:
    codec = TinyCodec(
        TinyCodecConfig(
            sample_rate_hz=RATE_HZ, num_mels=24, n_fft=256, width=16, layers=1, iterations=2
        )
    )
    data = ToneData([Subset(Tones())], sample_rate_hz=RATE_HZ, batch_size=8)
    batch = data.load(list(Tones()))
    module = CtcTraining(
        LogMelGru(characters="ab", width=8), 1, codec=codec, vocoded_probability=0.0
    )
    heard, lengths = module.inputs(batch, augmented=True)
    changed = [
        not torch.equal(wave[:num], clip[:num])
        for wave, clip, num in zip(heard, batch.waveform, batch.num_samples, strict=True)
    ]
    assert 8 < sum(changed) < 32  # half of 40
    every, lengths = module.inputs(batch)  # a validation hears the codec alone
    waveform, num_samples = codec.decode(*codec.encode(batch.waveform, batch.num_samples))
    assert_close(every, waveform, "exact")
    assert lengths.tolist() == num_samples.tolist()
    module.configure_optimizers()
    assert not any(p.requires_grad for p in module.codec.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps: want a whole number of at least 1"),
        ({"vocoded_probability": 0.7}, "together at most 1"),
        ({"vocoded_mels": (9, 3)}, "vocoded_mels: want 1 <= low <= high"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CtcTraining(LogMelGru(width=8), **({"num_steps": 1} | arguments))
    with pytest.raises(ValueError, match="want two or more names, each once"):
        SpeakerTraining(XvectorNetwork(width=8), 1, ["low", "low"])

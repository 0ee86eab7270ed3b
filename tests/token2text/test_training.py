from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_audiorl.judges.base import AsrJudge
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.token2text import Token2Text, Token2TextTraining, calibration
from lightning_audiorl.token2text.validation import spearman
from lightning_audiorl.types import Hypothesis, PromptBatch, Speech, Utterance
from tests.models.families import ToneCodec

#: Two codes per letter, and a pause between words.
SOUNDS = {"a": (0, 1), "b": (2, 3), "c": (4, 5), " ": (15,)}
TEXTS = ["a b", "c", "b a c", "a a", "c b a", "b c"]
NAMES = ["low", "high"]


def codes_of(text: str) -> list[int]:
    return [code for char in text for code in SOUNDS[char]]


def make_batch(first: int = 0) -> PromptBatch:
    codec = ToneCodec()
    rows = [codes_of(text) for text in TEXTS]
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    waveform, num_samples = codec.decode(padded, lengths)
    utterances = tuple(
        Utterance(f"{first + i}", (), text, 1.0, speaker=NAMES[len(text) > 2])
        for i, text in enumerate(TEXTS)
    )
    return PromptBatch(
        torch.zeros(6, 0),
        torch.zeros(6, dtype=torch.long),
        16000,
        utterances,
        waveform,
        num_samples,
    )


def make_training(
    num_steps: int = 1, folder: str | None = None, **settings: Any
) -> Token2TextTraining:
    network = Token2Text(
        16,
        "abc ",
        {"speaker": NAMES},
        width=32,
        dilations=(1,),
        heads=2,
        decoder_layers=1,
        dropout=0.0,
    )
    settings = {"lr": 1e-2, "warmup_steps": 5} | settings
    return Token2TextTraining(network, ToneCodec(), num_steps, folder, **settings)


def fit(
    training: Token2TextTraining, batches: list[PromptBatch], val: PromptBatch, **settings: Any
) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        **settings,
    )
    loaders: Any = [DataLoader(each, batch_size=None) for each in (batches, [val])]  # type: ignore[arg-type]
    trainer.fit(training, *loaders)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Token2TextTraining, Path]:
    folder = tmp_path_factory.mktemp("token2text")
    training = make_training(90, str(folder))
    fit(training, [make_batch(10 * i) for i in range(90)], make_batch(9999))
    return training, folder


def test_it_learns_to_read(trained: tuple[Token2TextTraining, Path]) -> None:
    """Recordings to texts by both forms and to speakers, and the folder says so."""
    training, folder = trained
    assert training.metrics["set0/cer"] == 0
    assert training.metrics["set0/cer_ctc"] == 0
    assert training.metrics["set0/speaker_accuracy"] == 1
    network = Token2Text.load(str(folder)).eval()
    assert network.codec_hash == content_hash(ToneCodec())
    codes = torch.tensor([codes_of("c a")])
    assert network.transcribe(codes, torch.tensor([5])) == ["c a"]
    assert network.transcribe(codes, torch.tensor([5]), ctc=True) == ["c a"]


def test_half_of_the_rows_lack_their_end_and_noise_is_keyed() -> None:
    training = make_training(replaced=0.3)
    batch = make_batch()
    codes, lengths = training.inputs(batch)
    assert [row[:n] for row, n in zip(codes.tolist(), lengths.tolist(), strict=True)] == [
        [*codes_of(text), 16] for text in TEXTS
    ]
    _, some = training.inputs(batch, augmented=True)
    assert 0 < int((lengths - some).sum()) < 6
    one, other = (training._disturbed(codes, batch.rows) for _ in range(2))
    assert (one == other).all()
    renamed = tuple(replace(row, id=row.id + "'") for row in batch.rows)
    assert (training._disturbed(codes, renamed) != one).any()
    ends = codes == 16
    assert (one[ends] == training.network.embed(codes)[ends]).all()
    whole = make_training(replaced=0.0, mixed=0.0)
    assert (whole._disturbed(codes, batch.rows) == whole.network.embed(codes)).all()


def test_rows_without_label_are_left_out_of_a_head() -> None:
    training = make_training()
    training.log_dict = lambda *_, **__: None  # type: ignore[assignment,method-assign]
    batch = make_batch()
    codes, lengths = training.inputs(batch)
    nameless = [replace(row, speaker="") for row in batch.rows]
    losses = [
        float(training.loss(codes, lengths, rows).detach()) for rows in (batch.rows, nameless)
    ]
    assert losses[0] > losses[1]
    unknown = [replace(row, speaker="who") for row in batch.rows]
    with pytest.raises(ValueError, match="row '0': its speaker is 'who'"):
        training.loss(codes, lengths, unknown)


class Ear(AsrJudge):
    """Hears what it is told to."""

    def __init__(self, answers: list[str | None]) -> None:
        super().__init__("ear", 16000)
        self.answers = list(answers)

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        return [self.answers.pop(0) for _ in waveforms]


def test_calibration_against_a_judge(trained: tuple[Token2TextTraining, Path]) -> None:
    """Samples that say another text than theirs: a low likelihood where the judge counts errors."""
    network = trained[0].network
    said = ["a b", "c", "b c", "c", "a b", "c"]
    samples = []
    for i, (text, words) in enumerate(zip(TEXTS, said, strict=True)):
        speech = Speech(torch.randn(10), 16000, torch.tensor(codes_of(words)))
        samples.append(Hypothesis(Utterance(str(i), (), text, 1.0), "", speech=speech))
    samples.append(
        Hypothesis(samples[0].row, "", speech=Speech(torch.randn(10), 16000, torch.zeros(0).long()))
    )
    found = calibration(network, samples, Ear([*said, ""]), num_quantiles=2)
    assert found.num_samples == 6  # one said nothing
    assert min(found.spearman.values()) >= -1
    assert found.spearman["decoder"] < -0.7
    assert found.spearman["ctc"] < -0.7
    assert found.cer["decoder"] == found.cer["judge"] > 0
    (low, low_rate, _), (high, high_rate, num) = found.quantiles["decoder"]
    assert low < high
    assert low_rate > high_rate
    assert num == 3
    assert found.table().count("\n") == 5
    with pytest.raises(ValueError, match="no sample has codes"):
        calibration(network, samples[-1:], Ear([""]))


def test_rank_correlation() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, x**3) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    assert spearman(x, torch.tensor([1.0, 1.0, 2.0, 2.0])) == pytest.approx(4 / math.sqrt(5 * 4))
    assert math.isnan(spearman(x, torch.ones(4)))


def test_bad_input() -> None:
    batch, training = make_batch(), make_training()
    with pytest.raises(ValueError, match="no recordings of their texts"):
        training.inputs(replace(batch, target_waveform=None, target_num_samples=None))
    with pytest.raises(ValueError, match="wants 16000 Hz audio, got 8000"):
        training.inputs(replace(batch, sample_rate_hz=8000))
    lengths = batch.target_num_samples
    assert lengths is not None
    with pytest.raises(ValueError, match="row '1': no recording of its text"):
        training.inputs(
            replace(batch, target_num_samples=lengths * torch.tensor([1, 0, 1, 1, 1, 1]))
        )
    with pytest.raises(ValueError, match="the codec has 16 codes, the network 8"):
        Token2TextTraining(Token2Text(8), ToneCodec(), 1)
    with pytest.raises(ValueError, match="replaced"):
        make_training(replaced=1.0)

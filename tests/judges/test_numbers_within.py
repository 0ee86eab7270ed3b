"""Judges of finite weights that compute NaN, as half precision or a broken file makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from lightning_audiorl.judges import AsrJudge, CtcJudge, PolicyJudge, TransformersJudge
from lightning_audiorl.models import TinyWhisper
from lightning_audiorl.models.tiny import build_whisper
from tests import speech
from tests.judges.fakes import said
from tests.models.families import make

LARGE = 3e38


def ctc_folder(folder: Path) -> str:
    """A tiny Wav2Vec2 whose head overflows."""
    folder.mkdir()
    characters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abc"]
    vocabulary = {character: i for i, character in enumerate(characters)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)

    config = Wav2Vec2Config(
        vocab_size=len(characters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(16, 16),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    model = Wav2Vec2ForCTC(config)
    torch.nn.init.constant_(model.lm_head.weight, LARGE)
    model.save_pretrained(folder)
    return str(folder)


def whisper_folder(folder: Path) -> str:
    """A tiny Whisper whose encoder overflows."""
    spec = TinyWhisper(words=("one", "two"), width=16, encoder_layers=1, decoder_layers=1)
    model, processor = build_whisper(spec)
    torch.nn.init.constant_(model.model.encoder.layer_norm.weight, LARGE)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def judge_of(kind: str, folder: Path) -> AsrJudge:
    if kind == "ctc of transformers":
        return TransformersJudge(ctc_folder(folder / "ctc"), "ctc")
    if kind == "seq2seq of transformers":
        how = {"max_new_tokens": 4}
        return TransformersJudge(whisper_folder(folder / "whisper"), "seq2seq", generate=how)
    if kind == "policy":
        policy = make("whisper")
        torch.nn.init.constant_(policy.model.model.encoder.layer_norm.weight, LARGE)
        return PolicyJudge(policy)

    own = CtcJudge(str(speech.judge_folders(folder)["judge"]))
    for parameter in own.parameters():
        parameter.data.mul_(1e38)
    return own


@pytest.mark.fault(
    "Numbers that are none",
    "a judge of finite weights that computes NaN or infinity from a sample (half precision, a broken file)",
    "a failure of the judge, counted and said; no empty transcript, which would be the worst reward",
)
@pytest.mark.parametrize(
    "kind", ["ctc of transformers", "seq2seq of transformers", "policy", "own ctc"]
)
def test_a_judge_that_computes_nan_has_not_heard(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = [said("one", 0.1), said("two", 0.2)]
    assert judge_of(kind, tmp_path).transcribe(samples) == [None, None]
    assert "NaN or infinit" in caplog.text

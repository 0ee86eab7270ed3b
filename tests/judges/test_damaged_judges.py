"""Judges, codecs and Token2Text: a damaged folder, or one of another kind, is refused where it is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchaudio.models import squim_objective_base
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from lightning_audiorl.codecs import TinyCodec, TinyCodecConfig
from lightning_audiorl.judges import (
    CtcJudge,
    EcapaEncoder,
    MfccConv,
    SquimQuality,
    TransformersJudge,
    TransformersSpeakerEncoder,
    XvectorEncoder,
    XvectorNetwork,
)
from lightning_audiorl.token2text import Token2Text
from tests.codecs.test_hf import KINDS as CODECS
from tests.codecs.test_hf import save as save_codec
from tests.damage import FOLDERS, outcome
from tests.judges.test_pretrained import SMALL_WAVE, ctc_folder
from tests.models.families import SPECS

Load = Callable[[str], Any]


def own_ctc(folder: Path) -> Load:
    MfccConv("abc", width=8, dilations=(1,)).save(str(folder))
    return CtcJudge


def own_speakers(folder: Path) -> Load:
    XvectorNetwork(8000, width=8, dim=4).save(str(folder))
    return XvectorEncoder


def token2text(folder: Path) -> Load:
    Token2Text(num_codes=16, characters="abc", width=8, heads=2).save(str(folder))
    return Token2Text.load


def tiny_codec(folder: Path) -> Load:
    TinyCodec(TinyCodecConfig(sample_rate_hz=8000, width=8, layers=1)).save(str(folder))
    return TinyCodec


def ctc(folder: Path) -> Load:
    ctc_folder(folder)
    return lambda source: TransformersJudge(source, "ctc")


def seq2seq(folder: Path) -> Load:
    model, processor = SPECS["whisper"].build()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return lambda source: TransformersJudge(source, "seq2seq")


def speakers(folder: Path) -> Load:
    WavLMForXVector(WavLMConfig(**SMALL_WAVE, xvector_output_dim=4)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return TransformersSpeakerEncoder


def codec(folder: Path) -> Load:
    save_codec("dac", folder)
    return CODECS["dac"][3]


MAKERS: dict[str, Callable[[Path], Load]] = {
    maker.__name__: maker
    for maker in (
        own_ctc,
        own_speakers,
        token2text,
        tiny_codec,
        ctc,
        seq2seq,
        speakers,
        codec,
    )
}
OWN_LOADS = (CtcJudge, XvectorEncoder, Token2Text.load)
OWN = ["own_ctc", "own_speakers", "token2text", "tiny_codec"]
#: Of `FOLDERS`, what stands in a folder of any kind.
WEIGHTS_KINDS = [
    "weights cut at 0%",
    "weights cut at 2%",
    "weights cut at 50%",
    "weights' last byte gone",
    "a header of a terabyte",
    "text as weights",
    "no weights",
    "a tensor missing",
    "a tensor renamed",
    "a tensor too many",
    "no tensor",
    "reshaped",
    "NaN",
    "infinity",
    "no config.json",
    "config.json empty",
    "config.json cut",
    "config.json a list",
    "config.json binary",
    "config.json without a type",
    "config.json of an unknown type",
    "config.json of bert",
]


def tensors_of(loaded: Any) -> dict[str, torch.Tensor]:
    return dict(loaded.state_dict())


@pytest.mark.fault(
    "Starts and checkpoints",
    "the folder of a judge, a codec or a Token2Text damaged in one of 22 ways",
    "it is refused in a short error with its path",
)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_damaged_judge_or_codec_is_refused(maker: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    load = MAKERS[maker](whole)
    tensors = tensors_of(load(str(whole)))
    for number, kind in enumerate(WEIGHTS_KINDS):
        folder = tmp_path / f"damaged{number}"
        shutil.copytree(whole, folder)
        FOLDERS[kind](folder)
        found = outcome(lambda folder=folder: tensors_of(load(str(folder))), tensors, folder)
        # The folders of our own judges do not say what transformers calls a model.
        is_moot = kind == "config.json of an unknown type" and load in OWN_LOADS
        assert found == ("equal" if is_moot else "refused"), kind


@pytest.mark.fault(
    "Starts and checkpoints",
    "one value changed in the weights of a network that this library wrote",
    "the hash in the file tells it; files of earlier builds, which have none, load",
)
@pytest.mark.parametrize("maker", OWN)
def test_own_networks_carry_the_hash_of_their_content(maker: str, tmp_path: Path) -> None:
    load = MAKERS[maker](tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="not those that were written"):
        load(str(tmp_path))
    save_file(load_file(file), file)
    load(str(tmp_path))


@pytest.mark.fault(
    "Starts and checkpoints",
    "a judge of kind seq2seq over an audio language model, or over a CTC model; of kind ctc over one without its head",
    "refused at construction, naming what takes it",
)
@pytest.mark.parametrize(
    ("model_type", "kind", "message"),
    [
        ("fun_asr_nano", "seq2seq", "no encoder-decoder.* PolicyJudge .*FunAsrNanoPolicy"),
        ("qwen3_asr", "seq2seq", "no encoder-decoder.* PolicyJudge"),
        ("voxtral", "seq2seq", "no encoder-decoder.* PolicyJudge"),
        ("wav2vec2", "seq2seq", "which TransformersJudge with kind: ctc, .*no encoder-decoder"),
        ("parakeet_rnnt", "ctc", "kind: transducer takes: it is a transducer; set kind: tr"),
        ("parakeet_tdt", "seq2seq", "it is a transducer; set kind: transducer"),
        ("whisper", "transducer", "kind: seq2seq take: it is no transducer"),
        ("whisper", "ctc", "TransformersJudge with kind: seq2seq take"),
        ("llama", "ctc", "which TextLMPolicy, SpeechLMPolicy take"),
    ],
)
def test_a_judge_of_another_kind_is_refused(
    model_type: str, kind: Any, message: str, tmp_path: Path
) -> None:
    seq2seq(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=message) as refused:
        TransformersJudge(str(tmp_path), kind)
    assert str(tmp_path) in str(refused.value)


def test_a_recogniser_without_a_head_is_refused(tmp_path: Path) -> None:
    source = ctc_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    body = {name: value for name, value in tensors.items() if not name.startswith("lm_head")}
    save_file(body, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"2 tensors are missing \(lm_head\.bias, lm_head\.weight\)"
    ):
        TransformersJudge(source, "ctc")


def test_what_only_pretraining_reads_may_be_missing(tmp_path: Path) -> None:
    """Published recognisers leave it out."""
    source = ctc_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["wav2vec2.masked_spec_embed"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    TransformersJudge(source, "ctc")


@pytest.mark.fault(
    "Starts and checkpoints",
    "a judge's folder without the settings of its feature extractor or its tokenizer",
    "the missing file is named",
)
def test_a_judge_without_its_processor_is_refused(tmp_path: Path) -> None:
    for maker, names in (
        (seq2seq, ("processor_config.json", "tokenizer.json", "generation_config.json")),
        (speakers, ("preprocessor_config.json",)),
        (codec, ("preprocessor_config.json",)),
    ):
        for name in names:
            folder = tmp_path / f"{maker.__name__}_{name}"
            folder.mkdir()
            load = maker(folder)
            (folder / name).unlink()
            expected = name.replace("processor_config", "(pre)?processor_config").replace(
                "pre(pre)?", "(pre)?"
            )
            with pytest.raises(FileNotFoundError, match=expected):
                load(str(folder))


@pytest.mark.fault(
    "Starts and checkpoints",
    "somebody else's file of weights (SQUIM, SpeechBrain) cut short, empty, with NaN, or of other sizes",
    "it is refused with its path",
)
def test_damaged_files_of_others_are_refused(tmp_path: Path) -> None:
    squim = squim_objective_base().state_dict()
    name = next(name for name, value in squim.items() if value.ndim == 2)
    poisoned = squim | {name: torch.full_like(squim[name], torch.nan)}
    fewer = {other: value for other, value in squim.items() if other != name}
    for number, content in enumerate((poisoned, fewer, [1], {"a": 1})):
        file = tmp_path / f"{number}.pth"
        torch.save(content, file)
        with pytest.raises(ValueError, match=str(file)):
            SquimQuality(str(file))

    whole = tmp_path / "whole.pth"
    torch.save(squim, whole)
    SquimQuality(str(whole))
    for number, content in enumerate((b"", whole.read_bytes()[:5000], b"text")):
        folder = tmp_path / f"speechbrain{number}"
        folder.mkdir()
        file = folder / "embedding_model.ckpt"
        file.write_bytes(content)
        for load, source in ((SquimQuality, file), (EcapaEncoder, folder)):
            with pytest.raises(ValueError, match=str(file)):
                load(str(source))


def test_another_family_is_told_what_takes_it(tmp_path: Path) -> None:
    own_ctc(tmp_path / "ctc")
    tiny_codec(tmp_path / "codec")
    with pytest.raises(ValueError, match="'MfccConv', which CtcJudge takes"):
        TinyCodec(str(tmp_path / "ctc"))
    with pytest.raises(ValueError, match="'TinyCodec', which TinyCodec takes"):
        CtcJudge(str(tmp_path / "codec"))
    with pytest.raises(ValueError, match="'TinyCodec', which TinyCodec takes"):
        TransformersSpeakerEncoder(str(tmp_path / "codec"))

"""Codecs of transformers, built tiny from their configurations, saved and loaded by folder, through the interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DacConfig,
    DacFeatureExtractor,
    DacModel,
    NeuCodecConfig,
    NeuCodecFeatureExtractor,
    NeuCodecModel,
    PreTrainedModel,
    VibeVoiceAcousticTokenizerConfig,
    Xcodec2Config,
    Xcodec2FeatureExtractor,
    Xcodec2Model,
)

from lightning_audiorl.codecs import (
    AudioTokenizationCodec,
    Codec,
    CodecError,
    NeuCodecCodec,
    Xcodec2Codec,
)
from tests.helpers import assert_close

SEMANTIC = {
    "model_type": "wav2vec2-bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "feature_projection_input_dim": 160,
    "conv_depthwise_kernel_size": 3,
}
SIZES: dict[str, Any] = {
    "hidden_size": 64,  # upstream's group norms have 32 groups, and a group of one value fails
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "encoder_hidden_size": 4,
    "quantization_dim": 80,
    "semantic_model_config": SEMANTIC,
}
DAC = {
    "encoder_hidden_size": 4,
    "decoder_hidden_size": 32,
    "downsampling_ratios": [4, 8],
    "codebook_size": 64,
}
KINDS: dict[str, tuple[Callable[..., Any], Any, Any, Callable[[str], Codec]]] = {
    "xcodec2": (
        lambda: Xcodec2Config(**SIZES),
        Xcodec2Model,
        Xcodec2FeatureExtractor(),
        Xcodec2Codec,
    ),
    "neucodec": (
        lambda: NeuCodecConfig(**SIZES),
        NeuCodecModel,
        NeuCodecFeatureExtractor(),
        NeuCodecCodec,
    ),
    "dac": (
        lambda num=1: DacConfig(**DAC, n_codebooks=num),
        DacModel,
        DacFeatureExtractor(sampling_rate=16000, hop_length=32),
        AudioTokenizationCodec,
    ),
}


def save(kind: str, folder: Path, **config: Any) -> str:
    """A tiny model of ``kind`` with random weights."""
    build, model_class, extractor, _ = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = model_class(build(**config))
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=list(KINDS))
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return KINDS[request.param][3](save(request.param, tmp_path_factory.mktemp(request.param)))


def clips() -> tuple[Tensor, Tensor]:
    """Noise of 0.5 s, 0.3 s and a bit, no sample, one sample; NaN behind their ends."""
    num_samples = torch.tensor([8000, 4801, 0, 1])
    waveform = 0.1 * torch.randn(4, 8000, generator=torch.Generator().manual_seed(0))
    return waveform.masked_fill(torch.arange(8000) >= num_samples[:, None], torch.nan), num_samples


def some_codes(codec: Codec, lengths: Tensor) -> Tensor:
    """Random codes: random weights emit one constant code, which would test little."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(codec.cardinality, (len(lengths), int(lengths.max())), generator=generator)


def test_declared(codec: Codec) -> None:
    figures = (
        codec.sample_rate_hz,
        codec.frame_rate_hz,
        codec.cardinality,
        codec.output_samples_per_code,
    )
    assert (
        figures
        == {
            Xcodec2Codec: (16000, 50.0, 65536, 320),
            NeuCodecCodec: (16000, 50.0, 65536, 480),
            AudioTokenizationCodec: (16000, 500.0, 64, 32),
        }[type(codec)]
    )
    assert not codec.training
    assert not any(p.requires_grad for p in codec.parameters())


def test_encode_decode_encode(codec: Codec) -> None:
    waveform, num_samples = clips()
    codes, lengths = codec.encode(waveform, num_samples)
    assert (
        lengths.tolist()
        == {
            Xcodec2Codec: [26, 16, 0, 1],
            NeuCodecCodec: [25, 15, 0, 0],
            AudioTokenizationCodec: [250, 151, 0, 1],
        }[type(codec)]
    )
    assert lengths.tolist() == codec.num_codes(num_samples).tolist()
    assert codes.shape == (4, int(lengths[0]))
    speech, num_spoken = codec.decode(some_codes(codec, lengths), lengths)
    assert num_spoken.tolist() == [
        length * codec.output_samples_per_code for length in lengths.tolist()
    ]
    assert speech.isfinite().all()
    assert all(speech[b, :num].any() for b, num in enumerate(num_spoken.tolist()) if num)
    heard = speech[:, :: codec.output_sample_rate_hz // codec.sample_rate_hz]
    again, lengths_again = codec.encode(
        heard, num_spoken * codec.samples_per_code // codec.output_samples_per_code
    )
    assert ((lengths_again - lengths).abs() <= 1).all()
    assert 0 <= int(again.min()) <= int(again.max()) < codec.cardinality


def test_a_row_alone_is_the_row_in_a_batch(codec: Codec) -> None:
    waveform, num_samples = clips()
    codes, lengths = codec.encode(waveform, num_samples)
    spoken = some_codes(codec, lengths)
    lengths = torch.cat([lengths, lengths[1:2]])  # two of one length are decoded together
    speech, num_spoken = codec.decode(torch.cat([spoken, spoken[1:2].flip(1)]), lengths)
    for b in (0, 1):
        alone, length = codec.encode(waveform[b : b + 1, : num_samples[b]], num_samples[b : b + 1])
        assert_close(alone[0], codes[b, : lengths[b]], "exact")
        wave, _ = codec.decode(spoken[b : b + 1, : lengths[b]], length)
        assert_close(wave[0], speech[b, : num_spoken[b]], "policy")


def test_a_codec_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = save("neucodec", tmp_path)
    with pytest.raises(CodecError, match="is a model of type 'neucodec', expected 'xcodec2'"):
        Xcodec2Codec(folder)
    with pytest.raises(
        CodecError, match=r"'neucodec' has no sampling_rate .* have classes of their own"
    ):
        AudioTokenizationCodec(folder)


def test_several_codebooks_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="has 2 codebooks; a policy speaks one code per frame"):
        AudioTokenizationCodec(save("dac", tmp_path / "dac", num=2))
    VibeVoiceAcousticTokenizerConfig().save_pretrained(tmp_path / "continuous")
    with pytest.raises(CodecError, match="no codec with a codebook of a known size and rate"):
        AudioTokenizationCodec(str(tmp_path / "continuous"))


def test_a_wrong_declaration_is_seen(tmp_path: Path) -> None:
    codec = AudioTokenizationCodec(save("dac", tmp_path))
    codec.frame_rate_hz = 250.0
    with pytest.raises(
        CodecError, match=r"8000 samples at 16000 Hz became 250 codes, but 250.0 codes per second"
    ):
        codec.encode(*(x[:1] for x in clips()))
    with pytest.raises(
        CodecError,
        match=r"4 codes became \d+ samples, but 250.0 codes per second at 16000 Hz make 256",
    ):
        codec.decode(torch.zeros(1, 4, dtype=torch.long), torch.tensor([4]))


def test_places_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config.json; give a Hugging Face folder"):
        Xcodec2Codec(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="a hub id has the form owner/name"):
        Xcodec2Codec(str(tmp_path / "absent"))

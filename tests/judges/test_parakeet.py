"""Parakeet judges in all its kinds: CTC, and the two transducers; frames behind a clip's end say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    ParakeetCTCConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForRNNT,
    ParakeetForTDT,
    ParakeetProcessor,
    ParakeetRNNTConfig,
    ParakeetTDTConfig,
    ParakeetTokenizer,
)

from lightning_audiorl.judges import TransformersJudge
from lightning_audiorl.models.tiny import word_tokenizer
from tests.judges.fakes import said, tone

WORDS = ["one", "two", "three"]
BLANK = "<blank>"
ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_mel_bins": 16,
    "subsampling_conv_channels": 8,
}
#: Classes, the judge's kind, and a draw of weights that says different things of different clips.
KINDS: dict[str, Any] = {
    "ctc": (ParakeetForCTC, ParakeetCTCConfig, "ctc", 1),
    "rnnt": (ParakeetForRNNT, ParakeetRNNTConfig, "transducer", 2),
    "tdt": (ParakeetForTDT, ParakeetTDTConfig, "transducer", 2),
}


def parakeet_folder(name: str, folder: Path) -> str:
    model_class, config_class, _, seed = KINDS[name]
    words = word_tokenizer(WORDS, [BLANK])
    tokenizer = ParakeetTokenizer(
        tokenizer_object=words.backend_tokenizer,
        pad_token=words.pad_token,
        unk_token=words.unk_token,
    )
    blank = tokenizer.convert_tokens_to_ids(BLANK)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if name != "ctc":
        sizes |= {
            "decoder_hidden_size": 16,
            "num_decoder_layers": 1,
            "blank_token_id": blank,
            "max_symbols_per_step": 2,
        }

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config_class(encoder_config=ENCODER, **sizes))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.5)
    if name != "ctc":
        model.generation_config.decoder_start_token_id = blank
    if name == "tdt":
        durations = range(len(tokenizer), len(tokenizer) + len(model.config.durations))
        model.generation_config.suppress_tokens = list(durations)
    model.save_pretrained(folder)
    extractor = ParakeetFeatureExtractor(feature_size=ENCODER["num_mel_bins"])
    ParakeetProcessor(extractor, tokenizer, decoder_type=name).save_pretrained(folder)
    return str(folder)


def clips() -> list[Tensor]:
    """At 16 kHz, which is twice the rate of a tone."""
    # The second one's frames of 10 ms fill those of 80 ms: its features have one frame more, of padding.
    return [tone(100.0 + 60 * i, 2 * seconds) for i, seconds in enumerate((0.5, 0.64, 1.1))]


@pytest.mark.parametrize("name", list(KINDS))
def test_it_hears_each_clip_as_its_own_class_does(name: str, tmp_path: Path) -> None:
    source = parakeet_folder(name, tmp_path)
    judge = TransformersJudge(source, KINDS[name][2], batch_size=3)
    with torch.no_grad():
        heard = judge.listen(clips(), [])
    assert len(set(heard)) > 1
    assert set(" ".join(text or "" for text in heard).split()) <= {*WORDS}

    model = KINDS[name][0].from_pretrained(source).eval()
    processor = ParakeetProcessor.from_pretrained(source)
    for clip, text in zip(clips(), heard, strict=True):
        inputs = processor(clip.numpy(), sampling_rate=16000, return_tensors="pt")
        made = model.generate(**inputs, return_dict_in_generate=True)
        assert processor.batch_decode(made.sequences, skip_special_tokens=True) == [text]


def test_frames_behind_the_end_say_nothing(tmp_path: Path) -> None:
    judge = TransformersJudge(parakeet_folder("ctc", tmp_path), "ctc")
    wave = clips()[1]
    with torch.no_grad():
        frames = judge.model(**judge._inputs(wave)).logits[0].argmax(-1)
        heard = judge.listen([wave], [])
    assert len(frames) == 9
    own = judge.processor.tokenizer.decode(frames[:8], skip_special_tokens=True)
    assert heard == [own]
    # The last one would say something.
    assert judge.processor.tokenizer.decode(frames, skip_special_tokens=True) != own


def test_numbers_that_are_none_are_a_failure(tmp_path: Path) -> None:
    for name, (_, _, kind, _) in KINDS.items():
        folder = tmp_path / name
        judge = TransformersJudge(parakeet_folder(name, folder), kind)
        with torch.no_grad():
            judge.model.encoder.layers[0].norm_out.weight.fill_(torch.nan)
        assert judge.transcribe([said(waveform=clips()[0])]) == [None]

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForXVector,
)

from lightning_audiorl.judges import PolicyJudge, TransformersJudge, TransformersSpeakerEncoder
from lightning_audiorl.models import FunAsrNanoPolicy, SampleKey, TinyFunAsrNano, TinyWhisper
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.models.tiny import build_whisper
from lightning_audiorl.types import Decoding, PromptBatch, Rollout
from tests.helpers import assert_close
from tests.judges.fakes import said, tone

SMALL_WAVE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8, 8),
    "conv_stride": (20, 16),
    "conv_kernel": (20, 16),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
}


def clips() -> list[Tensor]:
    return [tone(100.0 + 60 * i, 0.2 + 0.1 * i) for i in range(3)]


class Nosy(Policy):
    """Says what it was shown: the number of samples, the language, and the text, which it should not see."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, batch: PromptBatch) -> PromptBatch:  # type: ignore[override]
        assert not torch.is_grad_enabled()
        return batch

    def sample(self, context, group_size: int, decoding: Decoding, key: SampleKey) -> Rollout:  # type: ignore[no-untyped-def]
        shape = (len(context), group_size, 1)
        return Rollout(
            torch.zeros(shape).long(),
            torch.ones(shape).bool(),
            torch.zeros(shape),
            torch.ones(shape[:2]) > 0,
        )

    def decode(self, rollout: Rollout, context) -> Sequence[Sequence[str]]:  # type: ignore[no-untyped-def]
        rows = zip(context.rows, context.num_samples.tolist(), strict=True)
        return [[f"{num} {row.lang} {row.text}".strip()] for row, num in rows]

    def hidden(self, context, rollout): ...  # type: ignore[no-untyped-def]
    def head(self, hidden): ...  # type: ignore[no-untyped-def]
    def targets(self, context, texts): ...  # type: ignore[no-untyped-def]
    def export(self, folder): ...  # type: ignore[no-untyped-def]


def test_a_policy_judges_without_seeing_the_text() -> None:
    judge = PolicyJudge(Nosy(), sample_rate_hz=16000, batch_size=2)
    samples = [
        said("secret", waveform=clip, lang=lang)
        for clip, lang in zip(clips(), ("en", "zh", "en"), strict=True)
    ]
    assert judge.transcribe(samples) == ["3200 en", "4800 zh", "6400 en"]
    assert not judge.policy.weight.requires_grad


def test_a_policy_of_ours_as_judge() -> None:
    policy = FunAsrNanoPolicy(
        TinyFunAsrNano(words=("one", "two"), width=16, encoder_layers=1, lm_layers=1)
    )
    judge = PolicyJudge(policy, decoding=Decoding(temperature=0.0, max_new_tokens=4))
    together = judge.transcribe([said(waveform=clip) for clip in clips()])
    alone = [judge.transcribe([said(waveform=clip)])[0] for clip in clips()]
    assert together == alone
    assert all(isinstance(text, str) for text in together)
    assert judge.transcribe([said(waveform=torch.ones(5))])[0] is not None, "lengthened by silence"


def ctc_folder(folder: Path) -> str:
    vocabulary = folder / "vocab.json"
    vocabulary.write_text('{"<pad>": 0, "|": 1, "a": 2, "b": 3, "<unk>": 4}')
    tokenizer = Wav2Vec2CTCTokenizer(
        str(vocabulary), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|"
    )
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=5, pad_token_id=0, **SMALL_WAVE))
        torch.nn.init.normal_(model.lm_head.weight, std=2.0)
    model.save_pretrained(folder)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return str(folder)


def test_ctc_of_transformers(tmp_path: Path) -> None:
    source = ctc_folder(tmp_path)
    one, many = TransformersJudge(source, "ctc"), TransformersJudge(source, "ctc", batch_size=3)
    transcripts = one.transcribe([said(waveform=clip) for clip in clips()])
    assert transcripts == many.transcribe([said(waveform=clip) for clip in clips()])
    assert len(set(transcripts)) > 1
    assert None not in transcripts
    assert set("".join(text or "" for text in transcripts)) <= set("ab ")
    assert one.name == tmp_path.name
    with pytest.raises(ValueError, match="expected 'ctc', 'seq2seq' or 'transducer', got 'rnnt'"):
        TransformersJudge(source, "rnnt")  # type: ignore[arg-type]


def test_whisper_of_transformers(tmp_path: Path) -> None:
    model, processor = build_whisper(
        TinyWhisper(words=("one", "two"), width=16, encoder_layers=1, decoder_layers=1)
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert isinstance(processor.tokenizer, PreTrainedTokenizerFast)
    generate = {"language": "en", "task": "transcribe", "max_new_tokens": 4}
    judge = TransformersJudge(str(tmp_path), "seq2seq", generate=generate, batch_size=3)
    together = judge.transcribe([said(waveform=clip) for clip in clips()])
    assert all(isinstance(text, str) for text in together)
    assert together == [judge.transcribe([said(waveform=clip)])[0] for clip in clips()]


def test_xvector_of_transformers(tmp_path: Path) -> None:
    config = WavLMConfig(
        **SMALL_WAVE,
        tdnn_dim=(8, 8),
        tdnn_kernel=(3, 1),
        tdnn_dilation=(1, 1),
        xvector_output_dim=6,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WavLMForXVector(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(
        tmp_path
    )
    encoder = TransformersSpeakerEncoder(str(tmp_path), name="wavlm")
    (voice, prompt), (other, _) = encoder.voices(
        [said(waveform=tone(110.0), prompt=tone(110.0)), said(waveform=tone(300.0))]
    )
    assert voice is not None
    assert prompt is not None
    assert other is not None
    assert_close(voice, prompt)
    assert_close(voice.norm(), 1.0)
    assert torch.dot(voice, other) < 0.9999

"""Where a codec loses what is said: the forms of a recording in which a judge hears it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from experiments.codec_loss import error_rates, forms
from lightning_audiorl.codecs import TinyCodec, TinyCodecConfig
from lightning_audiorl.data.datamodules.asr import collate
from lightning_audiorl.judges import AsrJudge
from lightning_audiorl.types import Utterance

CODEC = TinyCodec(
    TinyCodecConfig(sample_rate_hz=8000, num_mels=16, n_fft=256, width=8, layers=1, iterations=1)
)


class KnowsRecordings(AsrJudge):
    """Hears the text in what it was given, and nothing in anything else."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__("knows", sample_rate_hz=8000)
        self.known = known

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        return [
            row.text if any(torch.equal(wave, known) for known in self.known) else None
            for wave, row in zip(waveforms, rows, strict=True)
        ]


def test_each_form_is_heard_and_what_a_judge_fails_on_is_all_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clips = [torch.rand(num, generator=torch.Generator().manual_seed(num)) for num in (1600, 2000)]
    rows = [
        Utterance(f"r{i}", (), "open the box", len(clip) / 8000) for i, clip in enumerate(clips)
    ]
    batch = collate(rows, clips, 8000)
    lengths = {name: [len(wave) for wave in waves] for name, waves in forms(CODEC, batch)}
    assert lengths == {
        "recordings": [1600, 2000],
        "mels, no codes": [1600, 2240],
        "through the codes": [1600, 2240],
    }

    assert error_rates(CODEC, batch, KnowsRecordings(clips)) == {
        "recordings": 0.0,
        "mels, no codes": 1.0,
        "through the codes": 1.0,
    }

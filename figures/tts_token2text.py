"""Is Token2Text to be trusted: beside the waveform judges, on recordings and on samples of a start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tts_runs import SAMPLED, parts, parts_and_start

from lightning_audiorl.algorithms.evaluation import hypotheses
from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.data.speech import FsddSpeech, TtsDataModule
from lightning_audiorl.judges import CtcJudge
from lightning_audiorl.models import SampleKey, SpeechLMPolicy
from lightning_audiorl.token2text import Token2Text, calibration
from lightning_audiorl.types import Decoding, Hypothesis, Speech

NUM_ROWS = 200


def validated(out: Path, seed: int) -> dict[str, Any]:
    """Error rates and rank correlations, on natural and on sampled speech of the dev part."""
    folders = {name: str(path) for name, path in parts(out).items()}
    codec = TinyCodec(folders["codec"])
    network = Token2Text.load(folders["token2text"])
    judge = CtcJudge(folders["held_out_asr_judge"], name="held_out_asr")
    data = TtsDataModule(sample_rate_hz=codec.sample_rate_hz)
    rows = list(FsddSpeech(part="dev", num_words=(1, 4), prompt_words=(1, 2), num_rows=NUM_ROWS, seed=21))
    batch = data.load(rows)
    assert batch.target_waveform is not None
    assert batch.target_num_samples is not None
    codes, lengths = codec.encode(batch.target_waveform, batch.target_num_samples)
    waveform, num_samples = codec.decode(codes, lengths)
    rate_hz = codec.output_sample_rate_hz
    natural = [
        Hypothesis(row, "", length, True, Speech(wave[:num], rate_hz, ids[:length]))
        for row, wave, num, ids, length in zip(
            rows, waveform, num_samples.tolist(), codes, lengths.tolist(), strict=True
        )
    ]
    policy = SpeechLMPolicy(str(parts_and_start(out, seed)["sft"]), codec).eval()
    with torch.no_grad():
        context = policy.encode(batch)
        rollout = policy.sample(context, 1, Decoding(**SAMPLED["sampled"]["decoding"]), SampleKey(0, 0, "validation"))
    sampled = [group[0] for group in hypotheses(policy, batch, rollout, context)]
    found = {"recordings through the codec": natural, "samples of the start": sampled}
    return {name: vars(calibration(network, samples, judge)) for name, samples in found.items()}

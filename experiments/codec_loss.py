"""Where a codec loses what is said: recordings, their mels through Griffin-Lim and their codes, heard by Whisper.

    python experiments/codec_loss.py --codec <folder> --recordings <manifest> --whisper <folder>

The middle row has no codes in it: what it loses is the loss of the phase, and what the last one loses beyond it is
that of the codes. Prints character error rates on the first rows of the manifest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.data.datamodules.asr import AsrDataModule
from lightning_audiorl.data.manifest.files import IndexedManifest
from lightning_audiorl.judges import AsrJudge, TransformersJudge
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.text import LeaderboardNormaliser
from lightning_audiorl.types import Hypothesis, PromptBatch, Speech


@torch.no_grad()
def forms(codec: TinyCodec, batch: PromptBatch) -> Iterator[tuple[str, list[Tensor]]]:
    """Name and waveforms [num_samples] of every form in which the clips are heard, all at the codec's rate."""
    lengths = batch.num_samples.tolist()
    clips = [wave[:num] for wave, num in zip(batch.waveform, lengths, strict=True)]
    yield "recordings", clips
    yield "mels, no codes", [codec.waveforms_of(codec.mels(clip[None]))[0] for clip in clips]

    codes, num_codes = codec.encode(batch.waveform, batch.num_samples)
    waveforms, num_samples = codec.decode(codes, num_codes)
    pairs = zip(waveforms, num_samples.tolist(), strict=True)
    yield "through the codes", [wave[:num] for wave, num in pairs]


def error_rates(codec: TinyCodec, batch: PromptBatch, judge: AsrJudge) -> dict[str, float]:
    """Character error rate of each form of the clips of a batch; a clip that the judge fails on is all wrong."""
    normaliser = LeaderboardNormaliser()
    no_codes = torch.zeros(0, dtype=torch.int64)
    rates = {}
    for name, waveforms in forms(codec, batch):
        samples = [
            Hypothesis(row, "", speech=Speech(wave, codec.sample_rate_hz, no_codes))
            for row, wave in zip(batch.rows, waveforms, strict=True)
        ]
        heard = [text or "" for text in judge.transcribe(samples)]

        counts = [
            character_errors(row, text, normaliser)
            for row, text in zip(batch.rows, heard, strict=True)
        ]
        rates[name] = sum(errors for errors, _ in counts) / sum(length for _, length in counts)
    return rates


def main() -> None:
    """Print the error rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", required=True, help="folder of a TinyCodec")
    parser.add_argument("--recordings", type=Path, required=True, help="ASR manifest")
    parser.add_argument("--whisper", type=Path, required=True, help="folder of a Whisper")
    parser.add_argument("--num", type=int, default=40, help="rows that are heard")
    args = parser.parse_args()

    codec = TinyCodec(args.codec)
    rows = IndexedManifest(str(args.recordings))
    data = AsrDataModule(sample_rate_hz=codec.sample_rate_hz)
    batch = data.load([rows[i] for i in range(min(args.num, len(rows)))])

    generate = {"language": "en", "max_new_tokens": 24}
    judge = TransformersJudge(str(args.whisper), "seq2seq", "whisper", generate=generate)
    for name, rate in error_rates(codec, batch, judge).items():
        print(f"{name}: CER {100 * rate:.1f} % ({len(batch.rows)} clips)", flush=True)


if __name__ == "__main__":
    main()

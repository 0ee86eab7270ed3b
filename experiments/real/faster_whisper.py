"""An exported Whisper in transformers and in faster-whisper: what each writes of clips with and without speech.

    pip install ctranslate2 faster-whisper
    python -m experiments.real.faster_whisper EXPORT DATA

EXPORT is a folder that `audiorl export` or a run made, DATA one of `experiments.real.data`. The export is converted to
the form of CTranslate2 beside it (``EXPORT-ct2``). Every sixth clip without speech and every fortieth prompt is read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from ctranslate2.converters import TransformersConverter
from faster_whisper import WhisperModel
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lightning_audiorl.data import read_audio, read_manifest
from lightning_audiorl.types import Utterance

RATE_HZ = 16_000


def converted(export: Path) -> Path:
    """The form of CTranslate2, made anew."""
    out = export.with_name(f"{export.name}-ct2")
    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(export), copy_files=files).convert(str(out), force=True)
    return out


class Readers:
    """One export, read greedily in two ways.

    Args:
        export: folder in Hugging Face layout.
    """

    def __init__(self, export: Path) -> None:
        self.processor: Any = WhisperProcessor.from_pretrained(export)
        self.model: Any = WhisperForConditionalGeneration.from_pretrained(export).eval()
        self.fast = WhisperModel(str(converted(export)), device="cpu", compute_type="float32")

    def by_transformers(self, clip: torch.Tensor) -> str:
        """What ``generate`` writes of a clip [num_samples]."""
        inputs = self.processor(
            clip.numpy(), sampling_rate=RATE_HZ, return_tensors="pt", return_attention_mask=True
        )
        tokens = self.model.generate(
            **inputs, language="en", task="transcribe", num_beams=1, do_sample=False
        )
        return str(self.processor.batch_decode(tokens, skip_special_tokens=True)[0]).strip()

    def by_faster_whisper(self, clip: torch.Tensor) -> str:
        """What faster-whisper writes, with all of its thresholds off."""
        segments, _ = self.fast.transcribe(
            clip.numpy(),
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            no_speech_threshold=None,
            log_prob_threshold=None,
            compression_ratio_threshold=None,
        )
        return "".join(segment.text for segment in segments).strip()


def rows_of(data: Path) -> list[Utterance]:
    """Clips of every kind without speech, and prompts."""
    nonspeech = read_manifest(data / "test_nonspeech.jsonl", allow_empty_text=True)
    return [*nonspeech[::6], *read_manifest(data / "test_prompts.jsonl")[::40]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()

    readers = Readers(arguments.export)
    print("reference | transformers | faster-whisper")
    for row in rows_of(arguments.data):
        clip = read_audio(row, RATE_HZ)
        slow = readers.by_transformers(clip)
        fast = readers.by_faster_whisper(clip)
        print(f"{row.text!r} | {slow!r} | {fast!r}", flush=True)


if __name__ == "__main__":
    main()

"""What ears that nobody here trained hear of a speech model: one JSON file per model, text set and ear.

The ears come from public packages and checkpoints (docs/judges.md), and none of them rewards, trains or chooses
anything. Where they stand is given by the command line, and one that is not given is left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tts_runs
from figure_runs import Spec

from lightning_audiorl import SpeechLMPolicy
from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.data.corpora.tts import FsddSpeech
from lightning_audiorl.data.datamodules.tts import TtsDataModule
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.judges import (
    AsrJudge,
    DnsmosQuality,
    Judge,
    PocketSphinxJudge,
    ResemblyzerEncoder,
    SpeakerEncoder,
    TransformersJudge,
)
from lightning_audiorl.judges.base import speech_of
from lightning_audiorl.judges.pitch import pitch_of
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.reports.bootstrap import paired_intervals
from lightning_audiorl.text.numbers import SpokenNumberNormaliser
from lightning_audiorl.types import Decoding, Hypothesis

_log = logging.getLogger(__name__)

Records = dict[str, list[dict[str, Any]]]
"""By ear, one record per row."""
#: As every evaluation of the miniature decodes (see `tts_runs.SAMPLED`).
DECODING = Decoding(temperature=1.0, tokens_per_second=50.0, min_cap=16)
#: As in configs/tts/fsdd/ears.yaml. On a short clip Whisper may say a digit over and over, up to 448 tokens.
WHISPER = {"language": "en", "task": "transcribe", "max_new_tokens": 24}
#: Texts at a time.
BATCH = 25
#: Left out where few texts are heard: one clip in ten that is repeated to the limit of tokens outweighs all others.
UNSTEADY = ("whisper",)
#: Ears that hear the first so many samples alone: DNSMOS takes a second of a core for each.
AT_MOST = {"dnsmos": 25}


@dataclass(frozen=True)
class EarPaths:
    """Where the real ears stand; None leaves one out.

    Args:
        whisper: folder of Whisper base.
        pocketsphinx: whether to listen with the package's own English model.
        resemblyzer: weights of Resemblyzer, pretrained.pt of its package.
        dnsmos: network of DNSMOS, sig_bak_ovr.onnx.
    """

    whisper: Path | None = None
    pocketsphinx: bool = False
    resemblyzer: Path | None = None
    dnsmos: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which ears there are."""
    parser.add_argument("--whisper", type=Path, help="folder of Whisper base")
    parser.add_argument("--pocketsphinx", action="store_true", help="listen with PocketSphinx")
    parser.add_argument("--resemblyzer", type=Path, help="weights of Resemblyzer, pretrained.pt")
    parser.add_argument("--dnsmos", type=Path, help="network of DNSMOS, sig_bak_ovr.onnx")


def ear_paths(args: argparse.Namespace) -> EarPaths:
    """The ears that a command line names."""
    return EarPaths(args.whisper, args.pocketsphinx, args.resemblyzer, args.dnsmos)


def makers(paths: EarPaths) -> dict[str, Callable[[], Judge[Any]]]:
    """By name, how each ear is made: only once somebody wants to hear it."""
    made: dict[str, Callable[[], Judge[Any]]] = {}
    if paths.whisper is not None:
        made["whisper"] = lambda: TransformersJudge(
            str(paths.whisper), "seq2seq", "whisper", generate=dict(WHISPER), batch_size=8
        )

        # The same network with nothing to guess.
        made["whisper_words"] = lambda: TransformersJudge(
            str(paths.whisper),
            "seq2seq",
            "whisper_words",
            generate=dict(WHISPER),
            batch_size=8,
            words=list(DIGIT_WORDS),
            window_tail_s=1.0,
        )
    if paths.pocketsphinx:
        made["pocketsphinx"] = lambda: PocketSphinxJudge(words=list(DIGIT_WORDS))
    if paths.resemblyzer is not None:
        made["resemblyzer"] = lambda: ResemblyzerEncoder(str(paths.resemblyzer))
    if paths.dnsmos is not None:
        made["dnsmos"] = lambda: DnsmosQuality(str(paths.dnsmos))
    return made


def spoken(model: Path, rows: Spec, num_rows: int, seed: int) -> list[Hypothesis]:
    """One sample of a model for each of the first rows of a text set, keyed by row."""
    codec = TinyCodec(str(tts_runs.SHIPPED / "codec"))
    policy = SpeechLMPolicy(str(model), codec=codec)
    source = FsddSpeech(**rows["init_args"])
    data = TtsDataModule((0.2, 30.0), sample_rate_hz=codec.sample_rate_hz)
    key = SampleKey(seed, 0, "validation")

    samples: list[Hypothesis] = []
    with policy.evaluating(), torch.no_grad():
        for first in range(0, min(num_rows, len(source)), BATCH):
            last = min(first + BATCH, num_rows, len(source))
            batch = data.load([source[i] for i in range(first, last)])
            context = policy.encode(batch)
            rollout = policy.sample(context, 1, DECODING, key)
            for group in hypotheses(policy, batch, rollout, context):
                samples += group
    return samples


def listened(
    folder: Path,
    model: Path,
    rows: Spec,
    num_rows: int,
    paths: EarPaths,
    seed: int = 0,
    without: tuple[str, ...] = (),
) -> Records:
    """What each ear hears of a model, by ear: one record per row; what is in ``folder`` is not heard again.

    Args:
        folder: of the records.
        model: folder or checkpoint of the language model.
        rows: text set.
        num_rows: how many of its rows are spoken.
        paths: where the ears are.
        seed: of the draws.
        without: ears by name that do not listen.
    """
    wanted = {name: make for name, make in makers(paths).items() if name not in without}
    files = {name: folder / f"{name}.json" for name in ("samples", *wanted)}
    samples: list[Hypothesis] | None = None
    for name, file in files.items():
        if file.is_file():
            continue
        if samples is None:
            samples = spoken(model, rows, num_rows, seed)
        if name == "samples":
            records = [_measured(sample) for sample in samples]
        else:
            records = _records(wanted[name](), samples[: AT_MOST.get(name)])

        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(records))
        partial.replace(file)
        _log.warning("%s: %d samples", file, len(records))

    return {name: json.loads(file.read_text()) for name, file in files.items()}


def _measured(sample: Hypothesis) -> dict[str, Any]:
    """What needs no ear: length, stop, pitch."""
    speech = speech_of(sample, "tts_ears")
    pitch = pitch_of(speech.waveform, speech.sample_rate_hz)
    return {
        "id": sample.row.id,
        "text": sample.row.text,
        "tokens": sample.num_tokens,
        "words": len(sample.row.text.split()),
        "finished": sample.finished,
        "duration_s": speech.duration_s,
        "voiced_share": pitch.voiced_share,
        "f0_hz": float(pitch.f0_hz.median()) if pitch.is_known else None,
    }


def _records(ear: Judge[Any], samples: list[Hypothesis]) -> list[dict[str, Any]]:
    """What one ear says of each sample."""
    answers = ear.answers(samples)
    if isinstance(ear, AsrJudge):
        return [_heard(sample, text) for sample, text in zip(samples, answers, strict=True)]
    if isinstance(ear, SpeakerEncoder):
        return [
            {"id": sample.row.id, "similarity": _similarity(voices)}
            for sample, voices in zip(samples, answers, strict=True)
        ]
    return [
        {"id": sample.row.id, "quality": quality}
        for sample, quality in zip(samples, answers, strict=True)
    ]


def _heard(sample: Hypothesis, text: str | None) -> dict[str, Any]:
    """A transcript and its edits, spaces left out; None for both where the ear failed."""
    record: dict[str, Any] = {"id": sample.row.id, "heard": text, "errors": None, "characters": 0}
    if text is not None:
        errors, characters = character_errors(
            sample.row, str(text), SpokenNumberNormaliser("en", reading="digits")
        )
        record |= {"heard": str(text), "errors": errors, "characters": characters}
    return record


def _similarity(voices: tuple[Any, Any]) -> float | None:
    """Cosine of a sample's voice and its prompt's; None where one of them has no sound."""
    voice, of_prompt = voices
    if voice is None or of_prompt is None:
        return None
    return float(voice @ of_prompt)


def summary(records: Records) -> dict[str, float]:
    """Rates and means over the rows of `listened`, by name of the metric.

    Example:
        >>> heard = [{"errors": 1, "characters": 4}, {"errors": 2, "characters": 6}]
        >>> summary({"whisper": heard})
        {'whisper_cer': 0.3, 'whisper_right': 0.0, 'whisper_runaway': 0.0}
    """
    found: dict[str, float] = {}
    for name, rows in records.items():
        if name == "samples":
            found |= _spoken_summary(rows)
        elif "errors" in rows[0]:
            known = [row for row in rows if row["errors"] is not None]
            characters = sum(row["characters"] for row in known)
            found[f"{name}_cer"] = sum(row["errors"] for row in known) / characters
            found[f"{name}_right"] = sum(not row["errors"] for row in known) / len(known)
            runaways = sum(row["errors"] > row["characters"] for row in known)
            found[f"{name}_runaway"] = runaways / len(known)
        else:
            key = "similarity" if "similarity" in rows[0] else "quality"
            values = [row[key] for row in rows if row[key] is not None]
            found[f"{name}_{key}"] = statistics.fmean(values) if values else math.nan
    return found


def _spoken_summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Pace, stops and pitch of the samples; F0 over those that have one."""
    pitches = [row["f0_hz"] for row in rows if row["f0_hz"] is not None]
    return {
        "tokens_per_unit": sum(row["tokens"] for row in rows) / sum(row["words"] for row in rows),
        "missing_stop_rate": statistics.fmean(not row["finished"] for row in rows),
        "voiced_share": statistics.fmean(row["voiced_share"] for row in rows),
        "with_f0_share": len(pitches) / len(rows),
        "f0_hz": statistics.fmean(pitches) if pitches else math.nan,
    }


def differences(first: Records, second: Records) -> dict[str, list[float]]:
    """Of recognisers and speaker encoders: the second less the first, with its paired 95 % interval over the rows."""
    ears = [name for name, rows in first.items() if {"errors", "similarity"} & set(rows[0])]
    found = {}
    for ear in ears:
        pairs = [
            (_part(one), _part(other))
            for one, other in zip(first[ear], second[ear], strict=True)
            if _part(one)[1] and _part(other)[1]
        ]
        parts = [{ear: [pair[i] for pair in pairs]} for i in (0, 1)]
        difference = paired_intervals(*parts, "tts_ears")[ear].difference
        found[ear] = [difference.value, difference.low, difference.high]
    return found


def _part(record: dict[str, Any]) -> tuple[float, float]:
    """What a row adds above and below the line of an ear's metric; (0, 0) where the ear failed."""
    if "errors" in record:
        return (record["errors"] or 0.0, float(record["characters"]))
    value = record["similarity"]
    return (0.0, 0.0) if value is None else (value, 1.0)

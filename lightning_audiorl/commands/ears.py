"""What judges of speech are worth: what they say of recordings, of resynthesis, of noise, and of wrong texts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.data.datamodules.tts import TtsDataModule
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.judges.base import AsrJudge, Judge, SpeakerEncoder
from lightning_audiorl.judges.models.quality import QualityPredictor
from lightning_audiorl.judges.transcript import measures_of
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.text.normalise import Normaliser, normaliser_for
from lightning_audiorl.types import Hypothesis, PromptBatch, Speech, Utterance

_log = logging.getLogger(__name__)

#: Kinds of speech, as they stand in the written file.
RECORDINGS = "recordings"
RESYNTHESIS = "resynthesis"
NOISE = "noise"
#: The recordings beside the text of another row.
WRONG_TEXT = "wrong text"
#: The recordings beside the prompt of another speaker.
OTHER_VOICE = "other voice"

Ear = dict[str, Any]


@dataclass(frozen=True)
class Heard:
    """The clips that every judge is asked about, by kind; place i of each is of one row.

    Args:
        by_kind: `RECORDINGS` and `NOISE`, and `RESYNTHESIS` where there is a codec.
        other_texts: for each row another one, whose text is not the same; None where all texts are.
        other_voices: for each row the place of one of another speaker; None where all are of one.
    """

    by_kind: Mapping[str, Sequence[Hypothesis]]
    other_texts: Sequence[Utterance] | None
    other_voices: Sequence[int] | None

    @property
    def recordings(self) -> Sequence[Hypothesis]:
        """Those of the rows."""
        return self.by_kind[RECORDINGS]


def heard_clips(
    rows: RowSource,
    codec: Codec | None = None,
    *,
    sample_rate_hz: int = 16000,
    prompt_s: tuple[float, float] = (0.3, 30.0),
    batch_size: int = 32,
    normalisers: Mapping[str, Normaliser] | None = None,
    seed: int = 0,
) -> Heard:
    """Recordings of rows, the same through a codec, and noise as long and as loud.

    Args:
        rows: those without a recording of their text are left out.
        codec: encodes and decodes each recording; None leaves resynthesis out.
        sample_rate_hz: at which recordings are read where there is no codec.
        prompt_s: (shortest, longest) speaker prompt, in seconds.
        batch_size: rows at once.
        normalisers: by language code; texts that they make equal are not another text.
        seed: keys the noise, with the row's id.

    Raises:
        ValueError: where no row has a recording.
    """
    rate_hz = codec.sample_rate_hz if codec is not None else sample_rate_hz
    data = TtsDataModule(prompt_s, sample_rate_hz=rate_hz)
    by_kind: dict[str, list[Hypothesis]] = {RECORDINGS: [], NOISE: []}
    if codec is not None:
        by_kind[RESYNTHESIS] = []

    for first in range(0, len(rows), batch_size):
        last = min(first + batch_size, len(rows))
        batch = data.load([rows[i] for i in range(first, last)])
        for recording in _recordings(batch, rate_hz):
            by_kind[RECORDINGS].append(recording)
            by_kind[NOISE].append(_noise_like(recording, seed))
            if codec is not None:
                by_kind[RESYNTHESIS].append(_through(codec, recording))

    recordings = by_kind[RECORDINGS]
    if not recordings:
        raise ValueError(
            "calibrate: no row has a recording of its text, which ears are calibrated on; give rows with one "
            "('target' in the manifest)"
        )
    return Heard(by_kind, _other_texts(recordings, normalisers or {}), _other_voices(recordings))


def _recordings(batch: PromptBatch, rate_hz: int) -> list[Hypothesis]:
    """The recordings of a batch, with their prompts; of rows that have one."""
    waves = batch.target_waveform
    lengths = batch.target_num_samples
    if waves is None or lengths is None:
        return []

    found = []
    for b, row in enumerate(batch.rows):
        wave = waves[b, : int(lengths[b])].float()
        prompt = batch.waveform[b, : int(batch.num_samples[b])].float()
        if not len(wave):
            continue
        speech = Speech(wave, rate_hz, torch.zeros(0, dtype=torch.int64))
        if len(prompt):
            speech = replace(speech, prompt=prompt, prompt_sample_rate_hz=batch.sample_rate_hz)
        found.append(Hypothesis(row, "", speech=speech))
    return found


def _with_waveform(hypothesis: Hypothesis, waveform: Tensor, rate_hz: int) -> Hypothesis:
    assert hypothesis.speech is not None
    speech = replace(hypothesis.speech, waveform=waveform, sample_rate_hz=rate_hz)
    return replace(hypothesis, speech=speech)


def _noise_like(recording: Hypothesis, seed: int) -> Hypothesis:
    """White noise of the recording's length and mean power."""
    assert recording.speech is not None
    wave = recording.speech.waveform
    generator = keyed_generator("calibrate", "noise", seed, recording.row.id)
    noise = torch.randn(len(wave), generator=generator)
    level = wave.square().mean().sqrt() / noise.square().mean().sqrt()
    return _with_waveform(recording, noise * level, recording.speech.sample_rate_hz)


@torch.no_grad()
def _through(codec: Codec, recording: Hypothesis) -> Hypothesis:
    """The recording encoded and decoded again."""
    assert recording.speech is not None
    device = next((tensor.device for tensor in codec.parameters()), torch.device("cpu"))
    wave = recording.speech.waveform[None].to(device)
    codes, lengths = codec.encode(wave, torch.tensor([wave.shape[1]], device=device))
    decoded, num_samples = codec.decode(codes, lengths)
    clip = decoded[0, : int(num_samples[0])].float().cpu()
    return _with_waveform(recording, clip, codec.output_sample_rate_hz)


def _other_texts(
    recordings: Sequence[Hypothesis], normalisers: Mapping[str, Normaliser]
) -> list[Utterance] | None:
    rows = [recording.row for recording in recordings]
    texts = [normaliser_for(row.lang, normalisers).normalise(row.reference) for row in rows]
    places = _next_that_differs(texts)
    return None if places is None else [rows[place] for place in places]


def _other_voices(recordings: Sequence[Hypothesis]) -> list[int] | None:
    speakers = [recording.row.speaker for recording in recordings]
    # A speaker without a name may be any.
    return _next_that_differs(speakers) if all(speakers) else None


def _next_that_differs(values: Sequence[str]) -> list[int] | None:
    """For each place the next one, around the end, with another value; None where all are equal.

    Example:
        >>> _next_that_differs(["a", "a", "b"]), _next_that_differs(["a", "a"])
        ([2, 2, 0], None)
    """
    if len(set(values)) < 2:
        return None

    places = []
    for place, value in enumerate(values):
        other = (place + 1) % len(values)
        while values[other] == value:
            other = (other + 1) % len(values)
        places.append(other)
    return places


def ear_calibrations(
    ears: Mapping[str, Judge[Any]],
    clips: Heard,
    normalisers: Mapping[str, Normaliser] | None = None,
    max_error: float = 0.3,
) -> dict[str, Ear]:
    """What each judge says of each kind of speech, as it is written.

    Of a recogniser the character error rates, and the means of what it measures beside; of a speaker encoder cosines to
    the row's own prompt and to that of another speaker; of a predictor of quality its mean ratings.

    Args:
        ears: by name.
        clips: of `heard_clips`.
        normalisers: by language code, in place of the built-in table.
        max_error: a recogniser that errs on more of the characters of natural speech is warned of.

    Raises:
        ValueError: for a judge of another kind.
    """
    found: dict[str, Ear] = {}
    for name, ear in ears.items():
        if isinstance(ear, AsrJudge):
            found[name] = _recogniser(ear, clips, normalisers or {})
            natural = found[name]["cer"][RECORDINGS]
            if natural > max_error:
                _log.warning("%s", deaf_warning(name, natural, max_error))

        elif isinstance(ear, SpeakerEncoder):
            found[name] = _encoder(ear, clips)
        elif isinstance(ear, QualityPredictor):
            found[name] = _predictor(ear, clips)
        else:
            raise ValueError(
                f"calibrate.ears: '{name}' is a {type(ear).__name__}; expected an AsrJudge, a SpeakerEncoder or a "
                "QualityPredictor"
            )
    return found


def deaf_warning(name: str, error: float, max_error: float) -> str:
    """What is said of a recogniser that does not understand natural speech.

    Example:
        >>> deaf_warning("asr", 0.5, 0.3)[:55]
        "judge 'asr' errs on 50.0 % of the characters of natural"
    """
    return (
        f"judge '{name}' errs on {100 * error:.1f} % of the characters of natural speech, above max_error "
        f"{100 * max_error:.1f} %: what it rewards or measures is mostly its own error; take another judge, normaliser "
        "or data"
    )


def _recogniser(ear: AsrJudge, clips: Heard, normalisers: Mapping[str, Normaliser]) -> Ear:
    cer: dict[str, float] = {}
    measures: dict[str, dict[str, float]] = {}
    failures = 0
    for kind, samples in clips.by_kind.items():
        rows = [sample.row for sample in samples]
        transcripts = ear.transcribe(samples)
        failures += sum(transcript is None for transcript in transcripts)

        cer[kind] = _error_rate(rows, transcripts, normalisers)
        if kind == RECORDINGS and clips.other_texts is not None:
            cer[WRONG_TEXT] = _error_rate(clips.other_texts, transcripts, normalisers)
        measures[kind] = {name: _mean_measure(name, transcripts) for name in ear.reports}

    found: Ear = {"kind": "recogniser", "cer": cer, "failures": failures}
    return found | ({"measures": measures} if ear.reports else {})


def _mean_measure(name: str, transcripts: Sequence[str | None]) -> float:
    return _mean([measures_of(transcript).get(name, math.nan) for transcript in transcripts])


def _error_rate(
    rows: Sequence[Utterance],
    transcripts: Sequence[str | None],
    normalisers: Mapping[str, Normaliser],
) -> float:
    """Characters wrong over characters to say, over all rows whose clip could be judged."""
    errors = 0
    characters = 0
    for row, transcript in zip(rows, transcripts, strict=True):
        if transcript is not None:
            wrong, length = character_errors(row, transcript, normaliser_for(row.lang, normalisers))
            errors += wrong
            characters += length
    return errors / characters if characters else math.nan


def _encoder(ear: SpeakerEncoder, clips: Heard) -> Ear:
    voices = {kind: ear.voices(samples) for kind, samples in clips.by_kind.items()}
    cosines = {kind: [_cosine(*pair) for pair in pairs] for kind, pairs in voices.items()}
    similarity = {kind: _mean(values) for kind, values in cosines.items()}

    confused = math.nan
    if clips.other_voices is not None:
        own = voices[RECORDINGS]
        others = [
            _cosine(own[place][0], own[other][1]) for place, other in enumerate(clips.other_voices)
        ]
        similarity[OTHER_VOICE] = _mean(others)
        pairs = zip(cosines[RECORDINGS], others, strict=True)
        confused = _mean([_is_confused(same, other) for same, other in pairs])
    return {"kind": "speaker encoder", "similarity": similarity, "confused": confused}


def _is_confused(same: float, other: float) -> float:
    """1 where another speaker's prompt is as close as the own one, 0 where not, NaN where one is not known."""
    if math.isnan(same) or math.isnan(other):
        return math.nan
    return float(other >= same)


def _cosine(voice: Tensor | None, prompt: Tensor | None) -> float:
    if voice is None or prompt is None:
        return math.nan
    return float(torch.dot(voice, prompt))


def _predictor(ear: QualityPredictor, clips: Heard) -> Ear:
    quality = {}
    for kind, samples in clips.by_kind.items():
        values = [math.nan if value is None else value for value in ear.quality(samples)]
        quality[kind] = _mean(values)
    return {"kind": "quality predictor", "quality": quality}


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return fmean(numbers) if numbers else math.nan


@dataclass(frozen=True)
class _Table:
    """How judges of one kind are shown.

    Args:
        key: of the values in an `Ear`.
        what: heading.
        columns: kinds of speech.
        factor: that values are multiplied by.
        digits: after the point.
    """

    key: str
    what: str
    columns: tuple[str, ...]
    factor: float = 1.0
    digits: int = 3


_TABLES = {
    "recogniser": _Table("cer", "CER %", (RECORDINGS, RESYNTHESIS, NOISE, WRONG_TEXT), 100.0, 1),
    "speaker encoder": _Table(
        "similarity", "cosine", (RECORDINGS, RESYNTHESIS, NOISE, OTHER_VOICE)
    ),
    "quality predictor": _Table("quality", "rating", (RECORDINGS, RESYNTHESIS, NOISE), digits=2),
}


def ears_text(found: Mapping[str, Ear], title: str) -> str:
    """Markdown: one table for each kind of judge."""
    paragraphs = [f"# {title}"]
    for kind, table in _TABLES.items():
        header = [f"{kind}: {table.what} of", *table.columns]
        has_voices = kind == "speaker encoder"
        if has_voices:
            header.append("confused %")

        lines = []
        for name, ear in found.items():
            if ear["kind"] != kind:
                continue
            values = [ear[table.key].get(column, math.nan) for column in table.columns]
            line = [name, *[_number(table.factor * value, table.digits) for value in values]]
            if has_voices:
                line.append(_number(100 * ear["confused"], 1))
            lines.append(line)

        if lines:
            paragraphs.append(markdown_table(header, lines))
    return "\n\n".join([*paragraphs, *_measured(found)]) + "\n"


def _measured(found: Mapping[str, Ear]) -> list[str]:
    """A table of what recognisers measure beside the words, where one does."""
    lines = []
    for name, ear in found.items():
        for kind, means in ear.get("measures", {}).items():
            for measure, value in means.items():
                lines.append([name, kind, measure, _number(value, 3)])
    return [markdown_table(["recogniser", "speech", "measure", "mean"], lines)] if lines else []


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"

"""Reading audio: any format that soundfile knows, any rate and channel count, as mono float32 at one rate."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from lightning_audiorl.data.audio.effects import apply_effects
from lightning_audiorl.data.audio.nonspeech import render
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.types import Segment, Utterance

#: A row may claim this much more audio than its file has (rounded durations, codec delay) and is read to the end.
OVERRUN_S = 0.2


#: What decides a clip's samples: file, offset, duration and sampling rate.
_ClipKey = tuple[str, float, float | None, int]


class AudioError(ValueError):
    """Audio that cannot be used; names the file, what is wrong, and how to mend it."""


class AudioCache:
    """Decoded and resampled clips of files, least recently used first out.

    Args:
        max_bytes: most memory held; 2,250 digit recordings at 16 kHz take about 65 MB.
        max_clip_s: longer clips are not kept.

    Attributes:
        num_bytes: memory held now.
    """

    def __init__(self, max_bytes: int = 256 * 2**20, max_clip_s: float = 5.0) -> None:
        self.max_bytes = max_bytes
        self.max_clip_s = max_clip_s
        self.num_bytes = 0
        self._clips: OrderedDict[_ClipKey, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clips)

    def read(self, segment: Segment, sample_rate_hz: int) -> Tensor:
        """`read_segment`, from memory where possible. Do not write into the result."""
        key = (segment.audio_filepath, segment.offset_s, segment.duration_s, sample_rate_hz)
        clip = self._clips.get(key)
        if clip is not None:
            self._clips.move_to_end(key)
            return clip

        clip = read_segment(segment, sample_rate_hz)
        # Synthetic sounds are cheap to compute and seldom wanted twice.
        synthetic = segment.audio_filepath.startswith(PREFIX)
        if not synthetic and clip.numel() <= self.max_clip_s * sample_rate_hz:
            self._keep(key, clip)
        return clip

    def _keep(self, key: _ClipKey, clip: Tensor) -> None:
        self._clips[key] = clip
        self.num_bytes += clip.nbytes
        while self.num_bytes > self.max_bytes:
            _, oldest = self._clips.popitem(last=False)
            self.num_bytes -= oldest.nbytes


def read_segment(segment: Segment, sample_rate_hz: int) -> Tensor:
    """One stretch of one file (or ``synthetic:`` address): [num_samples] float32, without its gap.

    Raises:
        AudioError: missing or unreadable file, nothing at this offset, fewer seconds than asked for, NaN or infinity.

    Example:
        >>> read_segment(Segment("synthetic:silence", duration_s=0.5), sample_rate_hz=8000).shape
        torch.Size([4000])
    """
    path = segment.audio_filepath
    if path.startswith(PREFIX):
        return _synthetic(segment, sample_rate_hz)
    if not Path(path).is_file():
        raise AudioError(f"{path}: no such file; correct the path or remove the row")

    try:
        with soundfile.SoundFile(path) as file:
            audio = _read_frames(file, segment)
            rate_hz = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(
            f"{path}: not readable as audio ({error}); convert it to wav or flac"
        ) from error

    # Float files can hold NaN, and one such clip would make the loss of its whole batch NaN.
    mono = audio.mean(dim=1)
    if not bool(torch.isfinite(mono).all()):
        raise AudioError(
            f"{path}: holds NaN or infinite samples; write the file again or remove the row"
        )
    return mono if rate_hz == sample_rate_hz else resample(mono, rate_hz, sample_rate_hz)


def _synthetic(segment: Segment, sample_rate_hz: int) -> Tensor:
    """The sound of a ``synthetic:`` address; AudioError where it names none."""
    if segment.duration_s is None:
        raise AudioError(f"{segment.audio_filepath}: a synthetic address needs a duration")
    try:
        return render(segment.audio_filepath, segment.duration_s, sample_rate_hz)
    except ValueError as error:
        raise AudioError(str(error)) from error


def _read_frames(file: soundfile.SoundFile, segment: Segment) -> Tensor:
    """[frames, channels] of the segment; AudioError when the file does not have them."""
    path = segment.audio_filepath
    rate_hz = file.samplerate
    start = round(segment.offset_s * rate_hz)
    if file.frames == 0:
        raise AudioError(f"{path}: holds no samples; remove the row")
    if not 0 <= start < file.frames:
        file_s = file.frames / rate_hz
        raise AudioError(
            f"{path}: offset {segment.offset_s} s is outside the file, which is {file_s:.3f} s long"
        )

    # -1 reads to the end of the file.
    wanted = -1 if segment.duration_s is None else round(segment.duration_s * rate_hz)
    if wanted == 0:
        raise AudioError(
            f"{path}: a duration of {segment.duration_s} s is less than one sample at {rate_hz} Hz"
        )

    file.seek(start)
    samples = file.read(wanted, dtype="float32", always_2d=True)
    audio = torch.from_numpy(samples)

    # The header's number of frames is a promise: a truncated file has fewer.
    if len(audio) == 0:
        raise AudioError(f"{path}: holds no samples at {segment.offset_s} s; remove the row")
    if len(audio) < wanted - OVERRUN_S * rate_hz:
        left_s = len(audio) / rate_hz
        raise AudioError(
            f"{path}: {segment.duration_s} s asked for at offset {segment.offset_s} s, but the file has only "
            f"{left_s:.3f} s from there; correct the duration"
        )
    return audio


def read_audio(
    utterance: Utterance, sample_rate_hz: int, cache: AudioCache | None = None
) -> Tensor:
    """All segments of a row, joined with their silences, after its effects: [num_samples] float32 mono.

    Args:
        utterance: the row.
        sample_rate_hz: rate of the result.
        cache: where clips of files are looked up and kept; None reads them from disk.

    Raises:
        AudioError: see `read_segment`, or an effect that does not exist; the message begins with the row's id.

    Example:
        >>> hum = Segment("synthetic:hum?seed=1", duration_s=1.0)
        >>> clicks = Segment("synthetic:clicks?seed=1", duration_s=0.5, gap_s=0.25)
        >>> row = Utterance(id="noise", segments=(hum, clicks), text="", duration_s=1.75)
        >>> read_audio(row, sample_rate_hz=8000).shape
        torch.Size([14000])
    """
    if not utterance.segments:
        raise AudioError(f"row {utterance.id!r}: has no audio segments")

    read = read_segment if cache is None else cache.read
    pieces: list[tuple[int, Tensor]] = []
    num_samples = 0
    for segment in utterance.segments:
        try:
            clip = read(segment, sample_rate_hz)
        except AudioError as error:
            raise AudioError(f"row {utterance.id!r}: {error}") from error
        start = num_samples + round(segment.gap_s * sample_rate_hz)
        pieces.append((start, clip))
        num_samples = start + len(clip)

    wave = torch.zeros(num_samples)
    for start, clip in pieces:
        wave[start : start + len(clip)] = clip

    try:
        return apply_effects(wave, utterance.effects, utterance.id, sample_rate_hz)
    except ValueError as error:
        raise AudioError(f"row {utterance.id!r}: {error}") from error

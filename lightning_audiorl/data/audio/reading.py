"""Reading audio: any format that soundfile knows, any rate and channel count, as mono float32 at one rate."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from lightning_audiorl.data.audio.channels import to_mono
from lightning_audiorl.data.audio.effects import apply_effects
from lightning_audiorl.data.audio.nonspeech import render
from lightning_audiorl.data.audio.resampling import resample
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.sound import AudioError, SoundReader
from lightning_audiorl.types import Segment, Utterance

#: A row may claim this much more audio than its file has (rounded durations, codec delay) and is read to the end.
OVERRUN_S = 0.2
#: Audio lies within 1; what is larger than this is no loud recording but another scale, or no audio.
MAX_LEVEL = 100.0


#: What decides a clip's samples: file, offset, duration and sampling rate.
_ClipKey = tuple[str, float, float | None, int]


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

    with SoundReader(path) as sound:
        audio = _read_frames(sound, segment)
        rate_hz = sound.rate_hz
    _check_samples(path, audio)
    mono = to_mono(audio, path)
    return resample(mono, rate_hz, sample_rate_hz)


def _check_samples(path: str, audio: Tensor) -> None:
    """Raise AudioError for samples that are no sound: one such clip would spoil the loss of its whole batch."""
    if not bool(torch.isfinite(audio).all()):
        raise AudioError(
            f"{path}: holds NaN or infinite samples; write the file again or remove the row"
        )
    level = float(audio.abs().max())
    if level > MAX_LEVEL:
        raise AudioError(
            f"{path}: holds samples as large as {level:.3g}, where audio lies within 1; divide them by 32768 if they "
            "are at the scale of 16-bit integers, or remove the row"
        )


def _synthetic(segment: Segment, sample_rate_hz: int) -> Tensor:
    """The sound of a ``synthetic:`` address; AudioError where it names none."""
    if segment.duration_s is None:
        raise AudioError(f"{segment.audio_filepath}: a synthetic address needs a duration")
    try:
        return render(segment.audio_filepath, segment.duration_s, sample_rate_hz)
    except ValueError as error:
        raise AudioError(str(error)) from error


def _read_frames(sound: SoundReader, segment: Segment) -> Tensor:
    """[frames, channels] of the segment; AudioError when the file does not have them."""
    path = segment.audio_filepath
    rate_hz = sound.rate_hz
    start = round(segment.offset_s * rate_hz)
    wanted = None if segment.duration_s is None else round(segment.duration_s * rate_hz)
    if wanted == 0:
        raise AudioError(
            f"{path}: a duration of {segment.duration_s} s is less than one sample at {rate_hz} Hz"
        )
    if start < 0:
        raise AudioError(f"{path}: offset {segment.offset_s} s lies before the file; correct it")

    samples = sound.read(start, wanted)
    if len(samples) == 0:
        raise _nothing_read(sound, segment)

    # The number of frames in a header is a promise: a file that was cut has fewer.
    promised = sound.num_frames - start if wanted is None else wanted
    if len(samples) < promised - OVERRUN_S * rate_hz:
        raise _too_little_read(sound, segment, len(samples), promised)
    return torch.from_numpy(samples)


def _nothing_read(sound: SoundReader, segment: Segment) -> AudioError:
    """The error for a segment without samples."""
    path = segment.audio_filepath
    if sound.num_frames == 0:
        return AudioError(f"{path}: holds no samples; remove the row")
    file_s = sound.num_frames / sound.rate_hz
    return AudioError(
        f"{path}: offset {segment.offset_s} s is outside the file, which is {file_s:.3f} s long"
    )


def _too_little_read(
    sound: SoundReader, segment: Segment, num_frames: int, promised: int
) -> AudioError:
    """The error for a segment that is shorter than its row, or the file's header, says."""
    path = segment.audio_filepath
    left_s = num_frames / sound.rate_hz
    if segment.duration_s is None:
        promised_s = promised / sound.rate_hz
        return AudioError(
            f"{path}: its header promises {promised_s:.3f} s, but only {left_s:.3f} s are there; restore the file "
            "or remove the row"
        )
    return AudioError(
        f"{path}: {segment.duration_s} s asked for at offset {segment.offset_s} s, but the file has only "
        f"{left_s:.3f} s from there; correct the duration"
    )


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

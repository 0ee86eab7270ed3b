"""Audio files of every kind, sound and damaged: made from one signal, so that what they hold is known."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

SECONDS = 3.0


@dataclass(frozen=True)
class Kind:
    """A format with what it needs, and how far its decoded sound may lie from the signal.

    Args:
        suffix: of the file's name.
        container: as soundfile names it.
        subtype: as soundfile names it.
        rate_hz: sampling rate.
        channels: number of channels.
        tolerance: root mean square of the difference from the signal, that of the signal being 1.
        padding: most frames that the format adds at the end.
        options: further arguments for soundfile.
    """

    suffix: str
    container: str
    subtype: str
    rate_hz: int = 16000
    channels: int = 1
    tolerance: float = 2e-4
    padding: int = 0
    options: tuple[tuple[str, object], ...] = ()

    @property
    def name(self) -> str:
        """Names the file, and the test."""
        parts = [self.container, self.subtype, str(self.rate_hz), f"{self.channels}ch"]
        parts += [str(value) for _, value in self.options]
        return "-".join(parts).lower()


@cache
def signal(rate_hz: int, channels: int = 1, seconds: float = SECONDS) -> np.ndarray:
    """[frames, channels] float32: a rising tone with a pause and a little noise; later channels are softer."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).standard_normal(len(time_s))
    wave = 0.3 * np.sin(2 * np.pi * (200 + 150 * time_s) * time_s) + 0.005 * noise
    pause = slice(round(0.25 * len(wave)), round(0.45 * len(wave)))
    wave[pause] = 0.0
    gains = 0.8 ** np.arange(channels)
    return (wave[:, None] * gains).astype("float32")


_VARIABLE = (("bitrate_mode", "VARIABLE"), ("compression_level", 0.9))
_CONSTANT = (("bitrate_mode", "CONSTANT"), ("compression_level", 0.5))


def kinds() -> Iterator[Kind]:
    """Formats, codings, rates and channel counts that are read."""
    for subtype, tolerance in (("PCM_16", 2e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6)):
        yield Kind("wav", "WAV", subtype, tolerance=tolerance)
    for subtype in ("FLOAT", "DOUBLE"):
        yield Kind("wav", "WAV", subtype, tolerance=1e-7)
    for subtype, tolerance in (("PCM_U8", 0.03), ("ULAW", 0.02), ("ALAW", 0.02)):
        yield Kind("wav", "WAV", subtype, tolerance=tolerance)

    # Blocks of these are filled with silence, and nobody can seek in some.
    yield Kind("wav", "WAV", "IMA_ADPCM", tolerance=0.05, padding=1024)
    yield Kind("wav", "WAV", "MS_ADPCM", tolerance=0.05, padding=1024)
    yield Kind("wav", "WAV", "G721_32", 8000, tolerance=0.05, padding=160)
    yield Kind("wav", "WAV", "NMS_ADPCM_32", 8000, tolerance=0.05, padding=160)
    for container, suffix in (("WAV", "wav"), ("AIFF", "aiff"), ("W64", "w64")):
        yield Kind(suffix, container, "GSM610", 8000, tolerance=0.15, padding=320)

    for rate_hz in (8000, 11025, 22050, 32000, 44100, 48000, 96000, 22254, 44056, 12345, 11127):
        yield Kind("wav", "WAV", "PCM_16", rate_hz)
    for channels in (2, 3, 6):
        yield Kind("wav", "WAV", "PCM_16", channels=channels)
        yield Kind("wav", "WAVEX", "PCM_16", channels=channels)
        yield Kind("flac", "FLAC", "PCM_24", channels=channels, tolerance=1e-6)

    for container, suffix in (
        ("RF64", "wav"),
        ("W64", "w64"),
        ("AIFF", "aif"),
        ("AU", "au"),
        ("CAF", "caf"),
        ("FLAC", "flac"),
        ("NIST", "sph"),
        ("VOC", "voc"),
        ("SVX", "iff"),
        ("PAF", "paf"),
        ("SDS", "sds"),
        ("IRCAM", "sf"),
        ("AVR", "avr"),
        ("MAT5", "mat"),
    ):
        yield Kind(suffix, container, "PCM_16")
    yield Kind("caf", "CAF", "ALAC_16")
    yield Kind("aiff", "AIFF", "FLOAT", tolerance=1e-7)
    yield Kind("au", "AU", "ULAW", 8000, tolerance=0.02)
    # A name says nothing where there is a header.
    yield Kind("raw", "WAV", "PCM_16")
    yield Kind("wav", "FLAC", "PCM_16")
    yield Kind("mp3", "WAV", "PCM_16")

    for rate_hz in (8000, 16000, 44100, 48000):
        for channels in (1, 2):
            yield Kind("ogg", "OGG", "VORBIS", rate_hz, channels, tolerance=0.05)
    for rate_hz in (16000, 48000):
        yield Kind("opus", "OGG", "OPUS", rate_hz, tolerance=0.05)
    for rate_hz in (8000, 16000, 24000, 44100, 48000):
        for options in (_VARIABLE, _CONSTANT):
            yield Kind("mp3", "MP3", "MPEG_LAYER_III", rate_hz, 1, 0.06, 0, options)
    yield Kind("mp3", "MP3", "MPEG_LAYER_III", 44100, 2, 0.06, 0, _VARIABLE)


def write(folder: Path, kind: Kind, seconds: float = SECONDS) -> Path:
    """The signal as a file of this kind."""
    path = folder / f"{kind.name}.{kind.suffix}"
    path.write_bytes(encoded(kind, seconds))
    return path


@cache
def encoded(kind: Kind, seconds: float = SECONDS) -> bytes:
    """The bytes of such a file."""
    file = io.BytesIO()
    soundfile.write(
        file,
        signal(kind.rate_hz, kind.channels, seconds),
        kind.rate_hz,
        kind.subtype,
        format=kind.container,
        **dict(kind.options),  # type: ignore[arg-type]
    )
    return file.getvalue()


def mp3(rate_hz: int, seconds: float = SECONDS, channels: int = 1) -> bytes:
    """An mp3 file of variable bitrate, with a header of its own."""
    kind = Kind("mp3", "MP3", "MPEG_LAYER_III", rate_hz, channels, 0.06, 0, _VARIABLE)
    return encoded(kind, seconds)


def mp3_frames(data: bytes) -> tuple[list[bytes], int]:
    """The frames of an mp3 file, the first of which is its header, and samples per channel of each."""
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] & 0xE0 == 0xE0)
    is_first = data[at + 1] >> 3 & 0b11 == 0b11
    if is_first:
        kbps = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
        rates_hz = [44100, 48000, 32000]
    else:
        kbps = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
        is_second = data[at + 1] >> 3 & 0b11 == 0b10
        rates_hz = [22050, 24000, 16000] if is_second else [11025, 12000, 8000]
    num_samples = 1152 if is_first else 576

    frames = []
    while at + 4 <= len(data) and data[at] == 0xFF:
        rate_hz = rates_hz[data[at + 2] >> 2 & 0b11]
        padding = data[at + 2] >> 1 & 1
        size = num_samples // 8 * kbps[data[at + 2] >> 4] * 1000 // rate_hz + padding
        frames.append(data[at : at + size])
        at += size
    return frames, num_samples


def id3_tag(size: int = 3000) -> bytes:
    """A tag with a picture in it: bytes that look like frames here and there."""
    picture = np.random.default_rng(1).bytes(size)
    length = bytes([0, 0, size >> 7, size & 0x7F])
    return b"ID3\x04\x00\x00" + length + picture


def ape_tag() -> bytes:
    """A tag at the end of a file, header, one field and footer."""
    item = (4).to_bytes(4, "little") + bytes(4) + b"Title\x00" + b"name"
    size = (len(item) + 32).to_bytes(4, "little")
    body = b"APETAGEX" + (2000).to_bytes(4, "little") + size + (1).to_bytes(4, "little")
    header = body + (0xA0000000).to_bytes(4, "little") + bytes(8)
    footer = body + (0x80000000).to_bytes(4, "little") + bytes(8)
    return header + item + footer


def flac_of(num_frames: int, data: bytes) -> bytes:
    """A FLAC file whose header promises another number of frames; 0 is what an encoder writes to a pipe."""
    changed = bytearray(data)
    field = int.from_bytes(changed[18:26], "big")
    field = field >> 36 << 36 | num_frames
    changed[18:26] = field.to_bytes(8, "big")
    return bytes(changed)


def wav_of(data_size: int, data: bytes) -> bytes:
    """A wav file whose data chunk claims another size, as recorders leave it that were stopped."""
    changed = bytearray(data)
    at = changed.find(b"data")
    changed[at + 4 : at + 8] = data_size.to_bytes(4, "little")
    return bytes(changed)


def with_long_pages(data: bytes, most_segments: int = 255) -> bytes:
    """An Ogg file with pages as long as the format allows, as other programs write it."""
    pages = list(_ogg_pages(data))
    # The codec's headers stay on their pages.
    out = [
        _ogg_page(head, table, body, number) for number, (head, table, body) in enumerate(pages[:2])
    ]
    head, table, body = pages[2]
    for next_head, next_table, next_body in pages[3:]:
        is_full = len(table) + len(next_table) > most_segments
        if is_full or table[-1] == 255:
            out.append(_ogg_page(head, table, body, len(out)))
            head, table, body = next_head, next_table, next_body
            continue
        head = next_head
        table += next_table
        body += next_body
    out.append(_ogg_page(head, table, body, len(out)))
    return b"".join(out)


def without_first_pages(data: bytes, num_pages: int) -> bytes:
    """An Ogg file that was cut at its start: its pages go on counting as in the whole one."""
    pages = list(_ogg_pages(data))
    kept = pages[:2] + pages[2 + num_pages :]
    out = [_ogg_page(head, table, body, number) for number, (head, table, body) in enumerate(kept)]
    return b"".join(out)


def _ogg_pages(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Header, table of segments and body of each page."""
    at = 0
    while at < len(data):
        num_segments = data[at + 26]
        table = data[at + 27 : at + 27 + num_segments]
        start = at + 27 + num_segments
        end = start + sum(table)
        yield data[at : at + 26], table, data[start:end]
        at = end


def _ogg_page(head: bytes, table: bytes, body: bytes, number: int) -> bytes:
    page = bytearray(head + bytes([len(table)]) + table + body)
    page[18:22] = number.to_bytes(4, "little")
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page:
        checksum = checksum << 8 & 0xFFFFFFFF ^ _OGG_CHECKSUMS[checksum >> 24 ^ byte]
    page[22:26] = checksum.to_bytes(4, "little")
    return bytes(page)


def _checksum_of(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = (value << 1 ^ 0x04C11DB7 * (value >> 31)) & 0xFFFFFFFF
    return value


_OGG_CHECKSUMS = [_checksum_of(byte) for byte in range(256)]

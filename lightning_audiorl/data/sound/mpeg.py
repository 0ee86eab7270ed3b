"""MPEG audio (mp3) frame by frame: how much a file holds where its header does not say, or says it of a part.

A file may have no header with its number of frames (streams, cuts), be several files in one (``cat a.mp3 b.mp3``), or
end before its header says. Every frame has a header of its own, so walking over them tells, without decoding.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from functools import lru_cache

from lightning_audiorl.data.sound.parts import Part

#: What a file's header may be wrong by, in bytes: tags of a few hundred bytes that are not known here.
_SLACK_BYTES = 1024
#: The decoder's own delay, which it drops where the header states the encoder's.
_DECODER_DELAY = 529
#: So many frames in a row are no accident.
_SURE_FRAMES = 3
#: Kilobits per second by version (1 or not) and layer.
_KBPS: dict[tuple[bool, int], tuple[int, ...]] = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {
    0b11: (44100, 48000, 32000),
    0b10: (22050, 24000, 16000),
    0b00: (11025, 12000, 8000),
}

Bytes = bytes | mmap.mmap


@dataclass(frozen=True)
class _Frame:
    """What the four bytes before each frame say: its size in bytes, and samples per channel."""

    size: int
    num_samples: int
    rate_hz: int
    channels: int
    info_at: int

    @property
    def kind(self) -> tuple[int, int, int]:
        """What does not change within one recording."""
        return self.num_samples, self.rate_hz, self.channels


@dataclass(frozen=True)
class _Info:
    """The frame without sound that encoders put first: number of frames and bytes, -1 where it does not say."""

    num_frames: int
    num_bytes: int
    delay: int = 0
    padding: int = 0


@lru_cache(maxsize=2**12)
def _frame(header: bytes) -> _Frame | None:
    """The frame that begins with these four bytes; None where none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version = header[1] >> 3 & 0b11
    layer = 4 - (header[1] >> 1 & 0b11)
    bitrate = header[2] >> 4
    rate = header[2] >> 2 & 0b11
    # Reserved values; a bitrate of 0 is the free format, whose frames do not tell their size.
    if version == 0b01 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None

    is_first = version == 0b11
    kbps = _KBPS[is_first, layer][bitrate]
    rate_hz = _RATES_HZ[version][rate]
    padding = header[2] >> 1 & 1
    channels = 1 if header[3] >> 6 == 0b11 else 2

    if layer == 1:
        num_samples = 384
        size = (12 * kbps * 1000 // rate_hz + padding) * 4
    else:
        num_samples = 1152 if is_first or layer == 2 else 576
        size = num_samples // 8 * kbps * 1000 // rate_hz + padding

    # Behind the side information, whose size follows from version and channels.
    side = {(True, 1): 17, (True, 2): 32, (False, 1): 9, (False, 2): 17}[is_first, channels]
    return _Frame(size, num_samples, rate_hz, channels, info_at=4 + side)


def _info(data: Bytes, start: int, frame: _Frame) -> _Info | None:
    """What the frame at ``start`` says of the others; None for a frame of sound."""
    body = data[start : start + frame.size]
    if body[36:40] == b"VBRI":
        return _Info(_number(body, 46), _number(body, 42))

    # A checksum of two bytes may stand before the side information.
    at = frame.info_at
    if body[at : at + 4] not in (b"Xing", b"Info"):
        at += 2
    if body[at : at + 4] not in (b"Xing", b"Info"):
        return None

    flags = _number(body, at + 4)
    end = at + 8
    num_frames = num_bytes = -1
    if flags & 1:
        num_frames = _number(body, end)
        end += 4
    if flags & 2:
        num_bytes = _number(body, end)
        end += 4
    # A table of contents, and a number for quality.
    end += 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)

    trim = body[end + 21 : end + 24]
    delay = trim[0] << 4 | trim[1] >> 4 if len(trim) == 3 else 0
    padding = (trim[1] & 15) << 8 | trim[2] if len(trim) == 3 else 0
    return _Info(num_frames, num_bytes, delay, padding)


def _number(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "big")


def parts_of(data: Bytes) -> tuple[Part, ...] | None:
    """The stretches that a file's sound is made of; None where the file's own header is right about all of it.

    Args:
        data: the whole file; it need not begin with a frame.

    Returns:
        Parts in their order, none for a file without frames.
    """
    first = _next_frame(data, 0)
    if first < 0:
        return ()

    frame = _frame(data[first : first + 4])
    assert frame is not None
    info = _info(data, first, frame)
    states_all = info is not None and info.num_frames > 0
    if info is not None and states_all and info.num_bytes > 0:
        num_bytes = _end_of_sound(data) - first
        if abs(num_bytes - info.num_bytes) <= _SLACK_BYTES:
            return None

    parts = _walk(data, first)
    if info is not None and states_all and len(parts) == 1:
        is_right = parts[0].num_frames == _promised(info, frame)
        return None if is_right else tuple(parts)
    return tuple(parts)


def begins(head: bytes) -> bool:
    """Whether a file that begins with these bytes may be MPEG audio: with a frame, or with tags as mp3 has them.

    Example:
        >>> begins(bytes([0xFF, 0xFB, 0x90, 0x64])), begins(b"ID3"), begins(b"RIFF")
        (True, True, False)
    """
    return head[:3] == b"ID3" or _frame(head[:4]) is not None


def _walk(data: Bytes, first: int) -> list[Part]:
    """Every part from the frame at ``first`` on."""
    parts: list[Part] = []
    at = first
    while at >= 0:
        part, end = _part_at(data, at)
        if part.num_frames:
            parts.append(part)
        at = _next_frame(data, end)
    return parts


def _part_at(data: Bytes, first: int) -> tuple[Part, int]:
    """The part whose first frame is at ``first``, and where it ends."""
    frame = _frame(data[first : first + 4])
    assert frame is not None
    kind = frame.kind
    at = first
    info = _info(data, at, frame)
    if info is not None:
        at += frame.size
    start = at
    most = info.num_frames if info is not None and info.num_frames > 0 else -1

    size = len(data)
    count = 0
    while count != most:
        one = _frame(data[at : at + 4])
        # The last frame of a file that was cut is not played.
        if one is None or one.kind != kind or at + one.size > size:
            break
        if one.size > one.info_at + 8 and _info_mark(data, at, one):
            break
        at += one.size
        count += 1

    part = Part(
        first=start,
        end=at,
        num_frames=count * frame.num_samples,
        rate_hz=frame.rate_hz,
        channels=frame.channels,
        bare=True,
    )
    # Past a lone header, or a frame that goes on behind the end.
    end = max(at, first + 1)
    return _trimmed(part, info, frame), end


def _info_mark(data: Bytes, at: int, frame: _Frame) -> bool:
    """Whether the frame at ``at`` is the header of a further recording."""
    # The side information of a frame without sound is zero: most frames end here.
    if data[at + 6 : at + 12] != bytes(6):
        return False
    return _info(data, at, frame) is not None


def _trimmed(part: Part, info: _Info | None, frame: _Frame) -> Part:
    """The part without the encoder's delay and padding, as the decoder leaves them out."""
    if info is None or info.num_frames <= 0 or not (info.delay or info.padding):
        return part
    skip = info.delay + _DECODER_DELAY
    decoded = (part.num_frames or 0) - skip
    played = min(decoded, _promised(info, frame))
    return replace(part, num_frames=max(0, played), skip=skip)


def _promised(info: _Info, frame: _Frame) -> int:
    """Samples per channel that a header promises."""
    return info.num_frames * frame.num_samples - info.delay - info.padding


def _next_frame(data: Bytes, start: int) -> int:
    """Where the next frame begins, at ``start`` or behind it; -1 for nowhere."""
    at = start
    while True:
        at = _behind_tags(data, at)
        if _is_sure(data, at):
            return at
        at = data.find(b"\xff", at + 1)
        if at < 0:
            return -1


def _is_sure(data: Bytes, start: int) -> bool:
    """Whether frames of one kind follow each other from ``start`` on, or up to the file's end."""
    at = start
    kind = None
    for number in range(_SURE_FRAMES):
        frame = _frame(data[at : at + 4])
        if frame is None or (kind is not None and frame.kind != kind):
            # The last frames of a file, or of a recording before another one's tags.
            return number > 0 and _behind_tags(data, at) != at
        kind = frame.kind
        at += frame.size
        if at >= len(data):
            return at == len(data)
    return True


def _behind_tags(data: Bytes, start: int) -> int:
    """Where the tags that begin at ``start`` end (ID3, APE), ``start`` where there are none."""
    at = start
    while True:
        head = data[at : at + 32]
        if head[:3] == b"ID3" and len(head) > 10:
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte & 0x7F
            has_footer = bool(head[5] & 0x10)
            at += 10 + size + 10 * has_footer
        elif head[:8] == b"APETAGEX":
            # The size leaves out the header, at which `start` is.
            at += 32 + int.from_bytes(head[12:16], "little")
        elif head[:3] == b"TAG":
            at += 128
        else:
            return min(at, len(data))


def _end_of_sound(data: Bytes) -> int:
    """Where the sound ends: the file's end without the tags there."""
    end = len(data)
    if data[end - 128 : end - 125] == b"TAG":
        end -= 128
    foot = data[max(0, end - 32) : end]
    if foot[:8] == b"APETAGEX":
        has_header = foot[23] >> 7
        end -= int.from_bytes(foot[12:16], "little") + 32 * has_header
    return end

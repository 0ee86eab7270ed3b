"""Stretches of a file's bytes that decode as sound of their own, for files whose header speaks for a part of them."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

#: More samples per channel than one byte of MPEG audio can hold, rounded up: the shortest frame has 24 bytes.
_FRAMES_PER_BYTE = 64


@dataclass(frozen=True)
class Part:
    """Bytes ``first`` to ``end`` of a file.

    Args:
        first: where it begins in the file, in bytes.
        end: where it ends.
        num_frames: samples per channel that it plays; None is what its own header says.
        skip: samples per channel that the decoder gives before the first of these.
        rate_hz: its sampling rate, 0 where its header says it.
        channels: number of channels, 0 where its header says it.
        bare: MPEG frames without a header, whose decoder guesses a length and stops there.
    """

    first: int
    end: int
    num_frames: int | None = None
    skip: int = 0
    rate_hz: int = 0
    channels: int = 0
    bare: bool = False

    def moved(self, num_bytes: int) -> Part:
        """The same part of a clip that begins so many bytes behind the start of its file."""
        return replace(self, first=self.first + num_bytes, end=self.end + num_bytes)


class PartFile(io.RawIOBase):
    """One part of a file as a file of its own, to be read by soundfile.

    A bare part claims to be longer than it is: the decoder's guess of its length is then never too short, and reading
    ends with the bytes.
    """

    def __init__(self, path: str, part: Part) -> None:
        super().__init__()
        self._file = open(path, "rb")  # noqa: SIM115 (closed with this object)
        self._first = part.first
        self._size = part.end - part.first
        self._claimed = self._size * _FRAMES_PER_BYTE if part.bare else self._size
        self._at = 0

    def close(self) -> None:
        self._file.close()
        super().close()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._claimed}
        self._at = origins[whence] + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = len(buffer)
        # Tags are looked for near the claimed end, which does not exist: there are none.
        if self._at > self._size:
            buffer[:] = bytes(wanted)
            self._at += wanted
            return wanted

        self._file.seek(self._first + self._at)
        data = self._file.read(min(wanted, self._size - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

"""Where the bytes of a clip lie: in a file of their own, or as a stretch of a larger one (a tar shard, an Arrow file).

Address of a stretch: ``inside:<file>?name=<name>&first=<byte>&size=<bytes>&of=<bytes of the whole file>``. It stands
wherever a path of an audio file may stand, and is all that a reader needs: no index, no library of the archive's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, quote

from lightning_audiorl.data.sound.parts import Part, PartFile

#: Begins the address of audio that is a stretch of a file.
INSIDE = "inside:"
_NUMBERS = ("first", "size", "of")


@dataclass(frozen=True)
class Place:
    """A stretch of a file.

    Args:
        file: path of the file.
        name: what the stretch is called in it; its ending says the kind of audio where the bytes leave that open.
        first: its first byte.
        size: its length in bytes.
        of: size of the whole file in bytes; of another size it is another file, whose bytes mean something else.

    Example:
        >>> place = Place("/data/shard-0.tar", "a b.wav", first=512, size=32044, of=40960)
        >>> place.address
        'inside:/data/shard-0.tar?name=a%20b.wav&first=512&size=32044&of=40960'
        >>> place_of(place.address) == place
        True
    """

    file: str
    name: str
    first: int
    size: int
    of: int

    @property
    def address(self) -> str:
        """What `place_of` reads back."""
        name = quote(self.name, safe="")
        return f"{INSIDE}{self.file}?name={name}&first={self.first}&size={self.size}&of={self.of}"


@lru_cache(maxsize=1024)
def place_of(path: str) -> Place | None:
    """The stretch that an address names; None of a plain path.

    Raises:
        ValueError: an address without one of its parts, or outside its file; says which.
    """
    if not path.startswith(INSIDE):
        return None

    # A file's name may have a question mark; the name of the stretch is quoted.
    file, mark, query = path.removeprefix(INSIDE).rpartition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    numbers = {name: options.get(name, "") for name in _NUMBERS}
    missing = [name for name, digits in numbers.items() if not digits.isdecimal()]
    if not mark or not file or missing:
        raise ValueError(
            f"{path}: expected {INSIDE}<file>?name=<name>&first=<byte>&size=<bytes>&of=<bytes>; make the manifest again"
        )

    first, size, of = (int(digits) for digits in numbers.values())
    if first + size > of:
        raise ValueError(f"{path}: ends behind the {of} bytes of its file; make the manifest again")
    return Place(file, options.get("name", ""), first, size, of)


def file_of(path: str) -> str:
    """The file that holds a clip: of a plain path the path itself."""
    place = place_of(path)
    return path if place is None else place.file


def name_of(path: str) -> str:
    """The path, or the name of the stretch: what has an ending that says the kind of audio."""
    place = place_of(path)
    return path if place is None else place.name


def absolute(path: str) -> str:
    """The same with the file's absolute path.

    Example:
        >>> absolute("/clips/a.wav")
        '/clips/a.wav'
    """
    file = file_of(path)
    full = str(Path(file).absolute())
    if full == file:
        return path
    return path.replace(file, full, 1)


def stamp(path: str) -> tuple[int, int]:
    """Size in bytes and modification time of the file: what tells that it has changed.

    Raises:
        OSError: there is no such file.
    """
    stat = os.stat(file_of(path))
    return stat.st_size, stat.st_mtime_ns


def size_of(path: str) -> int:
    """Bytes of the clip."""
    place = place_of(path)
    return os.path.getsize(path) if place is None else place.size


def has_changed(path: str) -> bool:
    """Whether an address was written of a file of another size."""
    place = place_of(path)
    return place is not None and os.path.getsize(place.file) != place.of


def part_file(path: str, part: Part | None = None) -> PartFile:
    """A part of a clip as a file of its own; None is the whole clip."""
    place = place_of(path)
    first = 0 if place is None else place.first
    if part is None:
        whole = Part(first, first + size_of(path))
        return PartFile(file_of(path), whole)
    return PartFile(file_of(path), part.moved(first))


def first_bytes(path: str, num_bytes: int) -> bytes:
    """The first bytes of a clip, fewer where it has fewer.

    Raises:
        OSError: the file cannot be read.
    """
    place = place_of(path)
    with Path(file_of(path)).open("rb") as file:
        if place is None:
            return file.read(num_bytes)
        file.seek(place.first)
        return file.read(min(num_bytes, place.size))

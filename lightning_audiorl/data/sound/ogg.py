"""Ogg files that are several in one (``cat a.ogg b.ogg``): the decoder reads the first and stops."""

from __future__ import annotations

import mmap

from lightning_audiorl.data.sound.parts import Part

#: A page's header without the table of its segments.
_HEADER_BYTES = 27
_BEGINS_STREAM = 0b10


def parts_of(data: bytes | mmap.mmap) -> tuple[Part, ...] | None:
    """The recordings that follow each other in a file; None where there is one only."""
    starts: list[int] = []
    at = 0
    was_beginning = False
    while at >= 0:
        head = data[at : at + _HEADER_BYTES]
        if len(head) < _HEADER_BYTES or head[:4] != b"OggS":
            at = data.find(b"OggS", at + 1)
            continue

        # Streams that are played together begin together, so only the first of several pages that begin one counts.
        is_beginning = bool(head[5] & _BEGINS_STREAM)
        if is_beginning and not was_beginning:
            starts.append(at)
        was_beginning = is_beginning

        num_segments = head[26]
        sizes = data[at + _HEADER_BYTES : at + _HEADER_BYTES + num_segments]
        at += _HEADER_BYTES + num_segments + sum(sizes)
        if at >= len(data):
            break

    if len(starts) < 2:
        return None
    ends = [*starts[1:], len(data)]
    return tuple(Part(first, end) for first, end in zip(starts, ends, strict=True))

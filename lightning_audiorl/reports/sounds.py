"""Sound and pictures of a page: inside it as data URIs, or beside it in one archive."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import soundfile
from torch import Tensor

#: Where a page's sound goes: into the page, into an archive with it, or nowhere.
Audio = Literal["inside", "zip", "none"]

#: Bytes of sound that a page holds at most; a browser still opens it at once.
MAX_INSIDE = 24 * 2**20


class Sounds:
    """Takes sounds and pictures of a page, and gives the source that stands in it.

    Args:
        where: they go.

    Attributes:
        files: by path below the page, those that an archive gets.
        num_left_out: sounds that found no more room in the page.

    Raises:
        ValueError: for a place that is none.

    Example:
        >>> import torch
        >>> Sounds("inside").sound("a", torch.zeros(80), 8000)[:24]
        'data:audio/flac;base64,Z'
        >>> beside = Sounds("zip")
        >>> beside.sound("a", torch.zeros(80), 8000), list(beside.files)
        ('audio/a.flac', ['audio/a.flac'])
    """

    def __init__(self, where: Audio = "inside") -> None:
        if where not in ("inside", "zip", "none"):
            raise ValueError(f"audio is one of inside, zip and none, got {where!r}")
        self.where = where
        self.files: dict[str, bytes] = {}
        self.num_left_out = 0
        self._num_bytes = 0

    def sound(
        self,
        name: str,
        waveform: Tensor,
        sample_rate_hz: int,
    ) -> str:
        """The source of a sound; "" where there is none to play.

        Args:
            name: of its file, unique in the page.
            waveform: [num_samples].
            sample_rate_hz: of it.
        """
        if self.where == "none" or not waveform.numel() or not bool(waveform.isfinite().all()):
            return ""

        # FLAC: half of a wav file, without a loss, and played by every browser.
        buffer = io.BytesIO()
        wave = waveform.detach().float().cpu().clamp(-1, 1).numpy()
        soundfile.write(
            buffer,
            wave,
            sample_rate_hz,
            format="FLAC",
            subtype="PCM_16",
        )
        return self._place(
            f"audio/{name}.flac",
            "audio/flac",
            buffer.getvalue(),
        )

    def picture(
        self,
        name: str,
        path: Path,
    ) -> str:
        """The source of a PNG file; "" where it is not there.

        Args:
            name: of its file in an archive.
            path: of the picture.
        """
        if self.where == "none" or not path.is_file():
            return ""
        return self._place(
            f"audio/{name}.png",
            "image/png",
            path.read_bytes(),
        )

    def _place(
        self,
        path: str,
        kind: str,
        data: bytes,
    ) -> str:
        if self.where == "zip":
            self.files[path] = data
            return path

        if self._num_bytes + len(data) > MAX_INSIDE:
            self.num_left_out += 1
            return ""
        self._num_bytes += len(data)
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def write_page(
    folder: Path,
    name: str,
    page: str,
    sounds: Sounds,
) -> Path:
    """Write a page, or the archive of it and its sound; what an earlier report left of the other kind goes.

    Args:
        folder: is there.
        name: of the file, without its ending.
        page: of `render`.
        sounds: that stand in it.

    Returns:
        the file.
    """
    alone = folder / f"{name}.html"
    archive = folder / f"{name}.zip"
    if sounds.where != "zip":
        archive.unlink(missing_ok=True)
        alone.write_text(page, encoding="utf-8")
        return alone

    # Without its sound the page would have players of nothing.
    alone.unlink(missing_ok=True)
    _write_archive(archive, {alone.name: page.encode(), **sounds.files})
    return archive


def _write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """A zip file; the same files make the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # Without a date of its own, which would make every archive another.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

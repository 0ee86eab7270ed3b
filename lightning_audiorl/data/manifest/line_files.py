"""Files with a row per line: found, read line by line, and what becomes of lines that cannot be used."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lightning_audiorl.data.manifest.schema import ManifestError

_log = logging.getLogger(__name__)

#: First bytes of files that hold no lines of text in UTF-8, and how to mend that.
_OTHER_KINDS = {
    b"\x1f\x8b": "is compressed (gzip); unpack it",
    b"BZh": "is compressed (bzip2); unpack it",
    b"\xfd7zXZ": "is compressed (xz); unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed (zstd); unpack it",
    b"PK\x03\x04": "is a zip file; unpack it",
    b"PAR1": "is a Parquet file; write it as JSON lines",
    b"\xff\xfe": "is in UTF-16; write it in UTF-8",
    b"\xfe\xff": "is in UTF-16; write it in UTF-8",
}


def manifest_path(path: str | Path) -> Path:
    """`text_file` of a manifest."""
    return text_file(path, "manifest")


def text_file(path: str | Path, kind: str) -> Path:
    """The absolute path of a file of lines in UTF-8.

    Args:
        path: may begin with ``~``.
        kind: what it should be, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ManifestError: it is no file of lines in UTF-8, such as a compressed one.
    """
    try:
        full = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise FileNotFoundError(f"{path}: no such {kind} ({error})") from error
    if full.is_dir():
        raise FileNotFoundError(f"{full}: no such {kind}, it is a folder; name a file in it")
    if not full.is_file():
        raise FileNotFoundError(f"{full}: no such {kind}")

    with full.open("rb") as file:
        start = file.read(8)
    for first, problem in _OTHER_KINDS.items():
        if start.startswith(first):
            raise ManifestError(str(full), "(whole file)", problem, "no lines")
    return full


def numbered_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1 on."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


class BadLines:
    """The lines of one pass over a manifest that cannot be used.

    Args:
        path: of the manifest.
        on_bad_row: error or skip.
        skipped: filled with the number of skipped lines by reason.
    """

    def __init__(
        self, path: str | Path, on_bad_row: Literal["error", "skip"], skipped: Counter[str]
    ) -> None:
        if on_bad_row not in ("error", "skip"):
            raise ValueError(f"{path}: on_bad_row must be error or skip, got {on_bad_row!r}")
        self.path = path
        self.on_bad_row = on_bad_row
        self.skipped = skipped
        self._first = ""

    def add(self, error: ManifestError) -> None:
        """Count a line.

        Raises:
            ManifestError: the very one, unless such lines are skipped.
        """
        if self.on_bad_row == "error":
            raise error
        self.skipped[error.reason] += 1
        self._first = self._first or str(error)
        _log.debug("skipped: %s", error)

    def report(self, num_rows: int, field: str) -> None:
        """Log what was skipped, and refuse a manifest of which nothing is left.

        Args:
            num_rows: that can be used.
            field: that such a manifest wants first.

        Raises:
            ManifestError: there is no row.
        """
        counts = [f"{count} x {reason}" for reason, count in self.skipped.most_common()]
        reasons = ", ".join(counts)

        if self.skipped:
            num_skipped = self.skipped.total()
            _log.warning(
                "%s: skipped %d of %d rows (%s); the first: %s",
                self.path,
                num_skipped,
                num_skipped + num_rows,
                reasons,
                self._first,
            )

        if not num_rows:
            problem = "the manifest has no usable row"
            if self.skipped:
                problem += f" ({reasons}); the first: {self._first}"
            raise ManifestError(str(self.path), field, problem, "empty manifest")

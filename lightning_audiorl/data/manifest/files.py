"""JSONL manifests in the NeMo convention: one row per line, checked completely before training begins."""

from __future__ import annotations

import json
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Literal

from lightning_audiorl.data.manifest.schema import ManifestError, parse_row, to_json
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.types import Utterance

__all__ = ["IndexedManifest", "ManifestError", "ManifestRows", "iter_manifest", "read_manifest", "write_manifest"]

_log = logging.getLogger(__name__)


@dataclass
class _Reader:
    """One pass over a manifest. Holds eight bytes of each id seen, and no row."""

    path: Path
    allow_empty_text: bool
    check_files: bool
    on_bad_row: Literal["error", "skip"]
    skipped: Counter[str] = field(default_factory=Counter)
    allow_no_audio: bool = False

    def __post_init__(self) -> None:
        self.path = Path(self.path).expanduser().absolute()
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such manifest")
        self._name, self._stem, self._folder = str(self.path), self.path.stem, str(self.path.parent)

    def row(self, line: bytes, number: int, check_files: bool) -> Utterance:
        where, default_id = f"{self._name}, line {number}", f"{self._stem}:{number}"
        return parse_row(line, where, self._folder, default_id, self.allow_empty_text, check_files, self.allow_no_audio)

    def rows(self) -> Iterator[tuple[int, int, Utterance]]:
        """Byte offset, line number and row of each usable line."""
        offset, num_rows = 0, 0
        seen: set[bytes] = set()
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                start, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                try:
                    row = self.row(line, number, self.check_files)
                    key = blake2b(row.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                    if key in seen:
                        raise self._duplicate(row.id, number)
                except ManifestError as error:
                    if self.on_bad_row == "error":
                        raise
                    self.skipped[error.reason] += 1
                    _log.debug("skipped: %s", error)
                    continue
                seen.add(key)
                num_rows += 1
                yield start, number, row
        self._report(num_rows)

    def _duplicate(self, row_id: str, number: int) -> ManifestError:
        """Looks up the other line where the error will be read, at the price of reading the file again."""
        used = "in another line" if self.on_bad_row == "skip" else f"in line {self._line_of(row_id)}"
        problem = f"{row_id!r} is already used {used}; ids must be unique"
        return ManifestError(f"{self._name}, line {number}", "id", problem, "duplicate id")

    def _line_of(self, row_id: str) -> int:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and self.row(line, number, check_files=False).id == row_id:
                    return number
        raise ManifestError(self._name, "id", f"{row_id!r} is gone; the file changed while it was read", "changed")

    def _report(self, num_rows: int) -> None:
        if self.skipped:
            total = self.skipped.total()
            reasons = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.most_common())
            _log.warning("%s: skipped %d of %d rows (%s)", self.path, total, total + num_rows, reasons)
        if not num_rows:
            raise ManifestError(self._name, "audio_filepath", "the manifest has no usable row", "empty manifest")


def iter_manifest(
    path: str | Path,
    *,
    allow_empty_text: bool = False,
    check_files: bool = True,
    on_bad_row: Literal["error", "skip"] = "error",
    skipped: Counter[str] | None = None,
) -> Iterator[Utterance]:
    """The rows of a manifest one by one, for manifests that do not fit in memory; else as `read_manifest`.

    Some 70 bytes per row are held (a hash of its id). The manifest is looked for at once; other errors come when their
    line is reached, that of a manifest without rows at the end.
    """
    reader = _Reader(Path(path), allow_empty_text, check_files, on_bad_row, Counter() if skipped is None else skipped)
    return (row for _, _, row in reader.rows())


def read_manifest(
    path: str | Path,
    *,
    allow_empty_text: bool = False,
    check_files: bool = True,
    on_bad_row: Literal["error", "skip"] = "error",
    skipped: Counter[str] | None = None,
) -> list[Utterance]:
    """Every row of a JSONL manifest; blank lines are passed over.

    A row: ``{"audio_filepath": "a.wav", "text": "hello", "duration": 1.5}``, optionally ``offset``, ``lang``,
    ``speaker``, ``keywords`` and ``effects`` (lists of strings) and ``id`` (else ``<manifest stem>:<line number>``).
    Other fields go to ``Utterance.extra``. Relative paths are taken from the manifest's folder; ``synthetic:``
    addresses are kept. Where ``duration`` is missing the file's header is read. Instead of ``audio_filepath`` a row
    may have ``segments``, a list of ``{"audio_filepath", "duration", "offset", "gap"}``, joined in order.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look at once whether each file exists.
        on_bad_row: error stops at the first bad row; skip leaves it out, counts and logs it.
        skipped: filled with the number of skipped rows by reason.

    Raises:
        ManifestError: naming file, line and field; also if no row is left.
        FileNotFoundError: no such manifest.
    """
    return list(
        iter_manifest(
            path,
            allow_empty_text=allow_empty_text,
            check_files=check_files,
            on_bad_row=on_bad_row,
            skipped=skipped,
        )
    )


def write_manifest(rows: Iterable[Utterance], path: str | Path) -> None:
    """Write rows as a manifest that `read_manifest` reads back the same; paths are written as they are."""
    with Path(path).open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(to_json(row), ensure_ascii=False) + "\n")


class ManifestRows(RowSource):
    """The rows of a manifest as a source; the arguments are those of `read_manifest`.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look at once whether each file exists.
        on_bad_row: error, or skip and count in ``skipped``.
    """

    def __init__(
        self,
        path: str,
        allow_empty_text: bool = False,
        check_files: bool = True,
        on_bad_row: Literal["error", "skip"] = "error",
    ) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()
        self._rows = read_manifest(
            path,
            allow_empty_text=allow_empty_text,
            check_files=check_files,
            on_bad_row=on_bad_row,
            skipped=self.skipped,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._rows[check_index(index, len(self._rows), self)]


class IndexedManifest(RowSource):
    """`ManifestRows` for manifests that do not fit in memory: a row is read from the file when it is asked for.

    Every row is read and checked once at the start, then 20 bytes of it are held. Works in processes that were forked,
    and travels to others. The arguments are those of `ManifestRows`, and ``allow_no_audio``: take rows whose list
    ``segments`` is empty.

    Raises:
        ManifestError, FileNotFoundError: at the start, as `read_manifest`; later when the file has changed since.
    """

    def __init__(
        self,
        path: str,
        allow_empty_text: bool = False,
        check_files: bool = True,
        on_bad_row: Literal["error", "skip"] = "error",
        allow_no_audio: bool = False,
    ) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()
        self._reader = _Reader(Path(path), allow_empty_text, check_files, on_bad_row, self.skipped, allow_no_audio)
        self._stamp = self._stamp_of(self._reader.path)
        self._file: BinaryIO | None = None
        self._offsets, self._numbers = array("q"), array("I")
        for offset, number, _ in self._reader.rows():
            self._offsets.append(offset)
            self._numbers.append(number)
        self._end = self._stamp[0]

    @staticmethod
    def _stamp_of(path: Path) -> tuple[int, int]:
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, len(self), self)
        start = self._offsets[index]
        end = self._offsets[index + 1] if index + 1 < len(self) else self._end
        line = os.pread(self._open().fileno(), end - start, start).split(b"\n", 1)[0]
        return self._reader.row(line, self._numbers[index], check_files=False)

    def _open(self) -> BinaryIO:
        if self._file is None:
            path = self._reader.path
            if not path.is_file() or self._stamp_of(path) != self._stamp:
                problem = "the file changed after it was indexed; start again"
                raise ManifestError(str(path), "(whole file)", problem, "changed")
            self._file = path.open("rb")
        return self._file

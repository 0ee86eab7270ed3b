"""JSONL manifests in the NeMo convention: one row per line, checked completely before training begins."""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Literal

from lightning_audiorl.data.manifest.known_lines import known_row
from lightning_audiorl.data.manifest.line_files import BadLines, manifest_path
from lightning_audiorl.data.manifest.schema import ManifestError, parse_row, to_json
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.manifest.words import DEFAULT_LANG
from lightning_audiorl.languages import check_language
from lightning_audiorl.types import Utterance

__all__ = [
    "IndexedManifest",
    "ManifestError",
    "ManifestRows",
    "iter_manifest",
    "read_manifest",
    "write_manifest",
]


@dataclass
class _Reader:
    """One pass over a manifest. Holds eight bytes of each id seen, and no row."""

    path: Path
    allow_empty_text: bool
    check_files: bool
    on_bad_row: Literal["error", "skip"]
    skipped: Counter[str] = field(default_factory=Counter)
    allow_no_audio: bool = False
    lang: str | None = None

    def __post_init__(self) -> None:
        check_language(self.lang or DEFAULT_LANG)
        self.path = manifest_path(self.path)
        self._bad = BadLines(self.path, self.on_bad_row, self.skipped)

        # As text once and for all: every row needs them, and pathlib is slow.
        self._name = str(self.path)
        self._stem = self.path.stem
        self._folder = str(self.path.parent)

    def row(self, line: bytes, number: int, check_files: bool) -> Utterance:
        return parse_row(
            line,
            where=f"{self._name}, line {number}",
            folder=self._folder,
            default_id=f"{self._stem}:{number}",
            allow_empty_text=self.allow_empty_text,
            check_files=check_files,
            allow_no_audio=self.allow_no_audio,
            may_skip=self.on_bad_row == "skip",
            lang=self.lang or DEFAULT_LANG,
        )

    def again(self, line: bytes, number: int) -> Utterance:
        """The row of a line that was checked before, in the same file."""
        row = known_row(
            line,
            where=f"{self._name}, line {number}",
            folder=self._folder,
            default_id=f"{self._stem}:{number}",
            may_skip=self.on_bad_row == "skip",
            lang=self.lang or DEFAULT_LANG,
        )
        return self.row(line, number, check_files=False) if row is None else row

    def rows(self) -> Iterator[tuple[int, int, Utterance]]:
        """Byte offset, line number and row of each usable line."""
        end = 0
        num_rows = 0
        seen: set[bytes] = set()
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                start = end
                end += len(line)
                if not line.strip():
                    continue

                try:
                    row = self._new_row(line, number, seen)
                except ManifestError as error:
                    self._bad.add(error)
                    continue

                num_rows += 1
                yield start, number, row
        self._bad.report(num_rows, "audio_filepath")

    def _new_row(self, line: bytes, number: int, seen: set[bytes]) -> Utterance:
        """The row of a line, whose id is added to those seen; ManifestError where it is among them."""
        row = self.row(line, number, self.check_files)

        # Eight bytes of hash instead of the id: the ids of a hundred million rows would fill the memory.
        row_id = row.id.encode("utf-8", "surrogatepass")
        key = blake2b(row_id, digest_size=8).digest()
        if key in seen:
            raise self._duplicate(row.id, number)
        seen.add(key)
        return row

    def _duplicate(self, row_id: str, number: int) -> ManifestError:
        # The other line is worth reading the file again only where the message is read: skipped rows are counted.
        if self.on_bad_row == "skip":
            used = "in another line"
        else:
            used = f"in line {self._line_of(row_id)}"
        problem = f"{row_id!r} is already used {used}; ids must be unique"
        return ManifestError(f"{self._name}, line {number}", "id", problem, "duplicate id")

    def _line_of(self, row_id: str) -> int:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = self.row(line, number, check_files=False)
                if row.id == row_id:
                    return number
        raise ManifestError(
            self._name, "id", f"{row_id!r} is gone; the file changed while it was read", "changed"
        )


def iter_manifest(
    path: str | Path,
    *,
    allow_empty_text: bool = False,
    check_files: bool = True,
    on_bad_row: Literal["error", "skip"] = "error",
    skipped: Counter[str] | None = None,
    lang: str | None = None,
) -> Iterator[Utterance]:
    """The rows of a manifest one by one, for manifests that do not fit in memory.

    Some 70 bytes per row are held (a hash of its id). The manifest is looked for at once; other errors come when their
    line is reached, that of a manifest without rows at the end. Fields and arguments are those of `read_manifest`.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look whether each file exists.
        on_bad_row: error stops at the first bad row; skip leaves it out, counts and logs it.
        skipped: filled with the number of skipped rows by reason.
        lang: of rows that name none; None is "en".

    Raises:
        ManifestError: naming file, line and field.
        FileNotFoundError: no such manifest.
    """
    reader = _Reader(
        path=Path(path),
        allow_empty_text=allow_empty_text,
        check_files=check_files,
        on_bad_row=on_bad_row,
        skipped=Counter() if skipped is None else skipped,
        lang=lang,
    )
    return (row for _, _, row in reader.rows())


def read_manifest(
    path: str | Path,
    *,
    allow_empty_text: bool = False,
    check_files: bool = True,
    on_bad_row: Literal["error", "skip"] = "error",
    skipped: Counter[str] | None = None,
    lang: str | None = None,
) -> list[Utterance]:
    """Every row of a JSONL manifest; blank lines are passed over.

    A row: ``{"audio_filepath": "a.wav", "text": "hello", "duration": 1.5}``, optionally ``offset``, ``lang``,
    ``speaker``, ``keywords`` and ``effects`` (lists of strings), ``spoken_text`` and ``id`` (else
    ``<manifest stem>:<line number>``). Other fields go to ``Utterance.extra``. Relative paths are taken from the
    manifest's folder; ``synthetic:`` addresses are kept. Where ``duration`` is missing the file's header is read.
    Instead of ``audio_filepath`` a row
    may have ``segments``, a list of ``{"audio_filepath", "duration", "offset", "gap"}``, joined in order.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look at once whether each file exists.
        on_bad_row: error stops at the first bad row; skip leaves it out, counts and logs it.
        skipped: filled with the number of skipped rows by reason.
        lang: of rows that name none; None is "en".

    Raises:
        ManifestError: naming file, line and field; also if no row is left.
        FileNotFoundError: no such manifest.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "train.jsonl"
        ...     _ = path.write_text('{"audio_filepath": "a.wav", "text": "hello", "duration": 1.5}')
        ...     rows = read_manifest(path, check_files=False)
        >>> [(row.id, row.text, row.duration_s) for row in rows]
        [('train:1', 'hello', 1.5)]
    """
    rows = iter_manifest(
        path,
        allow_empty_text=allow_empty_text,
        check_files=check_files,
        on_bad_row=on_bad_row,
        skipped=skipped,
        lang=lang,
    )
    return list(rows)


def write_manifest(rows: Iterable[Utterance], path: str | Path) -> None:
    """Write rows as a manifest that `read_manifest` reads back the same; paths are written as they are.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> row = Utterance(id="a", segments=(), text="hello", duration_s=1.5, speaker="ann")
        >>> with TemporaryDirectory() as folder:
        ...     write_manifest([row], f"{folder}/texts.jsonl")
        ...     print(Path(f"{folder}/texts.jsonl").read_text())
        {"id": "a", "segments": [], "text": "hello", "duration": 1.5, "lang": "en", "speaker": "ann"}
        <BLANKLINE>
    """
    # Half of a surrogate pair becomes its escape: whoever reads the line says which field holds it.
    with Path(path).open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            line = json.dumps(to_json(row), ensure_ascii=False)
            file.write(line + "\n")


class ManifestRows(RowSource):
    """The rows of a manifest as a source, held in memory. A line's fields are those of `read_manifest`.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look at once whether each file exists.
        on_bad_row: error, or skip and count in ``skipped``.
        lang: of rows that name none; None is "en".

    Attributes:
        skipped: number of skipped rows by reason.

    Raises:
        ManifestError: naming file, line and field; also if no row is left.
        FileNotFoundError: no such manifest.
    """

    def __init__(
        self,
        path: str,
        allow_empty_text: bool = False,
        check_files: bool = True,
        on_bad_row: Literal["error", "skip"] = "error",
        lang: str | None = None,
    ) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()

        self._rows = read_manifest(
            path,
            allow_empty_text=allow_empty_text,
            check_files=check_files,
            on_bad_row=on_bad_row,
            skipped=self.skipped,
            lang=lang,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._rows[check_index(index, len(self._rows), self)]


class IndexedManifest(RowSource):
    """`ManifestRows` for manifests that do not fit in memory: a row is read from the file when it is asked for.

    Every row is read and checked once at the start, then 20 bytes of it are held. Works in processes that were forked,
    and travels to others.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look at once whether each file exists.
        on_bad_row: error, or skip and count in ``skipped``.
        allow_no_audio: take rows whose list ``segments`` is empty.
        lang: of rows that name none; None is "en".

    Attributes:
        skipped: number of skipped rows by reason.

    Raises:
        ManifestError: at the start, naming file, line and field; later when the file has changed since.
        FileNotFoundError: no such manifest.
    """

    def __init__(
        self,
        path: str,
        allow_empty_text: bool = False,
        check_files: bool = True,
        on_bad_row: Literal["error", "skip"] = "error",
        allow_no_audio: bool = False,
        lang: str | None = None,
    ) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()
        self._reader = _Reader(
            path=Path(path),
            allow_empty_text=allow_empty_text,
            check_files=check_files,
            on_bad_row=on_bad_row,
            skipped=self.skipped,
            allow_no_audio=allow_no_audio,
            lang=lang,
        )
        self._file: BinaryIO | None = None

        # Taken before the lines are read: a change while they are read is then noticed, too.
        self._stamp = self._stamp_of(self._reader.path)
        self._end = self._stamp[0]

        self._offsets = array("q")
        self._numbers = array("I")
        for offset, number, _ in self._reader.rows():
            self._offsets.append(offset)
            self._numbers.append(number)

    @staticmethod
    def _stamp_of(path: Path) -> tuple[int, int]:
        """Size in bytes and modification time: what tells that a file has changed."""
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns

    def __getstate__(self) -> dict[str, Any]:
        # An open file does not travel to another process, which opens its own.
        return self.__dict__ | {"_file": None}

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, len(self), self)
        start = self._offsets[index]
        is_last = index + 1 == len(self)
        end = self._end if is_last else self._offsets[index + 1]

        # pread moves no file position, which forked processes share. Skipped lines may stand behind the row's own.
        file = self._open()
        stretch = os.pread(file.fileno(), end - start, start)
        line = stretch.split(b"\n", 1)[0]
        return self._reader.again(line, self._numbers[index])

    def __iter__(self) -> Iterator[Utterance]:
        # All rows in their order: the file is read in large pieces, and not row by row.
        self._open()
        places = zip(self._offsets, self._numbers, strict=True)
        offset, number = next(places)
        end = 0
        with self._reader.path.open("rb") as file:
            for line in file:
                start = end
                end += len(line)
                if start == offset:
                    yield self._reader.again(line, number)
                    offset, number = next(places, (-1, 0))

    def _open(self) -> BinaryIO:
        if self._file is None:
            path = self._reader.path
            if not path.is_file() or self._stamp_of(path) != self._stamp:
                problem = "the file changed after it was indexed; start again"
                raise ManifestError(str(path), "(whole file)", problem, "changed")
            self._file = path.open("rb")
        return self._file

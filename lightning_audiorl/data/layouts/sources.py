"""Row sources over data sets that are used where they lie: the rows are found and checked once, and remembered.

What a layout finds is written as a manifest into a cache folder, under a name made of the settings and of size and time
of the files that it was found in. A source is an `IndexedManifest` of that: rows by number, 20 bytes of each in memory,
exact resume, any number of workers and ranks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from lightning_audiorl.data.layouts.base import Checked, Layout
from lightning_audiorl.data.layouts.hf import HuggingFace
from lightning_audiorl.data.layouts.lhotse_cuts import Lhotse
from lightning_audiorl.data.layouts.tar import Tar
from lightning_audiorl.data.manifest.files import IndexedManifest, write_manifest
from lightning_audiorl.data.sound.places import file_of, name_of
from lightning_audiorl.types import Origin, Utterance

_log = logging.getLogger(__name__)

#: To be numbered anew when what is written of a layout changes.
_FORMAT = 1


def default_rows_cache() -> Path:
    """``$XDG_CACHE_HOME/lightning_audiorl/rows``; without that variable under ``~/.cache``."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "lightning_audiorl" / "rows"


class LayoutRows(IndexedManifest):
    """The rows of a layout.

    Args:
        layout: finds them.
        lang: of rows that name none; None is "en".
        allow_empty_text: take rows without words (non-speech).
        on_bad_row: error stops at the first bad row; skip leaves it out and counts it in ``skipped``, and does so with
            audio that turns out to be bad when it is read.
        cache: folder in which the rows are remembered; None is ``~/.cache/lightning_audiorl/rows``.

    Raises:
        ManifestError: a bad row, naming file, line or member, and field.
    """

    def __init__(
        self,
        layout: Layout,
        lang: str | None = None,
        allow_empty_text: bool = False,
        on_bad_row: Literal["error", "skip"] = "error",
        cache: str | None = None,
    ) -> None:
        if on_bad_row not in ("error", "skip"):
            raise ValueError(
                f"{layout.source}: on_bad_row must be error or skip, got {on_bad_row!r}"
            )
        self.layout = layout
        self._may_skip = on_bad_row == "skip"
        folder = default_rows_cache() if cache is None else Path(cache).expanduser()
        checked = Checked(layout, lang, allow_empty_text, on_bad_row)
        path, skipped = _remembered(checked, folder)

        # What was checked when it was written need not be looked for again.
        super().__init__(str(path), allow_empty_text, check_files=False)
        self.skipped.update(skipped)
        # What a model card and messages call it.
        self.path = layout.source

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._placed(super().__getitem__(index))

    def __iter__(self) -> Iterator[Utterance]:
        return map(self._placed, super().__iter__())

    def _placed(self, row: Utterance) -> Utterance:
        """The row with its place in the data set, in place of the line in the cache."""
        places = [
            f"{file_of(segment.audio_filepath)}, {name_of(segment.audio_filepath)}"
            for segment in row.segments[:1]
        ]
        where = f"{type(self).__name__} {self.layout.source}, {', '.join(places)}"
        return replace(row, origin=Origin(where, self._may_skip))


def _remembered(checked: Checked, folder: Path) -> tuple[Path, Counter[str]]:
    """The manifest of a layout's rows in the cache, and how many were skipped; written where it is not there."""
    path = folder / f"{_key(checked)}.jsonl"
    counts = path.with_suffix(".json")
    if not path.is_file() or not counts.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _log.info("%s: rows are read for the first time", checked.layout.source)
        # Beside it, then moved: several processes may begin at once, and one may be killed.
        own = folder / f".writing-{uuid.uuid4().hex}"
        try:
            write_manifest(checked.rows(), own)
            counts_text = json.dumps(checked.skipped)
            counts.with_suffix(f".{own.name}").write_text(counts_text, encoding="utf-8")
            counts.with_suffix(f".{own.name}").replace(counts)
            _placed_first(own, path)
        finally:
            own.unlink(missing_ok=True)
        return path, checked.skipped

    skipped = Counter(json.loads(counts.read_text(encoding="utf-8")))
    if skipped:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.most_common())
        _log.warning(
            "%s: %d rows are left out (%s)", checked.layout.source, skipped.total(), reasons
        )
    return path, skipped


def _placed_first(own: Path, path: Path) -> None:
    """Give a file its name, unless another has it: ranks that begin at once have the first one's rows open by then."""
    try:
        os.link(own, path)
    except FileExistsError:
        return
    except OSError:
        # A file system without links.
        if not path.exists():
            own.replace(path)


def _key(checked: Checked) -> str:
    """A hash of all that decides the rows: settings, and size and time of the files that they are found in."""
    files = []
    for path in checked.layout.inputs():
        stat = path.stat()
        files.append([str(path), stat.st_size, stat.st_mtime_ns])
    # Layouts are dataclasses, which the abstract one cannot say.
    settings = asdict(checked.layout)  # type: ignore[call-overload]
    described = [
        _FORMAT,
        type(checked.layout).__name__,
        settings,
        str(Path(checked.layout.source).absolute()),
        checked.lang,
        checked.allow_empty_text,
        checked.on_bad_row,
        files,
    ]
    text = json.dumps(described, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


class HfDataset(LayoutRows):
    """Rows of a data set of Hugging Face's ``datasets``; needs the extra ``datasets``.

    Clips are read by soundfile out of the Arrow files: no torchcodec, no FFmpeg.

    Args:
        path: a folder that ``save_to_disk`` wrote, a folder of Parquet files, or a hub id.
        split: such as train; none: the only one there is.
        name: configuration of a set of the hub, such as a language.
        audio: the column of audio; none: the only one there is.
        text: the column of text; none: the first of text, sentence, transcription, transcript, normalized_text.
        speaker: the column of the speaker; none: the first of speaker, speaker_id, client_id, where there is one.
        row_id: the column of the id; none: id, utterance_id or segment_id, else ``<split>-<number>``.
        lang: of rows that name none; None is "en".
        allow_empty_text: take rows without words (non-speech).
        on_bad_row: error, or skip and count in ``skipped``.
        cache: folder in which the rows are remembered; None is ``~/.cache/lightning_audiorl/rows``.
        streaming: refused.

    Raises:
        ImportError: the extra is missing.
        ValueError: a column or split that is not there; streaming.
        ManifestError: a bad row, naming row and field.
    """

    def __init__(
        self,
        path: str,
        split: str | None = None,
        name: str | None = None,
        audio: str | None = None,
        text: str | None = None,
        speaker: str | None = None,
        row_id: str | None = None,
        lang: str | None = None,
        allow_empty_text: bool = False,
        on_bad_row: Literal["error", "skip"] = "error",
        cache: str | None = None,
        streaming: bool = False,
    ) -> None:
        if streaming:
            raise ValueError(
                f"HfDataset {path}: streaming gives rows in one order only; here a batch is a function of the step, "
                "so that runs resume exactly; leave streaming out, and the set is downloaded once"
            )
        layout = HuggingFace(path, split, name, audio, text, speaker, row_id)
        super().__init__(layout, lang, allow_empty_text, on_bad_row, cache)


class TarShards(LayoutRows):
    """Rows of tar shards, NeMo's or WebDataset's, read in place.

    Args:
        shards: a shard, a folder of shards, a pattern (``audio_*.tar``), or a range such as ``audio_{0..15}.tar``.
        manifest: NeMo's manifest of the shards, or a range of such; none: the shards are WebDataset's.
        text: field of WebDataset's json that holds the text; none: a member of text, or the field ``text``.
        lang: of rows that name none; None is "en".
        allow_empty_text: take rows without words (non-speech).
        on_bad_row: error, or skip and count in ``skipped``.
        cache: folder in which the rows are remembered; None is ``~/.cache/lightning_audiorl/rows``.

    Raises:
        FileNotFoundError: a shard or manifest that is not there.
        ManifestError: a bad row, naming shard and member, or manifest and line, and field.
    """

    def __init__(
        self,
        shards: str,
        manifest: str | None = None,
        text: str | None = None,
        lang: str | None = None,
        allow_empty_text: bool = False,
        on_bad_row: Literal["error", "skip"] = "error",
        cache: str | None = None,
    ) -> None:
        super().__init__(Tar(shards, manifest, text), lang, allow_empty_text, on_bad_row, cache)


class LhotseCuts(LayoutRows):
    """Rows of lhotse: cuts, a shar folder, or recordings with supervisions. Rates and lengths are checked.

    Args:
        cuts: ``cuts.jsonl.gz``, a shar folder, or a folder with recordings and supervisions.
        lang: of rows that name none; None is "en".
        allow_empty_text: take rows without words (non-speech).
        on_bad_row: error, or skip and count in ``skipped``.
        cache: folder in which the rows are remembered; None is ``~/.cache/lightning_audiorl/rows``.

    Raises:
        FileNotFoundError: there are no cuts.
        ManifestError: a bad row, naming file, line and field.
    """

    def __init__(
        self,
        cuts: str,
        lang: str | None = None,
        allow_empty_text: bool = False,
        on_bad_row: Literal["error", "skip"] = "error",
        cache: str | None = None,
    ) -> None:
        super().__init__(Lhotse(cuts), lang, allow_empty_text, on_bad_row, cache)

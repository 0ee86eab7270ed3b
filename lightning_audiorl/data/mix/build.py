"""A training mix of subsets, built once into a folder that is named by a hash of all that went into it."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_audiorl.data.audio.bad_rows import OnBadRow
from lightning_audiorl.data.audio.content_hash import ContentHashes, EvaluationContent
from lightning_audiorl.data.audio.reading import AudioError
from lightning_audiorl.data.mix.spec import RLSubset, check_subsets, mix_key
from lightning_audiorl.data.mix.summary import short_text
from lightning_audiorl.data.mix.writer import AUDIO_FILES, MixWriter
from lightning_audiorl.data.sound.places import stamp
from lightning_audiorl.types import Utterance

__all__ = ["MixPlan", "RLSubset", "changed_audio", "read_summary"]

#: A folder of a build that was killed is removed by a later build when it is older than this.
_ABANDONED_S = 24 * 3600.0


@dataclass
class MixPlan:
    """A training mix to be built, and what must stay out of it.

    Args:
        subsets: by name.
        kept_out: rows that no training row may share audio with, by the name of their set, such as ``val/short``.
        cache_dir: folder of built mixes.
        seed: draws among rows of equal rank.
        content_cache: see `ContentHashes`.
        on_bad_row: error, or skip rows that cannot be used (and count them): lines of the manifests, and audio.
    """

    subsets: Mapping[str, RLSubset]
    kept_out: Mapping[str, Sequence[Utterance]] = field(default_factory=dict)
    cache_dir: str = "runs/rl_data"
    seed: int = 0
    content_cache: str | None = None
    on_bad_row: OnBadRow = "error"

    def folder(self) -> Path:
        """Where the mix is, or will be, for the inputs as they are now.

        Raises:
            ValueError: see `check_subsets`.
            FileNotFoundError: a manifest or hypotheses file that is not there.
        """
        check_subsets(self.subsets)
        with ContentHashes(self.content_cache) as hashes:
            return self._folder(EvaluationContent(self.kept_out, hashes))

    def build(self) -> Path:
        """Build the mix, unless a folder of the same inputs stands there; returns the folder.

        It holds ``<subset>.jsonl`` (manifests, best rows first; each row's ``chosen_because`` says why it is there),
        ``summary.json`` and ``summary.md``. It appears whole or not at all. Where the audio of a training row has
        other content than at building time, it is built again.

        Raises:
            ValueError: see `check_subsets`; a subset that is empty; hypotheses of other rows.
            AudioError, ManifestError, FileNotFoundError: bad input.
        """
        check_subsets(self.subsets)
        with ContentHashes(self.content_cache) as hashes:
            content = EvaluationContent(self.kept_out, hashes)
            folder = self._folder(content)

            # The folder's name says nothing of the training audio, which would have to be read whole for it.
            changed = changed_audio(folder, hashes) if folder.is_dir() else None
            if changed is not None:
                rank_zero_info(f"{folder}: built again, as {changed}")
            if changed is not None or not folder.is_dir():
                num_kept_out = {name: len(rows) for name, rows in self.kept_out.items()}
                writer = MixWriter(self.subsets, content, num_kept_out, self.seed, self.on_bad_row)
                _build_at(
                    folder,
                    changed is not None,
                    lambda temporary: writer.write(temporary, folder.name),
                )

        rank_zero_info(short_text(read_summary(folder), str(folder)))
        return folder

    def _folder(self, content: EvaluationContent) -> Path:
        return Path(self.cache_dir).expanduser() / mix_key(
            self.subsets, content.identity, self.seed, self.on_bad_row
        )


def read_summary(folder: str | Path) -> dict[str, Any]:
    """``summary.json`` of a built mix; `summarise` and `SubsetSummary` say what it holds."""
    text = (Path(folder) / "summary.json").read_text(encoding="utf-8")
    summary: dict[str, Any] = json.loads(text)
    return summary


def changed_audio(folder: Path, hashes: ContentHashes) -> str | None:
    """The first audio file of a built mix whose content is not what it was, in words; None when all are the same."""
    with (folder / AUDIO_FILES).open(encoding="utf-8") as file:
        for line in file:
            path, size, mtime_ns, content = json.loads(line)
            try:
                # Only a file that was touched is read.
                untouched = stamp(path) == (size, mtime_ns)
                same = untouched or hashes.file(path).hash == content
            except (OSError, AudioError) as error:
                return f"{path} cannot be read any more ({error})"

            if not same:
                return f"{path} holds other audio now"
    return None


def _build_at(folder: Path, replace_it: bool, write: Callable[[Path], None]) -> None:
    """Build beside ``folder`` and move into place, so that a killed build leaves nothing that looks finished."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(".building-*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)

    temporary = folder.parent / f".building-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        write(temporary)
        if replace_it:
            old = folder.parent / f".building-{uuid.uuid4().hex}"
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            try:
                temporary.rename(folder)
            except OSError:
                # Where the folder is there now, another process has built the same.
                if not folder.is_dir():
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""Chooses the rows of every subset of a mix, refuses those that hold evaluation audio, and writes the rest."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from lightning.pytorch.utilities import rank_zero_info

from lightning_audiorl.data.audio.bad_rows import READ_FROM, OnBadRow, located, may_skip
from lightning_audiorl.data.audio.content_hash import EvaluationContent, Stretch
from lightning_audiorl.data.audio.reading import AudioError
from lightning_audiorl.data.hypotheses.reader import HypothesisFiles
from lightning_audiorl.data.manifest.files import IndexedManifest, write_manifest
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.manifest.targets import all_segments
from lightning_audiorl.data.mix.selection import (
    Candidate,
    Choice,
    Chosen,
    SubsetBuilder,
    choose_many,
    fill,
)
from lightning_audiorl.data.mix.selection.by_metadata import Everything
from lightning_audiorl.data.mix.spec import RLSubset, building_order, shares
from lightning_audiorl.data.mix.summary import (
    NUM_NAMED,
    SubsetSummary,
    markdown,
    sources_of,
    summarise,
)
from lightning_audiorl.data.sound.places import absolute, stamp
from lightning_audiorl.types import Segment, Utterance

_log = logging.getLogger(__name__)

#: Path, size, modification time and content hash of every audio file that was looked at.
AUDIO_FILES = "audio_files.ndjson"
_RESERVE = 0.25
_LOG_EVERY_S = 10.0


#: Subsets of the same rows and hypotheses: a manifest with its setting, or the source itself, and the files.
_SourceKey = tuple[str, bool] | int
_GroupKey = tuple[_SourceKey, tuple[str, ...]]


@dataclass
class _Taken:
    """What was found for one subset: choices to write, and why others were refused, or are bad, by row number."""

    chosen: Chosen
    choices: list[Choice] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)

    def lacks(self, builder: SubsetBuilder, reserve: float) -> bool:
        """Whether refusals used up the reserve of a cell, so that a longer look may find more rows."""
        offered = Counter(choice.cell for choice in self.chosen.choices)
        taken = Counter(choice.cell for choice in self.choices)
        for cell, num_offered in offered.items():
            places = builder.places(cell)
            if places is None or taken[cell] >= places:
                continue
            # A cell that offered less than its places and reserve has no more rows to give.
            if num_offered >= math.ceil(places * (1 + reserve)):
                return True
        return False


class MixWriter:
    """One building of a mix.

    Args:
        subsets: by name.
        content: the audio that must stay out.
        kept_out: number of rows of each set in ``content``, for the summary.
        seed: draws among rows of equal rank.
        on_bad_row: error, or skip rows that cannot be used.
    """

    def __init__(
        self,
        subsets: Mapping[str, RLSubset],
        content: EvaluationContent,
        kept_out: Mapping[str, int],
        seed: int,
        on_bad_row: OnBadRow = "error",
    ) -> None:
        self.subsets = subsets
        self.content = content
        self.kept_out = kept_out
        self.seed = seed
        self.on_bad_row = on_bad_row
        # Copies, as `matches` changes a builder.
        self.builders: dict[str, SubsetBuilder] = {
            name: Everything() if subset.builder is None else deepcopy(subset.builder)
            for name, subset in subsets.items()
        }
        #: Ids of rows refused in any subset: what is made from them is refused too.
        self.refused_ids: set[str] = set()
        # Ids that written rows are made from.
        self._made_from: set[str] = set()
        self._sources: dict[_SourceKey, RowSource] = {}
        # Paths in `AUDIO_FILES`, and that file.
        self._listed: set[str] = set()
        self._list: IO[str]
        self._next_log_s = time.monotonic() + _LOG_EVERY_S

    def write(self, folder: Path, key: str) -> None:
        """Write all files of the mix into ``folder``; ``key`` goes into the summary.

        Everything is done once more where a row was written before one that it is made from was refused.

        Raises:
            ValueError: an empty subset, saying which rule removed how many rows; ids that are not unique.
            HypothesisError, AudioError, ManifestError: see the readers.
        """
        while True:
            self._made_from.clear()
            self._listed.clear()
            summaries: dict[str, SubsetSummary] = {}
            with (folder / AUDIO_FILES).open("w", encoding="utf-8") as self._list:
                for wave in building_order(self.subsets):
                    for names in self._groups(wave):
                        summaries |= self._write_group(names, folder)

            # Refused ids only grow, so this ends.
            if self._made_from.isdisjoint(self.refused_ids):
                break

        in_order = {name: summaries[name] for name in self.subsets}
        summary = summarise(in_order, key, self.seed, self.kept_out)
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        (folder / "summary.json").write_text(text, encoding="utf-8", errors="backslashreplace")
        (folder / "summary.md").write_text(
            markdown(summary), encoding="utf-8", errors="backslashreplace"
        )

    def _groups(self, names: Iterable[str]) -> list[list[str]]:
        """Subsets of the same rows and hypotheses, which one pass serves."""
        groups: dict[_GroupKey, list[str]] = {}
        for name in names:
            key = (_source_key(self.subsets[name]), self._hypotheses(name))
            groups.setdefault(key, []).append(name)

        # Rules that ask for no hypotheses go along with those that do: the rows are read once.
        for key in [key for key in groups if not key[1]]:
            other = next((one for one in groups if one[0] == key[0] and one[1]), None)
            if other is not None:
                groups[other] += groups.pop(key)
        return list(groups.values())

    def _hypotheses(self, name: str) -> tuple[str, ...]:
        if not self.builders[name].needs_hypotheses:
            return ()
        return tuple(self.subsets[name].hypotheses or ())

    def _rows(self, subset: RLSubset) -> RowSource:
        """The rows of a subset's source; a manifest is opened once."""
        if not isinstance(subset.source, str):
            return subset.source

        key = _source_key(subset)
        if key not in self._sources:
            self._sources[key] = IndexedManifest(
                subset.source,
                allow_empty_text=subset.allow_empty_text,
                on_bad_row=self.on_bad_row,
            )
        return self._sources[key]

    def _write_group(self, names: Sequence[str], folder: Path) -> dict[str, SubsetSummary]:
        """Choose and write the rows of subsets that one pass serves."""
        rows = self._rows(self.subsets[names[0]])
        for name in names:
            like = self.builders[name].like
            if like is not None:
                self.builders[name].matches(open_built(folder, like))

        taken = self._choose(names, rows)
        return {name: self._write_subset(name, taken[name], rows, folder) for name in names}

    def _choose(self, names: Sequence[str], rows: RowSource) -> dict[str, _Taken]:
        """The rows of each subset, refused ones replaced; looks at the source again where the reserve is used up."""
        paths = next((paths for name in names if (paths := self._hypotheses(name))), ())
        files = HypothesisFiles(paths) if paths else None
        who = ", ".join(names)

        def plain() -> Iterator[Candidate]:
            for number, row in enumerate(rows):
                self._log(f"{who}: {number:,} rows read")
                yield Candidate(number, row)

        def candidates() -> Iterator[Candidate]:
            asked = any(self._hypotheses(name) for name in unfilled)
            if files is None or not asked:
                yield from plain()
                return
            for candidate in plain():
                yield Candidate(candidate.number, candidate.row, files.of(candidate.row))

        found: dict[str, _Taken] = {}
        reserve = _RESERVE
        unfilled = list(names)
        while unfilled:
            builders = {name: self.builders[name] for name in unfilled}
            chosen_by_name = choose_many(builders, candidates, self.seed, reserve, surveyed=plain)
            for name, chosen in chosen_by_name.items():
                found[name] = self._fill(name, chosen, rows)

            unfilled = [name for name in unfilled if found[name].lacks(builders[name], reserve)]
            reserve *= 4

        for name, taken in found.items():
            if not taken.choices and taken.bad:
                raise ValueError(
                    f"subset {name!r} is empty: the audio of {len(taken.bad):,} rows that its rule admits is bad; "
                    f"{next(iter(taken.bad.values()))}"
                )
            if not taken.choices:
                num_seen = taken.chosen.num_seen
                num_refused = len(taken.refused)
                first_refusal = next(iter(taken.refused.values()))
                raise ValueError(
                    f"subset {name!r} is empty: of {num_seen:,} rows, all {num_refused:,} that its rule admits "
                    f"hold evaluation audio; {first_refusal}; give other rows"
                )
        return found

    def _fill(self, name: str, chosen: Chosen, rows: RowSource) -> _Taken:
        """As many of the choices as the builder has places for, without those that hold evaluation audio."""
        taken = _Taken(chosen)

        def admit(choice: Choice) -> bool:
            self._log(
                f"{name}: audio of {len(self._listed):,} files compared with the evaluation sets"
            )
            row = rows[choice.number]
            try:
                why = self._refusal(row)
            except AudioError as error:
                if not may_skip(row, self.on_bad_row):
                    raise
                taken.bad[choice.number] = located(row, error)
                return False

            if why is not None:
                taken.refused[choice.number] = why
            return why is None

        taken.choices = fill(self.builders[name], chosen.choices, admit)
        return taken

    def _refusal(self, row: Utterance) -> str | None:
        """Why the row may not enter; None where it may."""
        stretches = self._hear(row)
        source = next((source for source in sources_of(row) if source in self.refused_ids), None)
        if source is not None:
            why = f"row {row.id!r}: is made from row {source!r}, which was refused"
        else:
            collision = self.content.collision(row, stretches)
            if collision is None:
                return None
            why = str(collision)

        self.refused_ids.add(row.id)
        return why

    def _hear(self, row: Utterance) -> list[Stretch]:
        """What the row plays; its files are listed, so that a later run sees whether they changed."""
        stretches = self.content.hashes.row(row)
        for segment in all_segments(row):
            path = _absolute(segment).audio_filepath
            # Made-up sounds are no files.
            if path in self._listed or path.startswith(PREFIX):
                continue

            self._listed.add(path)
            size, mtime_ns = stamp(path)
            content = self.content.hashes.file(path).hash
            self._list.write(json.dumps([path, size, mtime_ns, content]) + "\n")
        return stretches

    def _write_subset(
        self, name: str, taken: _Taken, rows: RowSource, folder: Path
    ) -> SubsetSummary:
        builder = self.builders[name]
        removed = dict(taken.chosen.removed.most_common())
        if taken.bad:
            removed["bad audio"] = len(taken.bad)
            first = next(iter(taken.bad.values()))
            _log.warning(
                "%s: left out %d rows, whose audio is bad; the first: %s",
                name,
                len(taken.bad),
                first,
            )

        summary = SubsetSummary(
            share=shares(self.subsets)[name],
            builder=type(builder).__name__,
            wanted=builder.num_rows,
            seen=taken.chosen.num_seen,
            removed=removed,
            refused=len(taken.refused),
            named=list(taken.refused.values())[:NUM_NAMED],
        )

        num_rows = len(taken.choices)

        # The rows are counted as they go into the file, so that no more than one is in memory.
        def written() -> Iterator[Utterance]:
            ids: set[str] = set()
            for choice in taken.choices:
                row = rows[choice.number]
                if row.id in ids:
                    raise ValueError(
                        f"subset {name!r}: two rows of its source have the id {row.id!r}; make ids unique"
                    )
                ids.add(row.id)
                self._log(f"{name}: {len(ids):,} of {num_rows:,} rows written")
                self._made_from.update(sources_of(row))
                summary.add(row, self.content.hashes.row(row))

                # The manifest stands in a folder of its own: relative paths would start there.
                segments = tuple(_absolute(segment) for segment in row.segments)
                extra = {**row.extra, "subset": name, "chosen_because": choice.reason}
                if row.origin is not None and row.origin.skip:
                    extra[READ_FROM] = row.origin.where
                yield replace(row, segments=segments, extra=extra)

        write_manifest(written(), folder / f"{name}.jsonl")
        return summary

    def _log(self, text: str) -> None:
        """At most one line every few seconds."""
        if time.monotonic() >= self._next_log_s:
            self._next_log_s = time.monotonic() + _LOG_EVERY_S
            rank_zero_info(text)


def open_built(folder: Path, name: str) -> IndexedManifest:
    """The rows of one subset of a built mix."""
    path = str(folder / f"{name}.jsonl")
    return IndexedManifest(path, allow_empty_text=True, check_files=False, allow_no_audio=True)


def _source_key(subset: RLSubset) -> _SourceKey:
    """The same for subsets of the same rows."""
    if isinstance(subset.source, str):
        return str(Path(subset.source).expanduser().absolute()), subset.allow_empty_text
    return id(subset.source)


def _absolute(segment: Segment) -> Segment:
    path = segment.audio_filepath
    if path.startswith(PREFIX):
        return segment
    return replace(segment, audio_filepath=absolute(path))

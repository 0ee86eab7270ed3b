"""Rows joined from other rows, where the data lacks them: long audio, and phrases said again and again.

Nothing is written: a made row names the files of its parts, and ``extra["sources"]`` lists the ids it is made of.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch

from lightning_audiorl.data.audio.effects import refuse_effects, source_ids
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.transforms.draws import check_span, seconds, settings_name, whole
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform
from lightning_audiorl.text import normaliser_for
from lightning_audiorl.types import Utterance

_log = logging.getLogger(__name__)

#: Offsets and durations of neighbours in one recording may disagree by this much from rounding.
_ROUNDING_S = 0.001


def join_texts(texts: Sequence[str], lang: str) -> str:
    """Texts one after the other: with spaces, or without where errors are counted in characters (zh, ja)."""
    return ("" if normaliser_for(lang).unit == "char" else " ").join(text for text in texts if text)


def _join(rows: Sequence[Utterance], gaps_s: Sequence[float], row_id: str) -> Utterance:
    """``rows`` in order, with ``gaps_s[i]`` of silence put before row i."""
    segments = []
    for row, gap_s in zip(rows, gaps_s, strict=True):
        first, *others = row.segments
        segments += [replace(first, gap_s=first.gap_s + gap_s), *others]
    speakers = {row.speaker for row in rows}
    return Utterance(
        id=row_id,
        segments=tuple(segments),
        text=join_texts([row.text for row in rows], rows[0].lang),
        duration_s=round(sum(gaps_s) + sum(row.duration_s for row in rows), 9),
        lang=rows[0].lang,
        speaker=speakers.pop() if len(speakers) == 1 else "",
        keywords=tuple(dict.fromkeys(word for row in rows for word in row.keywords)),
        extra={"sources": source_ids(*rows)},
    )


class JoinedNeighbours(RowSource):
    """Long audio from neighbouring utterances of one recording or one speaker.

    The rows of a recording (or speaker) and language are cut into stretches of two rows or more, from the
    recording's start or from a drawn row of the speaker on. A stretch ends when it has reached a length drawn from
    ``min_s`` to ``max_s``. No source row is in two stretches. The source is read through when a row is first asked for;
    only row numbers are kept.

    Args:
        source: the rows; with ``by="recording"`` each one stretch of a file, with ``by="speaker"`` each has a speaker.
        min_s: shortest made row, in seconds.
        max_s: longest made row, in seconds.
        by: recording joins rows cut from the same file, in order of offset (rows that overlap are not joined); speaker
            joins rows of one speaker in the order of the source.
        gap_s: range of the silence between two rows, in steps of 0.01 s; None keeps the true gap between two rows of a
            recording (as silence: what was said there is not in the text).
        num_rows: how many of the stretches, a drawn choice; None takes all.
        seed: another seed gives other stretches.

    Raises:
        ValueError: for bad settings; when a row is asked for: a source row without recording or speaker, one with
            effects, or fewer than ``num_rows`` stretches.
    """

    def __init__(
        self,
        source: RowSource,
        min_s: float = 20.0,
        max_s: float = 30.0,
        by: Literal["recording", "speaker"] = "recording",
        gap_s: tuple[float, float] | None = None,
        num_rows: int | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 < min_s <= max_s or (num_rows is not None and num_rows < 1):
            raise ValueError(
                f"JoinedNeighbours: want 0 < min_s <= max_s and num_rows >= 1, got {min_s}, {max_s}, {num_rows}"
            )
        if by not in ("recording", "speaker"):
            raise ValueError(f"JoinedNeighbours.by: use recording or speaker, got {by!r}")
        if gap_s is None and by == "speaker":
            raise ValueError(
                "JoinedNeighbours.gap_s: by=speaker needs a range such as (0.2, 0.6): there is no true gap"
            )
        self.source, self.min_s, self.max_s, self.by = source, min_s, max_s, by
        self.num_rows, self.seed = num_rows, seed
        self.gap_s = None if gap_s is None else check_span("JoinedNeighbours.gap_s", gap_s, 0.0)
        self._name = f"joined-{settings_name(seed, float(min_s), float(max_s), by, self.gap_s)}"

    def __len__(self) -> int:
        return len(self._stretches)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        rows = [self.source[number] for number in self._stretches[check_index(index, len(self), self)]]
        gaps_s = [self._gap_s(one, other) or 0.0 for one, other in pairwise(rows)]
        return _join(rows, [0.0, *gaps_s], f"{rows[0].id}+{self._name}")

    @cached_property
    def _stretches(self) -> Sequence[list[int]]:
        """Row numbers of each made row."""
        found = [stretch for run in self._runs() for stretch in self._cut(run)]
        if len(found) < (self.num_rows or 1):
            hint = ", or use by=speaker" if self.by == "recording" else ""
            raise ValueError(
                f"JoinedNeighbours: the source's {len(self.source)} rows give {len(found)} rows of {self.min_s} to "
                f"{self.max_s} s by {self.by}, at least {self.num_rows or 1} wanted; lower num_rows or min_s, raise "
                f"max_s, give more neighbouring rows{hint}"
            )
        if self.num_rows is None:
            return found
        order = torch.randperm(len(found), generator=keyed_generator(self._name, "choice")).tolist()
        return [found[number] for number in sorted(order[: self.num_rows])]

    def _runs(self) -> Iterator[list[int]]:
        """Row numbers in the order that they may be joined in; a drawn row parts a speaker's rows into two runs."""
        groups: dict[tuple[str, str], list[int]] = {}
        offsets_s: list[float] = []
        for number, row in enumerate(self.source):
            groups.setdefault((self._group_name(row), row.lang), []).append(number)
            offsets_s.append(row.segments[0].offset_s if self.by == "recording" else 0.0)
        for (name, lang), group in groups.items():
            if self.by == "recording":
                yield sorted(group, key=offsets_s.__getitem__)
            else:
                start = int(len(group) * float(keyed_uniform(1, self._name, "start", name, lang)))
                yield group[start:]
                yield group[:start]

    def _group_name(self, row: Utterance) -> str:
        """File or speaker; for a row that lacks it, a ValueError that names the row."""
        refuse_effects(row, self)
        if self.by == "speaker":
            if not row.speaker:
                raise ValueError(
                    f"JoinedNeighbours: row {row.id!r} names no speaker; add the field, or use by=recording"
                )
            return row.speaker
        if len(row.segments) != 1 or row.segments[0].audio_filepath.startswith(PREFIX):
            raise ValueError(
                f"JoinedNeighbours: row {row.id!r} is not one stretch of one file, so it has no place in a recording; "
                "leave it out, or use by=speaker"
            )
        return row.segments[0].audio_filepath

    def _gap_s(self, row: Utterance, other: Utterance) -> float | None:
        """Silence to put between two rows, in seconds; None where they overlap in their recording."""
        if self.by == "recording":
            one, two = row.segments[0], other.segments[0]
            true_gap_s = round(two.offset_s - one.offset_s - (row.duration_s - one.gap_s), 9)
            if true_gap_s < -_ROUNDING_S:
                return None
            if self.gap_s is None:
                return max(0.0, true_gap_s)
        assert self.gap_s is not None  # __init__ sees to it
        return seconds(self.gap_s, float(keyed_uniform(1, self._name, "gap", row.id, other.id)))

    def _cut(self, run: Sequence[int]) -> Iterator[list[int]]:
        """The stretches of one run, in order."""
        rows = [self.source[number] for number in run]
        first = 0
        while first < len(rows):
            end = self._end(rows, first)
            if end is not None:
                yield list(run[first:end])
            first = first + 1 if end is None else end

    def _end(self, rows: Sequence[Utterance], first: int) -> int | None:
        """The row before which the stretch from ``first`` on ends; None when it would be too short."""
        share = float(keyed_uniform(1, self._name, "length", rows[first].id))
        wanted_s = self.min_s + (self.max_s - self.min_s) * share
        length_s, end = rows[first].duration_s, first + 1
        while end < len(rows) and (length_s < wanted_s or end == first + 1):
            gap_s = self._gap_s(rows[end - 1], rows[end])
            if gap_s is None or length_s + gap_s + rows[end].duration_s > self.max_s:
                break
            length_s, end = length_s + gap_s + rows[end].duration_s, end + 1
        return end if end > first + 1 and length_s >= self.min_s else None


class PhraseRepeated(RowSource):
    """Rows whose audio and text are said several times in a row: what a recogniser that loops cannot tell from a loop.

    Rows without text, and rows too long to be said ``times[0]`` times within ``max_s``, are left out (the number is
    logged). The source is read through when a row is first asked for.

    Args:
        source: the rows.
        times: fewest and most times that a row is said, first time included; fewer than drawn where ``max_s`` is
            reached before.
        max_s: longest made row, in seconds.
        gap_s: range of the silence between two times, in steps of 0.01 s.
        seed: another seed gives other numbers of times and silences.

    Raises:
        ValueError: for bad settings; when a row is asked for: a source row with effects, or no row that fits.
    """

    def __init__(
        self,
        source: RowSource,
        times: tuple[int, int] = (3, 8),
        max_s: float = 30.0,
        gap_s: tuple[float, float] = (0.1, 0.3),
        seed: int = 0,
    ) -> None:
        if max_s <= 0:
            raise ValueError(f"PhraseRepeated: want max_s > 0, got {max_s}")
        self.source, self.max_s, self.seed = source, max_s, seed
        self.times = check_span("PhraseRepeated.times", times, 2)
        self.gap_s = check_span("PhraseRepeated.gap_s", gap_s, 0.0)
        self._name = f"repeated-{settings_name(seed, self.times, float(max_s), self.gap_s)}"

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.source[self._picks[check_index(index, len(self), self)]]
        u_times, u_gap = keyed_uniform(2, self._name, row.id).tolist()
        gap_s = seconds(self.gap_s, u_gap)
        times = min(whole(self.times, u_times), self._most_times(row, gap_s))
        made = _join([row] * times, [0.0] + [gap_s] * (times - 1), f"{row.id}+{self._name}")
        return replace(made, extra={**row.extra, **made.extra})

    def _most_times(self, row: Utterance, gap_s: float) -> int:
        return int((self.max_s + gap_s) / (row.duration_s + gap_s) + 1e-9)

    @cached_property
    def _picks(self) -> list[int]:
        picks = []
        for number, row in enumerate(self.source):
            refuse_effects(row, self)
            if row.text.strip() and self._most_times(row, self.gap_s[1]) >= self.times[0]:
                picks.append(number)
        if not picks:
            raise ValueError(
                f"PhraseRepeated: none of {len(self.source)} rows has text and is short enough to be said "
                f"{self.times[0]} times within max_s={self.max_s}; raise max_s or lower times"
            )
        if len(picks) < len(self.source):
            _log.warning("PhraseRepeated: left out %d rows, without text or too long", len(self.source) - len(picks))
        return picks

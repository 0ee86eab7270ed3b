"""Rows joined from other rows, where the data lacks them: long audio, and repeated phrases.

Nothing is written: a made row names the files of its parts, and ``extra["sources"]`` lists the ids it is made of.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import torch

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.audio.effects import refuse_effects, source_ids
from lightning_audiorl.data.draws import between, check_span, seconds, settings_name, whole
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index, joined_origin
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform
from lightning_audiorl.text import normaliser_for
from lightning_audiorl.types import Segment, Utterance

_log = logging.getLogger(__name__)

#: Offsets and durations of neighbours in one recording may disagree by this much from rounding.
_ROUNDING_S = 0.001


def join_texts(texts: Sequence[str], lang: str) -> str:
    """Texts one after the other: with spaces, or without where errors are counted in characters (zh, ja).

    Example:
        >>> join_texts(["three", "", "seven"], "en"), join_texts(["三", "七"], "zh")
        ('three seven', '三七')
    """
    space = "" if normaliser_for(lang).unit == "char" else " "
    return space.join(text for text in texts if text)


def _join(rows: Sequence[Utterance], gaps_s: Sequence[float], row_id: str) -> Utterance:
    """``rows`` in order, with ``gaps_s[i]`` of silence put before row i."""
    segments: list[Segment] = []
    keywords: list[str] = []
    for row, gap_s in zip(rows, gaps_s, strict=True):
        first, *others = row.segments
        segments += [replace(first, gap_s=first.gap_s + gap_s), *others]
        keywords += row.keywords

    extra: dict[str, Any] = {"sources": source_ids(*rows)}
    hotwords = list(dict.fromkeys(word for row in rows for word in row.hotwords))
    if hotwords:
        extra["hotwords"] = hotwords

    speakers = {row.speaker for row in rows}
    return Utterance(
        id=row_id,
        segments=tuple(segments),
        text=join_texts([row.text for row in rows], rows[0].lang),
        duration_s=round(sum(gaps_s) + sum(row.duration_s for row in rows), 9),
        lang=rows[0].lang,
        speaker=speakers.pop() if len(speakers) == 1 else "",
        keywords=tuple(dict.fromkeys(keywords)),
        extra=extra,
        origin=joined_origin(*rows),
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
            recording (as silence: what is spoken there is not in the text).
        num_rows: how many of the stretches, a drawn choice; None takes all.
        seed: another seed gives other stretches.

    Raises:
        ValueError: for bad settings; when a row is asked for: a source row without recording or speaker, one with
            effects, or fewer than ``num_rows`` stretches.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from lightning_audiorl.data import ManifestRows, write_manifest
        >>> starts_s = [0.0, 4.5, 9.0]
        >>> parts = [Segment("/talks/ann.wav", duration_s=4.0, offset_s=start_s) for start_s in starts_s]
        >>> rows = [Utterance(f"ann-{part.offset_s}", (part,), "so then", 4.0) for part in parts]
        >>> with TemporaryDirectory() as folder:
        ...     write_manifest(rows, f"{folder}/talk.jsonl")
        ...     talk = ManifestRows(f"{folder}/talk.jsonl", check_files=False)
        >>> row = JoinedNeighbours(talk, min_s=12.0, max_s=20.0)[0]
        >>> row.text, row.duration_s, [segment.gap_s for segment in row.segments]
        ('so then so then so then', 13.0, [0.0, 0.5, 0.5])
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

        self.source = source
        self.min_s = min_s
        self.max_s = max_s
        self.by = by
        self.gap_s = None if gap_s is None else check_span("JoinedNeighbours.gap_s", gap_s, 0.0)
        self.num_rows = num_rows
        self.seed = seed

        # Keys every draw. 20 and 20.0 are the same setting, so they have to make the same rows.
        name = settings_name(seed, float(min_s), float(max_s), by, self.gap_s)
        self._name = f"joined-{name}"

    def __len__(self) -> int:
        return len(self._stretches)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        numbers = self._stretches[check_index(index, len(self), self)]
        rows = [self.source[number] for number in numbers]
        gaps_s = [self._gap_s(row, following) or 0.0 for row, following in pairwise(rows)]
        row_id = f"{rows[0].id}+{self._name}"
        return _join(rows, [0.0, *gaps_s], row_id)

    @cached_property
    def _stretches(self) -> Sequence[list[int]]:
        """Row numbers of each made row."""
        found: list[list[int]] = []
        for run in self._runs():
            found += self._cut(run)

        wanted = self.num_rows or 1
        if len(found) < wanted:
            hint = ", or use by=speaker" if self.by == "recording" else ""
            raise ValueError(
                f"JoinedNeighbours: the source's {len(self.source)} rows give {len(found)} rows of {self.min_s} to "
                f"{self.max_s} s by {self.by}, at least {wanted} wanted; lower num_rows or min_s, raise max_s, "
                f"give more neighbouring rows{hint}"
            )

        if self.num_rows is None:
            return found
        generator = keyed_generator(self._name, "choice")
        order = torch.randperm(len(found), generator=generator).tolist()
        chosen = sorted(order[: self.num_rows])
        return [found[number] for number in chosen]

    def _runs(self) -> Iterator[list[int]]:
        """Row numbers in the order that they may be joined in; a drawn row parts a speaker's rows into two runs."""
        groups: dict[tuple[str, str], list[int]] = {}
        offsets_s: list[float] = []
        for number, row in enumerate(self.source):
            group_name = self._group_name(row)
            groups.setdefault((group_name, row.lang), []).append(number)
            # Only rows of a recording are put in order of their offsets.
            in_recording = self.by == "recording"
            offsets_s.append(row.segments[0].offset_s if in_recording else 0.0)

        for (name, lang), group in groups.items():
            if self.by == "recording":
                yield sorted(group, key=offsets_s.__getitem__)
            else:
                share = float(keyed_uniform(1, self._name, "start", name, lang))
                start = int(len(group) * share)
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

    def _gap_s(self, row: Utterance, following: Utterance) -> float | None:
        """Silence to put between two rows, in seconds; None where they overlap in their recording."""
        if self.by == "recording":
            true_gap_s = _true_gap_s(row, following)
            if true_gap_s < -_ROUNDING_S:
                return None
            if self.gap_s is None:
                return max(0.0, true_gap_s)

        assert self.gap_s is not None  # by=speaker demands it in __init__
        share = float(keyed_uniform(1, self._name, "gap", row.id, following.id))
        return seconds(self.gap_s, share)

    def _cut(self, run: Sequence[int]) -> Iterator[list[int]]:
        """The stretches of one run, in order."""
        rows = [self.source[number] for number in run]
        first = 0
        while first < len(rows):
            end = self._end(rows, first)
            if end is None:
                first += 1
            else:
                yield list(run[first:end])
                first = end

    def _end(self, rows: Sequence[Utterance], first: int) -> int | None:
        """The row before which the stretch from ``first`` on ends; None when it would be too short."""
        share = float(keyed_uniform(1, self._name, "length", rows[first].id))
        wanted_s = between((self.min_s, self.max_s), share)

        # Two rows at least, whatever the length that was drawn.
        length_s = rows[first].duration_s
        end = first + 1
        while end < len(rows) and (length_s < wanted_s or end == first + 1):
            gap_s = self._gap_s(rows[end - 1], rows[end])
            if gap_s is None:
                break
            longer_s = length_s + gap_s + rows[end].duration_s
            if longer_s > self.max_s:
                break
            length_s = longer_s
            end += 1

        joined = end > first + 1
        return end if joined and length_s >= self.min_s else None


def _true_gap_s(row: Utterance, following: Utterance) -> float:
    """Seconds between the end of a row's one segment and the start of the next one in their file; negative: overlap."""
    segment = row.segments[0]
    spoken_s = row.duration_s - segment.gap_s
    return round(following.segments[0].offset_s - segment.offset_s - spoken_s, 9)


class PhraseRepeated(RowSource):
    """Rows whose audio and text are repeated: repetitions that are in the audio, not a loop of the decoder.

    Rows without text, and rows too long to be repeated ``times[0]`` times within ``max_s``, are left out (the number is
    logged). The source is read through when a row is first asked for.

    Args:
        source: the rows.
        times: fewest and most times that a row occurs, first time included; fewer than drawn where ``max_s`` is
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
        check_number("PhraseRepeated.max_s", max_s, above=0, infinite=True)

        self.source = source
        self.max_s = max_s
        self.seed = seed
        self.times = check_span("PhraseRepeated.times", times, 2)
        self.gap_s = check_span("PhraseRepeated.gap_s", gap_s, 0.0)

        name = settings_name(seed, self.times, float(max_s), self.gap_s)
        self._name = f"repeated-{name}"

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        number = self._picks[check_index(index, len(self), self)]
        row = self.source[number]

        u_times, u_gap = keyed_uniform(2, self._name, row.id).tolist()
        gap_s = seconds(self.gap_s, u_gap)
        wanted = whole(self.times, u_times)
        times = min(wanted, self._most_times(row, gap_s))

        gaps_s = [0.0] + [gap_s] * (times - 1)
        row_id = f"{row.id}+{self._name}"
        made = _join([row] * times, gaps_s, row_id)
        return replace(made, extra={**row.extra, **made.extra})

    def _most_times(self, row: Utterance, gap_s: float) -> int:
        """How often the row fits into ``max_s``: n rows have n - 1 gaps."""
        # The small number keeps a row that fits exactly from being lost to rounding.
        return int((self.max_s + gap_s) / (row.duration_s + gap_s) + 1e-9)

    @cached_property
    def _picks(self) -> list[int]:
        """Numbers of the source's rows that can be repeated."""
        picks = []
        fewest, _ = self.times
        _, longest_gap_s = self.gap_s
        for number, row in enumerate(self.source):
            refuse_effects(row, self)
            if not row.text.strip():
                continue
            if self._most_times(row, longest_gap_s) >= fewest:
                picks.append(number)

        if not picks:
            raise ValueError(
                f"PhraseRepeated: none of {len(self.source)} rows has text and is short enough to be repeated "
                f"{fewest} times within max_s={self.max_s}; raise max_s or lower times"
            )
        num_left_out = len(self.source) - len(picks)
        if num_left_out > 0:
            _log.warning("PhraseRepeated: left out %d rows, without text or too long", num_left_out)
        return picks

"""The rows of a run's page: texts with their errors, and what is to be heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

import soundfile
import torch
from torch import Tensor

from lightning_audiorl.callbacks.recordings import Record
from lightning_audiorl.metrics.rows import RECOGNISED, Compared, RowResult
from lightning_audiorl.reports.runs import AFTER, BEFORE, Run
from lightning_audiorl.reports.samples import Moment, ShownRow, chosen_rows, shown_text
from lightning_audiorl.reports.sounds import Sounds
from lightning_audiorl.types import Utterance

#: The audio of a row, [num_samples], and its rate in Hz; None where it cannot be read.
LoadClip = Callable[[Utterance], "tuple[Tensor, int] | None"]

#: Rows that are shown, by set.
Shown = Mapping[str, Sequence[ShownRow]]


def _title(stage: str, rl_step: int) -> str:
    return f"{stage} (step {rl_step})"


# --- rows that changed most, and the worst


def sample_rows(
    run: Run,
    sounds: Sounds,
    shown: Shown,
    load_clip: LoadClip | None,
    num_rows: int,
) -> dict[str, list[ShownRow]]:
    """The rows of each set that changed most and those that are worst, but for those that are shown already.

    Args:
        run: with one evaluation or two.
        sounds: takes what is played.
        shown: rows that the page has already.
        load_clip: reads the audio of a row; None shows none.
        num_rows: of each kind.
    """
    last = AFTER if run.metrics(AFTER) else BEFORE
    before = run.rows_of(BEFORE) if last == AFTER else {}

    samples: dict[str, list[ShownRow]] = {}
    for number, (set_name, results) in enumerate(run.rows_of(last).items()):
        known = {one.row.id for one in shown.get(set_name, ())}
        starts = before.get(set_name, [])

        for start, end, why in chosen_rows(starts, results, num_rows):
            if end.row.id in known:
                continue
            moments = _moments(run, {BEFORE: start, last: end})
            row = ShownRow(end.row, why, moments)
            # Not the set's name, which may be one that no file can have.
            name = f"{number:02d}_{len(samples.get(set_name, ())):03d}"
            samples.setdefault(set_name, []).append(
                _with_player(
                    row,
                    name,
                    sounds,
                    load_clip,
                )
            )
    return samples


def _moments(run: Run, results: Mapping[str, RowResult | None]) -> list[Moment]:
    moments = []
    for stage, result in results.items():
        if result is None:
            continue
        texts = [shown_text(who, text) for who, text in result.texts.items()]
        moments.append(Moment(_title(stage, run.rl_step(stage)), texts))
    return moments


def _with_player(
    one: ShownRow,
    name: str,
    sounds: Sounds,
    load_clip: LoadClip | None,
) -> ShownRow:
    """The row with a player of its audio, where that was transcribed."""
    for moment in one.moments:
        # What judges wrote down is another sound each time.
        if any(text.who for text in moment.texts):
            return one

    clip = None if load_clip is None else load_clip(one.row)
    if clip is None:
        return one
    waveform, sample_rate_hz = clip
    return replace(
        one,
        sound=sounds.sound(name, waveform, sample_rate_hz),
    )


# --- recordings of a policy that speaks


def heard_rows(run: Run, sounds: Sounds) -> dict[str, list[ShownRow]]:
    """The recordings of a run, a text's together, those that changed most first, by set.

    Args:
        run: of a policy that speaks; any other has none.
        sounds: takes what is played.
    """
    by_text: dict[tuple[str, str], list[Record]] = {}
    for record in run.report["recordings"]:
        key = (record["set"], record["id"])
        by_text.setdefault(key, []).append(record)

    heard: dict[str, list[ShownRow]] = {}
    for place, ((set_name, _), records) in enumerate(by_text.items()):
        moments = []
        for record in records:
            name = f"{place:03d}_{record['stage']}"
            moments.append(
                _heard_at(
                    run,
                    record,
                    sounds,
                    name,
                )
            )

        change = _errors(moments[-1]) - _errors(moments[0])
        row = ShownRow(
            _row_of(run, records[-1]),
            _why(change),
            moments,
            change,
        )
        heard.setdefault(set_name, []).append(row)

    for rows in heard.values():
        rows.sort(key=lambda row: -abs(row.change))
    return heard


def _errors(moment: Moment) -> int:
    return sum(text.num_errors for text in moment.texts)


def _why(change: int) -> str:
    if change == 0:
        return "no change"
    return "fewer errors" if change < 0 else "more errors"


def _result_of(run: Run, record: Record) -> RowResult | None:
    """What the evaluation of a recording says of its row."""
    stage = record["stage"]
    # A validation or a test has one evaluation, whatever its recordings are called.
    if stage not in run.rows:
        stage = BEFORE

    for result in run.rows_of(stage).get(record["set"], ()):
        if result.row.id == record["id"]:
            return result
    return None


def _row_of(run: Run, record: Record) -> Utterance:
    result = _result_of(run, record)
    if result is not None:
        return result.row
    return Utterance(
        record["id"],
        (),
        record["text"],
        record["duration_s"],
    )


def _heard_at(
    run: Run,
    record: Record,
    sounds: Sounds,
    name: str,
) -> Moment:
    """What was heard at one moment, with a player."""
    result = _result_of(run, record)
    texts: dict[str, Compared] = {}
    if result is not None:
        texts |= result.texts

    for judge, said in record["heard"].items():
        # Without the evaluation's own normaliser: as the judge wrote it; in brackets stands that it wrote nothing.
        written = "" if said.startswith("(") else said
        texts.setdefault(judge, Compared(written, record["text"], written))

    shown = []
    for who, text in texts.items():
        if who != RECOGNISED:
            shown.append(shown_text(who, text))

    return Moment(
        _title(record["stage"], record["rl_step"]),
        shown,
        sound=_sound(run, record, sounds, name),
        picture=_picture(run, record, sounds, name),
    )


def _sound(
    run: Run,
    record: Record,
    sounds: Sounds,
    name: str,
) -> str:
    path = run.folder / unquote(record["wav"])
    if not record["wav"] or not path.is_file():
        return ""
    waveform, sample_rate_hz = soundfile.read(path, dtype="float32")
    return sounds.sound(
        name,
        torch.from_numpy(waveform),
        sample_rate_hz,
    )


def _picture(
    run: Run,
    record: Record,
    sounds: Sounds,
    name: str,
) -> str:
    if not record["mel"]:
        return ""
    return sounds.picture(name, run.folder / unquote(record["mel"]))

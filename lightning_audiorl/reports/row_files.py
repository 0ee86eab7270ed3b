"""What an evaluation said of each row, as JSON lines in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_audiorl.metrics.rows import Compared, RowResult
from lightning_audiorl.types import Segment, Utterance

#: By set.
Rows = Mapping[str, Sequence[RowResult]]


class ReportError(ValueError):
    """A run of which no report can be made: which, and why."""


def rows_path(
    folder: Path,
    name: str,
    stage: str,
) -> Path:
    """The file of an evaluation in the folder of a report.

    Args:
        folder: of the report.
        name: of the report.
        stage: such as "before".

    Example:
        >>> rows_path(Path("report"), "report", "before").name
        'report.before.jsonl'
    """
    return folder / f"{name}.{stage}.jsonl"


def plain_rows(rows: Rows) -> list[dict[str, Any]]:
    """Rows as JSON holds them, those of a set in the order of their ids.

    Args:
        rows: by set.
    """
    lines = []
    for set_name, results in rows.items():
        # Neither the size of batches nor the number of ranks may change what is drawn from them.
        for result in sorted(results, key=lambda one: one.row.id):
            lines.append(_line(set_name, result))
    return lines


def _line(set_name: str, result: RowResult) -> dict[str, Any]:
    row = result.row
    texts = {}
    for name, one in result.texts.items():
        texts[name] = [one.text, one.reference, one.hypothesis, one.unit]
    segments = [
        [one.audio_filepath, one.duration_s, one.offset_s, one.gap_s] for one in row.segments
    ]

    return {
        "set": set_name,
        "id": row.id,
        "lang": row.lang,
        "text": row.text,
        "spoken_text": row.spoken_text,
        "duration_s": row.duration_s,
        "segments": segments,
        "effects": list(row.effects),
        "texts": texts,
        "parts": {name: list(part) for name, part in result.parts.items()},
    }


def write_rows(
    lines: Sequence[Mapping[str, Any]],
    path: Path,
    rl_step: int,
) -> None:
    """Write the lines of `plain_rows`, in place of a file that is there.

    Args:
        lines: one for each row.
        path: is made, with its folder.
        rl_step: of the evaluation; the first line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A run that is killed meanwhile leaves the file of the evaluation before.
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        for line in ({"rl_step": rl_step}, *lines):
            # ASCII: halves of characters can be written, and are read again as they were.
            file.write(json.dumps(line) + "\n")
    new.replace(path)


def from_plain(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[RowResult]]:
    """Rows by set, of the lines of `plain_rows`; those of a set in the order of their ids.

    Args:
        lines: of one process, or of several, one after the other.
    """
    return _by_set((line["set"], _result(line)) for line in lines)


def _by_set(results: Iterable[tuple[str, RowResult]]) -> dict[str, list[RowResult]]:
    rows: dict[str, list[RowResult]] = {}
    for set_name, result in results:
        rows.setdefault(set_name, []).append(result)
    for of_set in rows.values():
        of_set.sort(key=lambda one: one.row.id)
    return rows


def read_rows(path: Path, rl_step: int) -> dict[str, list[RowResult]]:
    """The rows of a file by set; empty where there is no file, or it is of another evaluation.

    A run that went on from an earlier checkpoint, say, finds the rows of an evaluation that it has not made yet.

    Args:
        path: of `write_rows`.
        rl_step: of the evaluation.

    Raises:
        ReportError: for a file that `write_rows` has not written, or that was changed; names file and line.
    """
    if not path.is_file():
        return {}
    return _by_set(_results(path, rl_step))


def _results(path: Path, rl_step: int) -> Iterator[tuple[str, RowResult]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
                if number == 1:
                    if line["rl_step"] != rl_step:
                        return
                    continue
                found = (str(line["set"]), _result(line))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise ReportError(
                    f"{path}, line {number}: is no row of an evaluation ({type(error).__name__}: {error}); remove the "
                    "file for a report without rows, or evaluate again"
                ) from None
            yield found


def _result(line: Mapping[str, Any]) -> RowResult:
    segments = [Segment(*one) for one in line["segments"]]
    row = Utterance(
        id=line["id"],
        segments=tuple(segments),
        text=line["text"],
        duration_s=line["duration_s"],
        lang=line["lang"],
        effects=tuple(line["effects"]),
        spoken_text=line["spoken_text"],
    )
    texts = {name: Compared(*one) for name, one in line["texts"].items()}
    parts = {name: (float(part[0]), float(part[1])) for name, part in line["parts"].items()}
    return RowResult(row, texts, parts)

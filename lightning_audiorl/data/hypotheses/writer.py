"""A file of hypotheses that is written by several processes, goes on after a kill, and ends in the rows' order."""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from lightning_audiorl.data.hypotheses.reader import id_key, row_fingerprint
from lightning_audiorl.data.hypotheses.schema import HypothesisError, Predicted, to_line
from lightning_audiorl.text import normaliser_for
from lightning_audiorl.types import Utterance

_Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class RowsSurvey:
    """One pass over the rows that will be decoded.

    Args:
        content: hash of ids, fingerprints, keywords and hotwords, in order.
        durations_s: of every row.
        units: what errors are counted in, "word" or "char" or both.
    """

    content: str
    durations_s: array[float]
    units: frozenset[str]

    @property
    def num_rows(self) -> int:
        return len(self.durations_s)


def survey_rows(rows: Iterable[Utterance]) -> RowsSurvey:
    """Read every row once.

    Raises:
        ValueError: when there is none; when two have the same id.
    """
    digest = blake2b(digest_size=16)
    durations_s = array("d")
    units: set[str] = set()
    id_keys = array("q")
    for row in rows:
        known: list[Any] = [row.id, row_fingerprint(row), row.keywords]
        # Other words in the prompt make other hypotheses.
        if row.hotwords:
            known.append(row.hotwords)
        line = json.dumps(known).encode()
        digest.update(line + b"\n")
        durations_s.append(row.duration_s)
        units.add(normaliser_for(row.lang).unit)
        # 8 bytes a row, however long the ids are.
        id_keys.append(id_key(row.id))

    if not durations_s:
        raise ValueError("predict: `rows` is empty; give at least one row")
    _check_unique(id_keys)
    return RowsSurvey(digest.hexdigest(), durations_s, frozenset(units))


def _check_unique(id_keys: array[int]) -> None:
    all_keys = np.frombuffer(id_keys, dtype=np.int64)
    keys, first, counts = np.unique(all_keys, return_index=True, return_counts=True)
    if len(keys) < len(id_keys):
        twice = int(first[counts > 1].min())
        again = id_keys.index(id_keys[twice], twice + 1)
        raise ValueError(f"predict: rows {twice} and {again} have the same id; ids must be unique")


class HypothesisParts:
    """``out``, and what stands beside it until it is complete.

    ``<out>.settings.json`` says what it is made from. ``<out>.parts/<model>-<rank>.jsonl`` hold the lines that are
    done, each behind its row's number: each process appends to files of its own.

    Args:
        out: the file to be.
        settings: plain data that two runs must share for their lines to be mixed; lists where order counts.
        models: names of the models, in the order of a row's lines.
        num_rows: number of rows.
    """

    def __init__(
        self,
        out: str | Path,
        settings: Mapping[str, Any],
        models: Sequence[str],
        num_rows: int,
    ) -> None:
        self.out = Path(out).expanduser()
        self.models = tuple(models)
        self.num_rows = num_rows
        # As they will be read back from the file that they are compared with.
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.settings_file = self.out.with_name(self.out.name + ".settings.json")
        self.folder = self.out.with_name(self.out.name + ".parts")

    @property
    def is_complete(self) -> bool:
        """Whether every line is in ``out``."""
        return self.out.is_file()

    def check(self) -> None:
        """Whether what is there was made from the same; writes nothing.

        Raises:
            HypothesisError: when it was not, saying what differs.
        """
        afresh = "give another `out`, or start afresh with `--overwrite true`"
        if self.settings_file.is_file():
            then = json.loads(self.settings_file.read_text(encoding="utf-8"))
            if other := _difference(then, self.settings):
                raise HypothesisError(
                    f"{self.settings_file}: {self.out} was begun with {other}; {afresh}"
                )
        elif self.out.exists() or self.folder.exists():
            raise HypothesisError(
                f"{self.out}: exists, but not {self.settings_file}, which says of what; {afresh}"
            )

    def begin(self, overwrite: bool = False) -> None:
        """Go on with what is there, or begin; one process does this before any other reads or writes.

        A last line that was cut off is removed.

        Args:
            overwrite: forget what is there.

        Raises:
            HypothesisError: what is there was made from something else, and ``overwrite`` is off.
        """
        if overwrite:
            self.out.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.settings_file.unlink(missing_ok=True)
        self.check()

        if not self.settings_file.is_file():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            new = self.settings_file.with_name(self.settings_file.name + ".new")
            text = json.dumps(self.settings, indent=1, ensure_ascii=False)
            new.write_text(f"{text}\n", encoding="utf-8")
            new.replace(self.settings_file)

        # A run that was killed after writing `out` has left the parts.
        if self.is_complete:
            shutil.rmtree(self.folder, ignore_errors=True)
            return

        self.folder.mkdir(exist_ok=True)
        for part in self.folder.iterdir():
            end = 0
            for _, offset, length in self._lines(part):
                end = offset + length
            os.truncate(part, end)

    def _lines(self, part: Path) -> Iterator[tuple[int, int, int]]:
        """(row number, offset, length) of every line up to the first that is not whole."""
        offset = 0
        with part.open("rb") as file:
            for line in file:
                # Without a tab, `rest` is empty.
                number, _, rest = line.partition(b"\t")
                whole = number.isdigit() and rest.startswith(b"{") and rest.endswith(b"}\n")
                if not whole or int(number) >= self.num_rows:
                    return

                yield int(number), offset, len(line)
                offset += len(line)

    def _parts(self, model: int) -> list[Path]:
        return sorted(self.folder.glob(f"{model}-*.jsonl"))

    def done(self, model: int) -> _Bools:
        """[num_rows] the rows that model number ``model`` has decoded, on any rank."""
        done = np.zeros(self.num_rows, dtype=np.bool_)
        if self.is_complete:
            done[:] = True
        for part in self._parts(model):
            for number, _, _ in self._lines(part):
                done[number] = True
        return done

    def append(self, model: int, rank: int, lines: Iterable[tuple[int, Predicted]]) -> None:
        """Add lines of (row number, hypotheses) to the part of a rank; they are with the system when this returns."""
        text = [f"{number}\t{to_line(predicted)}\n" for number, predicted in lines]
        part = self.folder / f"{model}-{rank}.jsonl"
        with part.open("ab") as file:
            # Half of a surrogate pair becomes its escape, which JSON reads back as the same.
            file.write("".join(text).encode("utf-8", "backslashreplace"))

    def join(self) -> None:
        """Write ``out``, row by row and model by model, and remove the parts; it appears whole or not at all.

        Raises:
            HypothesisError: when a row is missing.
        """
        # Where the line of each row and model stands: number of its part, -1 for none yet; offset and length in it.
        parts: list[Path] = []
        num_models = len(self.models)
        part_of = np.full((num_models, self.num_rows), -1, dtype=np.int32)
        place = np.zeros((num_models, self.num_rows, 2), dtype=np.int64)
        for model in range(num_models):
            for part in self._parts(model):
                for number, offset, length in self._lines(part):
                    part_of[model, number] = len(parts)
                    place[model, number] = (offset, length)
                parts.append(part)

        if (part_of < 0).any():
            model, number = (int(axis[0]) for axis in np.nonzero(part_of < 0))
            raise HypothesisError(
                f"{self.folder}: row {number} of model {self.models[model]!r} is missing; run the same command again"
            )

        new = self.out.with_name(self.out.name + ".new")
        with ExitStack() as stack:
            files = [stack.enter_context(part.open("rb")) for part in parts]
            out = stack.enter_context(new.open("wb"))
            for number in range(self.num_rows):
                for model in range(num_models):
                    file = files[part_of[model, number]]
                    offset, length = place[model, number].tolist()
                    line = os.pread(file.fileno(), length, offset)
                    out.write(line.partition(b"\t")[2])

        # Only now, so that a reader never sees half a file.
        new.replace(self.out)
        shutil.rmtree(self.folder)


def _difference(then: Any, now: Any, place: str = "") -> str:
    """The first setting that differs, in words; "" where none does."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            inside = f"{place}.{key}" if place else key
            found = _difference(then.get(key), now.get(key), inside)
            if found:
                return found
        return ""

    if then == now:
        return ""
    return f"another `{place}` ({json.dumps(then)}; now {json.dumps(now)})"

"""The same texts before and after a run: wav files, spectrograms, and what each judge heard, for the run report."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightning_audiorl.callbacks.outputs import markdown_table, printable
from lightning_audiorl.callbacks.spoken_samples import (
    has_speech,
    judge_names,
    mel_figure,
    spoken,
    transcript,
    write_wav,
)
from lightning_audiorl.metrics import SetEvaluation, SpeechEvaluation
from lightning_audiorl.metrics.roles import EAR
from lightning_audiorl.types import Hypothesis

Record = dict[str, Any]


class Recordings:
    """The first samples of each evaluation set as files ``<set>/<number>_<stage>.wav`` and ``.png`` in a folder.

    Args:
        num_texts: of each set; 0 keeps none.

    Attributes:
        records: one plain record per file, for checkpoints and the report: ``set``, ``id``, ``text``, ``stage``,
            ``rl_step``, ``heard`` (transcripts by judge), ``duration_s``, ``wav`` (path below the folder; "" where
            the sample is not finite) and ``mel`` (the picture's; "" where the sample is empty).
    """

    def __init__(self, num_texts: int) -> None:
        self.num_texts = num_texts
        self.records: list[Record] = []

    def keep(
        self,
        groups_of_set: Mapping[str, Sequence[Sequence[Hypothesis]]],
        folder: Path,
        stage: str,
        rl_step: int,
    ) -> None:
        """Write the first sample of each set's first groups, in place of those of this stage before.

        Args:
            groups_of_set: hypotheses of the evaluation at hand; sets of a policy that does not speak are passed over.
            folder: where files go.
            stage: such as "before" or "after".
            rl_step: RL steps done.
        """
        # Only the last evaluation is the one "after" the run; its files take the place of the earlier ones'.
        self.records = [record for record in self.records if record["stage"] != stage]
        folders = set_folders(groups_of_set)
        for set_name, groups in groups_of_set.items():
            if not has_speech(groups):
                continue

            samples = [sample for sample, *_ in groups[: self.num_texts]]
            judges = judge_names(samples)

            for number, sample in enumerate(samples):
                stem = f"{folders[set_name]}/{number:02d}_{stage}"
                files = _write_files(
                    sample,
                    folder,
                    stem,
                )

                # The keys are those of the report's JSON.
                self.records.append(
                    {
                        "set": set_name,
                        "id": sample.row.id,
                        "text": sample.row.text,
                        "stage": stage,
                        "rl_step": rl_step,
                        "heard": {judge: transcript(sample, judge) for judge in judges},
                        "duration_s": spoken(sample).duration_s,
                        **files,
                    }
                )

    def of(
        self,
        stages: Sequence[str],
        folder: Path,
        report_folder: Path,
    ) -> list[Record]:
        """The records of some stages, a text's together, with files as links from the report's folder.

        Args:
            stages: in the order in which a text's records stand.
            folder: where the files are; a file that is not there has no link.
            report_folder: from where the links lead.
        """
        chosen = [record for record in self.records if record["stage"] in stages]

        # Where each text came first: its later records follow it there.
        order: dict[tuple[str, str], int] = {}
        for number, record in enumerate(chosen):
            order.setdefault((record["set"], record["id"]), number)

        linked = []
        for record in chosen:
            links = {
                kind: _link(
                    record[kind],
                    folder,
                    report_folder,
                )
                for kind in ("wav", "mel")
            }
            linked.append({**record, **links})

        def place(record: Record) -> tuple[int, int]:
            return order[record["set"], record["id"]], stages.index(record["stage"])

        return sorted(linked, key=place)


def set_folders(names: Iterable[str]) -> dict[str, str]:
    """A folder for each set, whose name may be one that no folder can have: no two sets share one.

    Args:
        names: of all sets, in their order.

    Example:
        >>> set_folders(["a/b", "a_b", "A b", ".."])
        {'a/b': 'a_b', 'a_b': 'a_b_2', 'A b': 'A_b_3', '..': '_'}
    """
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        # Neither hidden, nor the folder above, nor the same as another one where capitals do not count.
        plain = re.sub(
            r"[^\w.-]+",
            "_",
            name,
        )
        plain = (
            re.sub(
                r"^\.+",
                "_",
                plain,
            )
            or "_"
        )

        folder = plain
        number = 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{plain}_{number}"
        taken.add(folder.casefold())
        folders[name] = folder
    return folders


def _write_files(
    sample: Hypothesis,
    folder: Path,
    stem: str,
) -> dict[str, str]:
    """Write a sample's sound and spectrogram; returns their paths below the folder, "" for what was not written."""
    speech = spoken(sample)
    if not write_wav(folder / f"{stem}.wav", speech):
        return {"wav": "", "mel": ""}
    if not speech.waveform.numel():
        return {"wav": f"{stem}.wav", "mel": ""}

    figure = mel_figure(
        speech,
        sample.row.text,
        sample.row.id,
    )
    figure.savefig(folder / f"{stem}.png", dpi=80)
    return {"wav": f"{stem}.wav", "mel": f"{stem}.png"}


def _link(
    path: str,
    folder: Path,
    report_folder: Path,
) -> str:
    """A file below ``folder`` as a link; "" where it is not there, for a resumed run may stand in another folder."""
    if not path or not (folder / path).is_file():
        return ""
    return quote(os.path.relpath(folder / path, report_folder).replace(os.sep, "/"))


def judges_of(evaluation: SetEvaluation | None) -> dict[str, str]:
    """Names of the judges by their role in an evaluation of speech; empty for any other."""
    return evaluation.by_role.names if isinstance(evaluation, SpeechEvaluation) else {}


def heard_columns(records: Sequence[Record], judges: Mapping[str, str]) -> dict[str, str]:
    """Headings by judge; those held out are marked.

    Args:
        records: of `Recordings`.
        judges: names by role.

    Example:
        >>> heard_columns([{"heard": {"a": "one", "b": "won"}}], {"judge": "a", "held_out_judge": "b"})
        {'a': 'heard by a', 'b': 'heard by b (held out)'}
    """
    held_out = set()
    for role, name in judges.items():
        if role == "held_out_judge" or role.startswith(EAR):
            held_out.add(name)

    headings = {}
    for record in records:
        for name in record["heard"]:
            mark = " (held out)" if name in held_out else ""
            headings[name] = f"heard by {name}{mark}"
    return headings


def recordings_markdown(records: Sequence[Record], judges: Mapping[str, str]) -> str:
    """A table: a text's recordings, one below the other, beside what each judge heard, with links to the files."""
    columns = heard_columns(records, judges)
    rows = []
    for record in records:
        files = []
        if record["wav"]:
            files.append(f"[sound]({record['wav']})")
        if record["mel"]:
            files.append(f"[mel]({record['mel']})")

        seconds = f"{record['duration_s']:.2f}"
        rows.append([*_text_cells(record, columns), seconds, " ".join(files)])
    return markdown_table(["set", "text", "", *columns.values(), "seconds", "files"], rows)


def _text_cells(record: Record, columns: Mapping[str, str]) -> list[str]:
    """Set, text, moment, and the transcript of each judge."""
    moment = f"{record['stage']} (step {record['rl_step']})"
    transcripts = [record["heard"].get(name, "") for name in columns]
    return [printable(text) for text in (record["set"], record["text"], moment, *transcripts)]

"""The same texts before and after a run: wav files, spectrograms, and what each judge heard, for the run report."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.callbacks.spoken_samples import (
    has_speech,
    judge_names,
    mel_figure,
    spoken,
    transcript,
    write_wav,
)
from lightning_audiorl.metrics import SetEvaluation, SpeechEvaluation
from lightning_audiorl.types import Hypothesis

Record = dict[str, Any]


class Recordings:
    """The first samples of each evaluation set as files ``<set>/<number>_<stage>.wav`` and ``.png`` in a folder.

    Args:
        num_texts: of each set; 0 keeps none.

    Attributes:
        records: one plain record per file, for checkpoints and the report: ``set``, ``id``, ``text``, ``stage``,
            ``rl_step``, ``heard`` (transcripts by judge), ``duration_s``, ``wav`` (path below the folder) and ``mel``
            (the picture's; "" where nothing was said).
    """

    def __init__(self, num_texts: int) -> None:
        self.num_texts = num_texts
        self.records: list[Record] = []

    def keep(
        self, groups_of_set: Mapping[str, Sequence[Sequence[Hypothesis]]], folder: Path, stage: str, rl_step: int
    ) -> None:
        """Write the first sample of each set's first groups, in place of those of this stage before.

        Args:
            groups_of_set: hypotheses of the evaluation at hand; sets of a policy that does not speak are passed over.
            folder: where files go.
            stage: such as "before" or "after".
            rl_step: RL steps done.
        """
        self.records = [record for record in self.records if record["stage"] != stage]
        for name, groups in groups_of_set.items():
            shown = [said for said, *_ in groups[: self.num_texts]] if has_speech(groups) else []
            judges, of_set = judge_names(shown), re.sub(r"[^\w.-]+", "_", name)
            for number, said in enumerate(shown):
                speech, stem = spoken(said), f"{of_set}/{number:02d}_{stage}"
                write_wav(folder / f"{stem}.wav", speech)
                if speech.waveform.numel():
                    mel_figure(speech, said.row.text).savefig(folder / f"{stem}.png", dpi=80)
                self.records.append(
                    {
                        "set": name,
                        "id": said.row.id,
                        "text": said.row.text,
                        "stage": stage,
                        "rl_step": rl_step,
                        "heard": {judge: transcript(said, judge) for judge in judges},
                        "duration_s": speech.duration_s,
                        "wav": f"{stem}.wav",
                        "mel": f"{stem}.png" if speech.waveform.numel() else "",
                    }
                )

    def of(self, stages: Sequence[str], folder: Path, report_folder: Path) -> list[Record]:
        """The records of some stages, a text's together, with files as links from the report's folder."""
        chosen = [record for record in self.records if record["stage"] in stages]
        order = {(record["set"], record["id"]): number for number, record in reversed(list(enumerate(chosen)))}

        def link(path: str) -> str:
            there = path and (folder / path).is_file()  # a resumed run may stand in another folder
            return quote(os.path.relpath(folder / path, report_folder).replace(os.sep, "/")) if there else ""

        linked = [{**record, "wav": link(record["wav"]), "mel": link(record["mel"])} for record in chosen]
        return sorted(linked, key=lambda one: (order[one["set"], one["id"]], stages.index(one["stage"])))


def judges_of(evaluation: SetEvaluation | None) -> dict[str, str]:
    """Names of the listeners by their role in an evaluation of speech; empty for any other."""
    if not isinstance(evaluation, SpeechEvaluation):
        return {}
    by_role = vars(evaluation.by_role)
    return {role: judge.name for role, judge in by_role.items() if judge is not None}


def heard_columns(records: Sequence[Record], judges: Mapping[str, str]) -> dict[str, str]:
    """Headings by judge; the one held out is marked."""
    held_out = judges.get("held_out_judge")
    names = dict.fromkeys(name for record in records for name in record["heard"])
    return {name: f"heard by {name}" + (" (held out)" if name == held_out else "") for name in names}


def recordings_markdown(records: Sequence[Record], judges: Mapping[str, str]) -> str:
    """A table: a text's recordings, one below the other, beside what each judge heard, with links to the files."""
    columns = heard_columns(records, judges)
    rows = []
    for record in records:
        links = [f"[{kind}]({record[key]})" for kind, key in (("sound", "wav"), ("mel", "mel")) if record[key]]
        moment = f"{record['stage']} (step {record['rl_step']})"
        heard = [record["heard"].get(name, "") for name in columns]
        rows.append([record["set"], record["text"], moment, *heard, f"{record['duration_s']:.2f}", " ".join(links)])
    return markdown_table(["set", "text", "", *columns.values(), "seconds", "files"], rows)


_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
td, th {{ border-bottom: 1px solid #ccc; padding: 0.3em 0.7em; text-align: left; vertical-align: middle; }}
img {{ height: 9em; }}
</style>
<h1>{title}</h1>
<pre>{table}</pre>
<p>{note}</p>
<table>
{rows}
</table>
"""


def recordings_page(records: Sequence[Record], judges: Mapping[str, str], title: str, table: str, note: str) -> str:
    """A web page that plays the recordings beside their transcripts and spectrograms, under the table of figures."""
    columns = heard_columns(records, judges)
    rows = [["set", "text", "", *columns.values(), "sound", "spectrogram"]]
    for record in records:
        said = [record["set"], record["text"], f"{record['stage']} (step {record['rl_step']})"]
        said += [record["heard"].get(name, "") for name in columns]
        sound = f'<audio controls preload="none" src="{record["wav"]}"></audio>' if record["wav"] else ""
        mel = f'<img src="{record["mel"]}" alt="mel spectrogram">' if record["mel"] else ""
        rows.append([*map(html.escape, said), sound, mel])
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return _PAGE.format(
        title=html.escape(title), table=html.escape(table), note=html.escape(note), rows="\n".join(lines)
    )

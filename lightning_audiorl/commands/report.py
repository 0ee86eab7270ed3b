"""``audiorl report``: the page of a run made again, or runs side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path

from torch import Tensor

from lightning_audiorl.callbacks.outputs import markdown_table, writing
from lightning_audiorl.callbacks.report import report_title
from lightning_audiorl.callbacks.report_page import run_page
from lightning_audiorl.callbacks.report_rows import clips_that_can_be_read
from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.reports.compare import control_of, read_groups, side_by_side
from lightning_audiorl.reports.compare_page import compare_page
from lightning_audiorl.reports.runs import read_control, read_run, verdicts
from lightning_audiorl.reports.sounds import Audio, Sounds, write_page
from lightning_audiorl.reports.tables import HEADER, cells, csv_text, latex_text
from lightning_audiorl.types import Utterance

_CLIP_RATE_HZ = 16000


def report(
    runs: list[str],
    out: str | None = None,
    control: str | None = None,
    audio: Audio = "inside",
    num_rows: int = 5,
) -> None:
    """Compare runs: start, control and RL over seeds in one page and table; of one run, write its page again.

    Runs of several seeds are a group, by their algorithm or by the name before ``=``: ``SFT=runs/sft-0``. The table is
    also written as CSV and LaTeX, and printed with the verdict of each group.

    Args:
        runs: folders that ``audiorl fit`` has written, each ``FOLDER`` or ``NAME=FOLDER``.
        out: folder to write; default ``comparison``, and of one run the folder of its report.
        control: name of the group that others are compared with, default ``SFT`` where there is one; of one run, the
            folder of a run to compare it with.
        audio: of one run: ``inside`` the page, in a ``zip`` file with the page, or ``none``.
        num_rows: of one run: rows of each set that are shown because they got better, as many that got worse, and as
            many that are the worst.

    Raises:
        ReportError: for a folder without a run, a run without what is to be compared, and runs of other rows.
    """
    if len(runs) == 1:
        _one_run(
            Path(runs[0]),
            out,
            control,
            audio,
            num_rows,
        )
    else:
        _several(
            runs,
            Path(out or "comparison"),
            control,
        )


def _one_run(
    folder: Path,
    out: str | None,
    control: str | None,
    audio: Audio,
    num_rows: int,
) -> None:
    run = read_run(folder)
    beside = None if control is None else read_control(Path(control))

    sounds = Sounds(audio)
    page = run_page(
        run,
        sounds,
        title=report_title(run.report),
        control=beside,
        load_clip=clips_that_can_be_read(_read),
        num_rows=num_rows,
    )

    place = run.folder if out is None else Path(out)
    with writing("the report", place):
        place.mkdir(parents=True, exist_ok=True)
        path = write_page(place, "report", page, sounds)

    for one in verdicts(run, beside):
        print(textwrap.fill(one.sentence, 110))
    print(path)


def _read(row: Utterance) -> tuple[Tensor, int]:
    return read_audio(row, _CLIP_RATE_HZ), _CLIP_RATE_HZ


def _several(
    places: list[str],
    out: Path,
    control: str | None,
) -> None:
    groups = read_groups(places)
    found = side_by_side(groups, control_of(groups, control))

    title = " beside ".join(one.group.size for one in found)
    table = markdown_table(HEADER, cells(found))
    said = []
    for one in found:
        for each in one.verdicts:
            said.append(f"{one.group.size}. {each.sentence}")

    files = {
        "compare.html": compare_page(found, title),
        "compare.csv": csv_text(found),
        "compare.tex": latex_text(found),
        "compare.md": f"# {title}\n\n{table}\n",
    }
    with writing("the comparison", out):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = out / name
            path.write_text(
                text,
                encoding="utf-8",
                errors="backslashreplace",
            )

    print(table)
    for sentence in said:
        print("\n" + textwrap.fill(sentence, 110))
    print(f"\n{out / 'compare.html'}")

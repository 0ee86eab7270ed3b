"""The page of a run: what stands in it, and that nothing in it is read as HTML."""

from __future__ import annotations

import io
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
import torch

from lightning_audiorl.callbacks.report_page import run_page
from lightning_audiorl.reports.row_files import ReportError, from_plain, plain_rows, read_rows
from lightning_audiorl.reports.runs import read_run
from lightning_audiorl.reports.samples import MAX_UNITS, shown_text
from lightning_audiorl.reports.sounds import MAX_INSIDE, Sounds, write_page
from tests.reports.folders import make_run, page_of, result, with_errors

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(1)">'


class Reader(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page(folder: Path, sounds: Sounds | None = None, **settings: object) -> str:
    run = read_run(folder)
    return run_page(run, sounds or Sounds(), "title", **settings)  # type: ignore[arg-type]


@pytest.mark.fault(
    "Settings and messages",
    "HTML in a hypothesis, an id, the name of a set, a setting, a status or an alert of a run with a report",
    "report.html shows it as it is written; nothing is read as HTML, and nothing is loaded from elsewhere",
)
def test_hostile_texts_are_shown_and_not_read(tmp_path: Path) -> None:
    rows = [result(f"{i} {HOSTILE}", f"{HOSTILE} {i}", HOSTILE) for i in range(12)]
    folder = make_run(
        tmp_path / "run",
        {HOSTILE: rows},
        {HOSTILE: rows},
        status=HOSTILE,
        alerts=[{"rl_step": 1, "text": HOSTILE}],
        settings={HOSTILE: HOSTILE},
        model={HOSTILE: HOSTILE},
    )
    read = Reader(page(folder))
    assert not {"script", "img", "link", "iframe"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert read.text.count("<script>alert(1)") > 20


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    rows = with_errors([1] * 12)
    text = page(make_run(tmp_path, {"dev": rows}, {"dev": rows}), load_clip=clip)
    sources = [value for name, value in Reader(text).attributes if name in ("src", "href")]
    assert len(sources) == 5
    assert all(source and source.startswith("data:") for source in sources)
    assert "url(" not in text


def clip(row: object) -> tuple[torch.Tensor, int]:
    return torch.linspace(-0.5, 0.5, 800), 8000


def test_numbers_are_those_of_the_metrics(tmp_path: Path) -> None:
    before = with_errors([3, 2] * 10)
    after = with_errors([1, 2] * 10)
    folder = make_run(tmp_path, {"dev": before}, {"dev": after})
    report = json.loads((folder / "report" / "report.json").read_text())
    wers = [report[stage]["results"]["dev"]["wer"] for stage in ("before", "after")]
    assert wers == [0.625, 0.375]

    text = page(folder)
    assert "Against the start (step 0): better in 1 of 1, worse in none" in text
    assert "WER of dev 62.5 → 37.5 % (-25.0 points, 95 % interval" in text
    assert "on 20 utterances, 80 words" in text
    cells = re.search(r"<tr><td>WER \(%\)</td>\s*<td>(.*?)</td><td>(.*?)</td>", text)
    assert cells is not None
    assert cells.groups() == ("62.5", "37.5")


def test_errors_are_marked_and_those_that_changed_most_come_first(tmp_path: Path) -> None:
    before = with_errors([4, 1, 0] + [0] * 10)
    after = [
        *with_errors([0, 1]),
        result("row-002", "one three four five six"),
        *with_errors([0] * 13)[3:],
    ]
    text = page(make_run(tmp_path, {"dev": before}, {"dev": after}))
    order = re.findall(r"<header><b>(row-\d+)</b>", text)
    assert order == ["row-000", "row-002", "row-001"]
    assert text.count(">wrong<rt>") == 4 + 2
    assert '<del title="missing">two</del>' in text
    assert '<ins title="too much">six</ins>' in text
    assert '<ins title="too much">five</ins>' in text


def test_characters_of_chinese_have_no_gaps() -> None:
    shown = shown_text(
        "recognised", result("a", "今天气很好", "今天天气很好", "zh").texts["recognised"]
    )
    assert (shown.gap, shown.num_errors, shown.num_units) == ("", 1, 6)
    assert "".join(one.hypothesis for one in shown.units) == "今天气很好"


def test_a_loop_does_not_hide_all_else() -> None:
    text = result("a", "two " * 1000).texts["recognised"]
    shown = shown_text("recognised", text)
    assert len(shown.units) <= MAX_UNITS
    assert shown.num_hidden == 1000 - MAX_UNITS or shown.num_hidden > 600


def test_what_never_changes_has_no_panel(tmp_path: Path) -> None:
    rows = with_errors([1] * 12)
    history = {
        "rl_step": [1, 2, 3],
        "reward/mean": [0.1, 0.3, 0.2],
        "reward/std": [9.0, 9.0, 9.0],
        "clip_low": [0.0, 0.0, 0.0],
        "kl": [None, None, None],
        "length/mean": [3.0, 4.0, 5.0],
        "length/max": [7.0, 7.0, 7.0],
    }
    text = page(make_run(tmp_path, {"dev": rows}, {"dev": rows}, history=history))
    titles = re.findall(r"<figure><b>(.*?)</b>\n<svg", text)
    assert titles == ["reward", "tokens per sample"]
    reward = text[text.index('aria-label="reward"') :]
    # Its own scale: no spread of 9 around it.
    assert ">0.1</text>" in reward[: reward.index("</svg>")]
    assert ">9</text>" not in reward[: reward.index("</svg>")]
    assert "running mean" in reward


def test_an_archive_holds_the_page_and_its_sound(tmp_path: Path) -> None:
    rows = with_errors([1] * 12)
    folder = make_run(tmp_path / "run", {"a/b": rows, "..": rows}, {"a/b": rows, "..": rows})
    sounds = Sounds("zip")
    text = page(folder, sounds, load_clip=clip)
    (tmp_path / "report.html").write_text("of an earlier report, without its sound")
    assert write_page(tmp_path, "report", text, sounds) == tmp_path / "report.zip"
    assert not (tmp_path / "report.html").exists()
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        names = archive.namelist()
        assert names[0] == "report.html"
        assert len(names) == 1 + 10
        for name in names[1:]:
            assert re.fullmatch(r"audio/[\w.-]+\.flac", name)
            assert f'src="{name}"' in text
            wave, rate_hz = soundfile.read(io.BytesIO(archive.read(name)))
            assert (len(wave), rate_hz) == (800, 8000)


def test_sound_that_finds_no_room_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_INSIDE >= 2**20
    monkeypatch.setattr("lightning_audiorl.reports.sounds.MAX_INSIDE", 100)
    sounds = Sounds()
    assert sounds.sound("a", torch.rand(8000), 8000) == ""
    assert sounds.num_left_out == 1
    with pytest.raises(ValueError, match="inside, zip and none, got 'mp3'"):
        Sounds("mp3")  # type: ignore[arg-type]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = {"dev": [result("b", "one \ud83d"), result("a", "")]}
    again = from_plain(plain_rows(rows))
    assert again == {"dev": [rows["dev"][1], rows["dev"][0]]}

    folder = make_run(tmp_path, rows, rows)
    path = folder / "report" / "report.after.jsonl"
    assert read_rows(path, rl_step=4) == again
    # Of an evaluation that this run has not made yet.
    assert read_rows(path, rl_step=2) == {}


@pytest.mark.fault(
    "Settings and messages",
    "a file of evaluated rows in a run's folder that is cut or was changed",
    "refused with file and line, and what to do",
)
def test_damaged_rows_are_named(tmp_path: Path) -> None:
    rows = {"dev": with_errors([1] * 12)}
    folder = make_run(tmp_path, rows, rows)
    path = folder / "report" / "report.before.jsonl"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(
        ReportError, match=r"report.before.jsonl, line 13: is no row .*evaluate again"
    ):
        read_run(folder)


def test_a_run_of_which_only_recordings_are_left(tmp_path: Path) -> None:
    record = {
        "set": "dev",
        "id": "a",
        "text": "one two",
        "stage": "before",
        "rl_step": 0,
        "heard": {"judge": "one too", "other": "(nothing)"},
        "duration_s": 1.0,
        "wav": "../audio/lost.wav",
        "mel": "",
    }
    text = page_of([record], tmp_path)
    assert "<audio" not in text
    assert ">too<rt>two</rt>" in text
    assert '<del title="missing">one</del>' in text

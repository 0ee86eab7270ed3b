"""Texts of any kind under pictures, in tables and on the report's page; and the sound beside them."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import pytest
import soundfile
import torch

from lightning_audiorl.callbacks.plots import plot_judges, plot_metrics
from lightning_audiorl.callbacks.recordings import Recordings, recordings_markdown
from lightning_audiorl.callbacks.spoken_samples import mel_figure, write_wav
from lightning_audiorl.types import Speech
from tests.judges.fakes import RATE_HZ, said, tone
from tests.reports.folders import page_of

TEXTS = {
    "two prices": "from $40 it rose 20% to $48",
    "a price in a sentence": "I paid $20 and got $5 back",
    "mathematics": r"the area is $\pi r^2 and not \frac{1}{2",
    "braces and carets": r"{x}_1^2 & 50% # ~ \ $",
    "Chinese": "今天天气很好，我们去公园散步吧。",
    "Japanese": "きょうはいい天気ですね",
    "Devanagari": "आज मौसम अच्छा है",
    "Arabic": "الطقس جميل اليوم",
    "emoji": "well done 🎉👩‍🚀",
    "half a character": "one \ud83d two",
    "control characters": "one\x00two\x1b[31m\tthree\r\nfour",
    "marks of direction": "\u202eright to left\u200f and back\u2028next",
    "long": "a rather long sentence that goes on and on " * 8,
    "long without spaces": "x" * 400,
    "wide letters": "W" * 400,
    "nothing": "",
}


def speech() -> Speech:
    return Speech(tone(150.0, 0.6), RATE_HZ, torch.zeros(15).long())


@pytest.mark.fault(
    "Speech",
    "texts with $, backslashes, Chinese, emoji, control characters or 400 letters as titles of spectrograms",
    "drawn as they stand or the row's id in their place, on two lines at most, without a warning per character",
)
def test_any_text_may_be_a_title() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, text in TEXTS.items():
            figure = mel_figure(speech(), text)
            title = figure.axes[0].title
            assert len(title.get_text().splitlines()) <= 2, name

            box = title.get_window_extent()
            assert box.x0 >= 0, name
            assert box.x1 <= figure.bbox.x1, name


def test_what_no_font_can_draw_has_another_title() -> None:
    """A character that is assigned to nothing; a font that draws boxes for all of them does not count."""
    figure = mel_figure(speech(), "one \U000e0fff two", otherwise="row 7")
    assert figure.axes[0].title.get_text() == "row 7"
    figure = mel_figure(speech(), TEXTS["two prices"], otherwise="row 7")
    assert figure.axes[0].title.get_text() == TEXTS["two prices"]


@pytest.mark.fault(
    "Speech",
    "a text with two prices under a spectrogram",
    "both dollar signs are drawn; nothing is read as mathematics",
)
def test_dollars_are_dollars() -> None:
    figure = mel_figure(speech(), TEXTS["a price in a sentence"])
    title = figure.axes[0].title
    assert title.get_text().replace("\n", " ") == TEXTS["a price in a sentence"]
    assert not title.get_parse_math()


@pytest.mark.fault(
    "Speech",
    "recordings of texts with $, Chinese, control characters and half a character",
    "all files are written; the report's tables and page can be, in UTF-8",
)
def test_recordings_of_any_text(tmp_path: Path) -> None:
    names = ("two prices", "Chinese", "half a character", "control characters")
    groups = [[said(TEXTS[name], waveform=tone(150.0, 0.3), id=name)] for name in names]
    recordings = Recordings(len(groups))
    recordings.keep({"set $1 $2": groups}, tmp_path / "audio", "before", 0)
    records = recordings.of(["before"], tmp_path / "audio", tmp_path)
    assert len(records) == len(names)
    assert all(record["wav"] and record["mel"] for record in records)

    table = recordings_markdown(records, {})
    page = page_of(records, tmp_path)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    (tmp_path / "report.md").write_text(table, encoding="utf-8")
    assert TEXTS["two prices"] in page
    assert TEXTS["Chinese"] in table
    assert len(table.splitlines()) == 2 + len(names)


@pytest.mark.fault(
    "Speech",
    "evaluation sets whose names hold $ or Chinese",
    "the report's plots are drawn",
)
def test_names_of_sets_in_plots(tmp_path: Path) -> None:
    names = ("from $4 to $5", "a\\frac{ $b$ $", "测试集")
    results = {name: {"cer": 0.4, "held_out_cer": 0.5, "missing_stop_rate": 0.0} for name in names}
    evaluations = [{"rl_step": step, "results": results} for step in (0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plot_metrics(results, results, ("before $1", "after $2"), tmp_path / "bars.png")
        assert plot_judges(evaluations, tmp_path / "judges.png")


@pytest.mark.fault(
    "Speech",
    "a sample beyond full scale written as a wav file",
    "clipped, with a warning that says how much of it",
)
def test_clipping_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wave = torch.tensor([0.5, -2.0, 3.0, 0.25])
    with caplog.at_level(logging.WARNING):
        write_wav(tmp_path / "loud.wav", Speech(wave, 16000, torch.zeros(1)))
        write_wav(tmp_path / "fine.wav", Speech(wave / 4, 16000, torch.zeros(1)))
    (record,) = caplog.records
    assert "loud.wav: 2 samples (50 %) are beyond full scale and clipped" in record.getMessage()
    samples, rate_hz = soundfile.read(tmp_path / "loud.wav")
    assert rate_hz == 16000
    assert samples == pytest.approx([0.5, -1.0, 1.0, 0.25], abs=1e-4)


@pytest.mark.fault(
    "Speech",
    "a sample with NaN among the recordings of a report",
    "no file that sounds like silence: none is written, with a warning, and the others stay",
)
def test_a_broken_sample_has_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = tone(150.0, 0.3)
    broken[100] = math.nan
    groups = [[said("one", waveform=broken, id="a")], [said("two", waveform=tone(150.0, 0.3))]]
    recordings = Recordings(2)
    with caplog.at_level(logging.WARNING):
        recordings.keep({"dev": groups}, tmp_path, "before", 0)
    first, second = recordings.of(["before"], tmp_path, tmp_path)
    assert (first["wav"], first["mel"]) == ("", "")
    assert second["wav"]
    assert second["mel"]
    assert [path.name for path in sorted(tmp_path.rglob("*.wav"))] == ["01_before.wav"]
    assert "holds NaN or infinite values" in caplog.text
    assert "one" in page_of([first, second], tmp_path)

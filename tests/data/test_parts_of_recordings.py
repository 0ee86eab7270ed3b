"""Rows that are a part of a recording in another format's words, and choices that do not exist."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.data import AsrDataModule, ManifestRows
from tests.command import write_rows
from tests.data.fakes import write_tone


@pytest.mark.fault(
    "Manifests",
    "rows that say by `start` or `start_time`, and not by `offset`, where they begin in a recording",
    "a line says once for the manifest that the audio is read from the beginning of its file",
)
@pytest.mark.parametrize("name", ["start", "start_time", "begin"])
def test_a_start_is_no_offset(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    write_tone(tmp_path / "a.wav", 0.5)
    row = {"audio_filepath": "a.wav", "text": "one", name: 0.1, "end": 0.3}
    path = write_rows(tmp_path / "parts.jsonl", [row, row])
    with caplog.at_level(logging.WARNING):
        ManifestRows(str(path))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: `{name}` is no field of ours, so audio is read from the beginning of its file; where that is a "
        "whole recording, give where the row begins as `offset`, and how long it lasts as `duration`"
    ]

    caplog.clear()
    quiet = [row | {"offset": 0.1, "duration": 0.2}, row | {name: 0.0}, row | {name: "sil"}]
    with caplog.at_level(logging.WARNING):
        ManifestRows(str(write_rows(tmp_path / "quiet.jsonl", quiet)))
    assert not caplog.records


@pytest.mark.fault(
    "Manifests",
    "on_too_long or on_bad_row of another word than error or skip, in a program",
    "refused where the data module is made",
)
@pytest.mark.parametrize("choice", [{"on_too_long": "cut"}, {"on_bad_row": "ignore"}])
def test_choices_are_error_and_skip(choice: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"AsrDataModule\.on_.*: want error or skip"):
        AsrDataModule(**choice)

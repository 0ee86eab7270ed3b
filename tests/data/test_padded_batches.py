"""Batches within a budget of seconds count what a clip is computed as: of Whisper, its whole window."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_audiorl.data import AsrDataModule, NonSpeech, duration_batches
from tests.models.families import SPECS, make


def test_a_window_for_every_clip_of_whisper_and_its_own_length_elsewhere() -> None:
    assert SPECS["whisper"].chunk_length_s == 2
    whisper = make("whisper", lively=False)
    assert [whisper.padded_s(seconds) for seconds in (0.1, 2.0, 3.0)] == [2.0, 2.0, 4.0]
    assert make("fun_asr_nano", lively=False).padded_s(0.1) == 0.1
    assert make("text_lm", lively=False).padded_s(0.1) == 0.1


def test_rows_stay_in_the_order_of_their_durations() -> None:
    durations = [1.0, 3.0, 2.0, 5.0]
    batches = duration_batches(durations, 60.0, 8, padded_s=[30.0] * 4)
    assert batches == [[3, 1], [2, 0]]
    assert duration_batches(durations, 60.0, 8) == [[3, 1, 2, 0]]
    assert duration_batches(durations, 10.0, 8, padded_s=[30.0] * 4) == [[3], [1], [2], [0]]


@pytest.mark.parametrize(("family", "sizes"), [("whisper", [3, 3, 2]), ("fun_asr_nano", [8])])
def test_an_evaluation_set_goes_by_it(family: str, sizes: list[int]) -> None:
    rows = NonSpeech(8, kinds=["white"], min_s=0.2, max_s=0.7)
    datamodule = AsrDataModule(val={"noise": rows}, max_batch_s=7.0)
    trainer: Any = SimpleNamespace(
        lightning_module=SimpleNamespace(policy=make(family, lively=False))
    )
    datamodule.trainer = trainer
    [loader] = datamodule.val_dataloader()
    assert [len(batch) for batch in loader] == sizes

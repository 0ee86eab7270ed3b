"""Sound in TensorBoard: captions, the clips that changed most, and an end to it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from lightning_audiorl.callbacks import RLCheckpoint, SampleLogger
from lightning_audiorl.callbacks.clips import ClipWriter, caption_of, changed_most, heard_caption
from lightning_audiorl.types import Hypothesis, Utterance
from tests.callbacks import runs
from tests.callbacks.test_samples import events, sounds


def heard(row_id: str, text: str, reference: str = "one two three") -> list[Hypothesis]:
    return [Hypothesis(Utterance(row_id, (), reference, 1.0), text)]


def captions(folder: Path) -> dict[str, str]:
    """The caption of each clip, by tag."""
    return {tag: clip.caption for tag, clip in sounds(events(folder)).items()}


def test_the_clips_that_changed_most_come_first_and_of_equal_ones_the_worst() -> None:
    groups = [
        heard("same", "one two three"),
        heard("mended", "one two three"),
        heard("worse", "one"),
        heard("bad as ever", "nine nine nine"),
    ]
    start = {"mended": "nine nine nine", "worse": "one two three", "bad as ever": "nine nine nine"}
    assert [one.row.id for one in changed_most(groups, start, 3)] == [
        "mended",
        "worse",
        "bad as ever",
    ]
    # Without a start the worst.
    assert [one.row.id for one in changed_most(groups, {}, 2)] == ["bad as ever", "worse"]


def test_a_caption_is_one_short_line() -> None:
    [hypothesis] = heard("a", "")
    assert (
        heard_caption(hypothesis, None) == "said: one two three | heard: (nothing) (100 % errors)"
    )
    long = caption_of(["said:\n" + "word " * 100])
    assert len(long) <= 120
    assert "\n" not in long


def test_a_run_has_its_fill_of_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = SummaryWriter(str(tmp_path))
    clips = ClipWriter(max_audio_s=1.0, max_mib=80_000 / 2**20)
    wave = torch.zeros(30_000)
    with caplog.at_level(logging.WARNING):
        # Each is cut after a second: 32,000 bytes.
        done = [clips.write(writer, f"clip/{i}", wave, 16_000, i, "a clip") for i in range(4)]
    assert done == [True, True, False, False]
    assert clips.num_bytes == 64_000
    assert caplog.text.count("max_audio_mib") == 1
    assert not ClipWriter(0.0, 1.0).write(writer, "none", wave, 16_000, 0, "no sound wanted")


def test_clips_of_a_run_and_of_one_that_goes_on(root: str, tmp_path: Path) -> None:
    """Captions of groups say rewards; those of the last evaluation what was heard at the first one."""

    def fit(folder: Path, num_steps: int, ckpt_path: str | None = None) -> dict[str, str]:
        logger = TensorBoardLogger(folder, name="", version="")
        samples = SampleLogger(1, num_groups=1, num_clips=2)
        saving = RLCheckpoint(every_n_steps=1, keep=9)
        module = runs.grpo(num_steps=num_steps, group_size=6)
        runs.fit(folder, root, samples, saving, module=module, logger=logger, ckpt_path=ckpt_path)
        return captions(folder)

    whole = fit(tmp_path / "whole", 2)
    assert whole["groups/step 1/0"].startswith("said: ")
    assert "| best (" in whole["groups/step 1/0"]
    assert "| heard: " in whole["val/digits/step 0/0"]
    assert "| at first: " in whole["val/digits/step 2/0"]
    assert "| now: " in whole["val/digits/step 2/0"]
    assert len([tag for tag in whole if tag.startswith("val/digits/step 2")]) == 2

    last = str(tmp_path / "whole" / "checkpoints" / "step-000001.ckpt")
    resumed = fit(tmp_path / "resumed", 2, last)
    assert resumed == {tag: whole[tag] for tag in resumed}
    assert "val/digits/step 2/0" in resumed

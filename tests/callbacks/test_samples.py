from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_audiorl.callbacks import SampleLogger
from lightning_audiorl.callbacks.samples import (
    CHARTS,
    best_and_worst,
    group_table,
    hypothesis_table,
    marked_texts,
)
from lightning_audiorl.types import Hypothesis, Scores, Segment, Utterance
from tests.callbacks import runs


def said(text: str, reference: str, **settings: Any) -> Hypothesis:
    return Hypothesis(
        Utterance("clip", (Segment("synthetic:silence", 1.0),), reference, 1.0), text, **settings
    )


def events(folder: Path) -> EventAccumulator:
    sizes = {"tensors": 0, "audio": 0, "scalars": 0}
    found = EventAccumulator(str(folder), size_guidance=sizes)
    found.Reload()
    return found


def texts(found: EventAccumulator, tag: str) -> dict[int, str]:
    return {
        one.step: one.tensor_proto.string_val[0].decode()
        for one in found.Tensors(f"{tag}/text_summary")
    }


@dataclass(frozen=True)
class Sound:
    """A clip in TensorBoard."""

    caption: str
    step: int
    wav: bytes


def sounds(found: EventAccumulator) -> dict[str, Sound]:
    """Every clip by its tag; each has a tag of its own."""
    clips = {}
    for tag in found.Tags()["tensors"]:
        metadata = found.SummaryMetadata(tag)
        if metadata.plugin_data.plugin_name == "audio":
            [event] = found.Tensors(tag)
            clips[tag] = Sound(metadata.display_name, event.step, event.tensor_proto.string_val[0])
    return clips


def test_a_run_leaves_text_and_audio(root: str, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    callback = SampleLogger(every_n_steps=2, num_groups=1, num_rows=2)
    module = runs.fit(
        tmp_path, root, callback, module=runs.grpo(num_steps=3, group_size=6), logger=logger
    )
    found = events(tmp_path)
    groups = texts(found, "groups")
    assert sorted(groups) == [1, 2]
    header, _, best, worst = groups[2].splitlines()
    assert (
        header
        == "| id | reference |  | hypothesis | reward | accuracy | hallucination | tokens | rules |"
    )
    assert "| best |" in best
    assert "| worst |" in worst
    assert float(best.split("|")[5]) > float(worst.split("|")[5])
    audio = sounds(found)
    for step in (1, 2):
        clip = audio[f"groups/step {step}/0"]
        assert clip.step == step
        assert clip.wav.startswith(b"RIFF")
        assert soundfile.info(io.BytesIO(clip.wav)).samplerate == 16000
    for name, num_rows in (("digits", 2), ("noise", 2)):
        tables = texts(found, f"val/{name}")
        assert sorted(tables) == [0, 3]
        # Of each row what was said, and below it what was heard.
        assert len(tables[3].splitlines()) == 2 + 2 * num_rows
        assert module.last_hypotheses[name][0][0].row.id in tables[3]


def test_without_tensorboard_nothing_is_prepared(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("work for nobody")

    for name in ("best_and_worst", "group_table", "hypothesis_table"):
        monkeypatch.setattr(f"lightning_audiorl.callbacks.samples.{name}", forbidden)
    callback = SampleLogger(every_n_steps=1)
    assert (
        runs.fit(
            tmp_path, root, callback, module=runs.grpo(num_steps=1), logger=CSVLogger(tmp_path)
        ).rl_step
        == 1
    )


def test_supervised_training_has_no_groups(root: str, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    runs.fit(
        tmp_path, root, SampleLogger(every_n_steps=1), module=runs.sft(num_steps=1), logger=logger
    )
    found = events(tmp_path)
    assert sorted(set(found.Tags()["tensors"]) - set(sounds(found))) == [
        "custom_scalars__config__",
        "val/digits/text_summary",
        "val/noise/text_summary",
    ]


def test_groups_with_the_widest_rewards_and_no_invalid_sample() -> None:
    total = torch.tensor([[0.0, 0.1, 0.2], [0.5, -9.0, 0.9], [1.0, 3.0, 2.0], [0.0, 9.0, 9.0]])
    valid = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 0]]).bool()
    scores = Scores(total, valid, {"a": total})
    assert best_and_worst(scores, 2) == [(2, 1, 0), (1, 2, 0)]
    assert len(best_and_worst(scores, 9)) == 3


def test_errors_are_bold_on_both_lines() -> None:
    lines = hypothesis_table([[said("turn the left cow", "Turn left now")]]).splitlines()
    assert lines[0] == "| id |  | text | tokens | rules |"
    assert lines[2] == "| clip | said | turn left **now** |  |  |"
    assert lines[3].startswith("|  | heard | turn **the** left **cow** | 0 |")
    # What is in a text is no mark of ours.
    marked = marked_texts(said("two", "a_b*c`d"))[0]
    assert not re.search(r"(?<!\\)(_|`)|(?<![\\*])\*(?!\*)", marked)


def test_the_charts_are_of_tags_that_a_run_writes(root: str, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    runs.fit(tmp_path, root, SampleLogger(0), module=runs.grpo(num_steps=1), logger=logger)
    found = events(tmp_path)
    tags = found.Tags()["scalars"]
    assert len(CHARTS) == 5
    for title, patterns in CHARTS.items():
        for pattern in patterns:
            assert any(re.search(pattern, tag) for tag in tags), title
    (config,) = found.Tensors("custom_scalars__config__")
    shown = config.tensor_proto.string_val[0]
    assert all(title.encode() in shown for title in CHARTS)


def test_the_tables_name_the_rules_that_fire() -> None:
    looping = said("one " * 9, "one", num_tokens=10, finished=False)
    reference, heard = hypothesis_table([[looping]]).splitlines()[2:]
    assert reference == "| clip | said | one |  |  |"
    assert heard.endswith("| 10 (cut) | loop, runaway_length |")
    total = torch.tensor([[1.0, -1.0]])
    scores = Scores(total, total > -5, {"accuracy": total / 2})
    best, worst = group_table([[said("one", "one"), looping]], scores, [(0, 0, 1)]).splitlines()[2:]
    assert best == "| clip | one | best | one | 1.000 | 0.500 | 0 |  |"
    assert "| -1.000 | -0.500 | 10 (cut) | loop" in worst


def test_the_prompt_stands_beside_a_row_with_hotwords() -> None:
    plain = said("two", "one")
    listed = said("one", "one", prompt="<start> anna | victor")
    assert "prompt" not in hypothesis_table([[plain]])
    header, _, _, first, _, second = hypothesis_table([[plain], [listed]]).splitlines()
    assert header.endswith("| rules | prompt |")
    assert first.endswith("|  |")
    assert second.endswith(r"| &lt;start&gt; anna \| victor |")
    scores = Scores(torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool), {})
    table = group_table([[listed, listed]], scores, [(0, 0, 1)])
    assert table.splitlines()[0].endswith("| prompt |")

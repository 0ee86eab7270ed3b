"""A run from YAML whose prompts name words: what it logs, and what stands in TensorBoard's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.command import class_of, run, tiny_config, write_manifest, write_rows

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
METRICS = ("hotword_recall", "hotword_recall_wrong", "hotword_recall_none")


def config_of(folder: Path, **settings: Any) -> dict[str, Any]:
    """Three evaluation sets of the same rows: with the right list, a wrong one and none."""
    folder.mkdir(exist_ok=True)
    manifest = write_manifest(folder)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    write_rows(manifest, [{**row, "keywords": row["text"].split()[:1]} for row in rows])
    (folder / "digits.txt").write_text("\n".join(DIGITS))

    config = tiny_config(folder, **settings)
    config["trainer"]["logger"] = class_of(
        "lightning.pytorch.loggers.TensorBoardLogger", save_dir=str(folder), name="", version=""
    )
    words = {"sizes": [2], "distractors": str(folder / "digits.txt")}
    rows_of = class_of("data.ManifestRows")
    rows_of["init_args"]["path"] = str(manifest)
    wrong = words | {"share_wrong": 1.0}
    mixed = words | {"share_wrong": 0.4, "share_without": 0.4}
    config["data"]["init_args"] |= {
        "hotwords": words | {"share_wrong": 0.2, "share_without": 0.2},
        "val": {
            "right": class_of("data.WithHotwords", source=rows_of, hotwords=words),
            "wrong": class_of("data.WithHotwords", source=rows_of, hotwords=wrong),
            "mixed": class_of("data.WithHotwords", source=rows_of, hotwords=mixed),
            "none": rows_of,
        },
    }
    return config


def texts(folder: Path, tag: str) -> list[str]:
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return [one.tensor_proto.string_val[0].decode() for one in found.Tensors(f"{tag}/text_summary")]


def test_lists_reach_prompts_metrics_and_tables(tmp_path: Path) -> None:
    keyword = class_of("rewards.Keyword", hotwords=True)
    rewards = class_of("rewards.RewardMix", rewards=[class_of("rewards.Accuracy"), keyword])
    module = run(tmp_path, config_of(tmp_path / "run", rewards=rewards)).model

    sets = module.evaluations[-1]["results"]
    assert not [name for name in sets["none"] if name.startswith("hotword")]
    assert [name for name in METRICS if name in sets["mixed"]] == list(METRICS)
    recalled = sets["right"]["hotword_recall"], sets["wrong"]["hotword_recall_wrong"]
    assert all(0 <= recall <= 1 for recall in recalled)
    assert 0 <= sets["wrong"]["hotword_false_alarm_rate"] <= 1

    # What the model read stands beside what it wrote, of training and of each set with lists.
    step = module.last_step
    listed = [group[0] for group in step.groups if group[0].row.hotwords]
    for hypothesis in listed:
        read = hypothesis.prompt.split()
        assert [word for word in read if word in DIGITS] == list(hypothesis.row.hotwords)
    # Two lines a sample: what was said, and what was heard, with the prompt.
    header, _, *lines = texts(tmp_path / "run", "val/right")[-1].splitlines()
    rows = lines[1::2]
    assert header.endswith("| rules | prompt |")
    assert all("&lt;|object_ref_start|&gt;".replace("|", "\\|") in row for row in rows)
    assert "prompt" not in texts(tmp_path / "run", "val/none")[-1]


@pytest.mark.fault(
    "Runs that stop and go on",
    "a run with drawn lists of hotwords that is broken off",
    "goes on with the lists that it would have had, and ends with the same weights",
)
def test_a_run_that_goes_on_sees_the_same_lists(tmp_path: Path) -> None:
    whole = run(tmp_path, config_of(tmp_path / "whole", num_steps=4)).model
    short = config_of(tmp_path / "short", num_steps=2)
    run(tmp_path, short)
    short["model"]["init_args"]["num_steps"] = 4
    gone_on = run(tmp_path, short, "--ckpt_path", "last").model

    prompts = [[group[0].prompt for group in one.last_step.groups] for one in (whole, gone_on)]
    assert prompts[0] == prompts[1]
    assert any(prompts[0])
    weights = zip(
        whole.policy.trainable().values(), gone_on.policy.trainable().values(), strict=True
    )
    assert all(torch.equal(one, other) for one, other in weights)

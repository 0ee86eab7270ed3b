"""docs/extending.md: each task's file and its line of YAML, taken from the page, run on a tiny system."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_audiorl import cli
from lightning_audiorl.data import ManifestRows
from lightning_audiorl.models import SampleKey
from lightning_audiorl.types import Decoding
from tests.command import class_of, run, tiny_config, write_manifest
from tests.helpers import assert_close
from tests.models.families import log_probs

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"```(python|yaml)\n(.*?)```", re.DOTALL)


def task(heading: str) -> tuple[str, str, dict[str, Any]]:
    """Name and text of the file under a heading of the page, and the settings of its line of YAML."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(f"{heading}\n"))
    blocks = BLOCK.findall(text)
    assert [language for language, _ in blocks] == ["python", "yaml"]
    code, settings = (block for _, block in blocks)
    assert len(settings.splitlines()) == 1
    return code.splitlines()[0].removeprefix("# "), code, yaml.safe_load(settings)


def laid_over(settings: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """The settings with what the line says, key by key."""
    out = deepcopy(settings)
    for key, value in line.items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = laid_over(out[key], value) if nested else value
    return out


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a newcomer, who calls ``audiorl`` in it."""
    write_manifest(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def follow(folder: Path, heading: str, settings: dict[str, Any]) -> cli.AudioRLCLI:
    """Write the file, add the line, run."""
    name, code, line = task(heading)
    (folder / name).write_text(code)
    return run(folder, laid_over(settings, line))


def test_every_task_of_the_page_is_tested() -> None:
    headings = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    tested = Path(__file__).read_text()
    assert len(headings) == 5
    assert [heading for heading in headings if f'"{heading}"' not in tested] == []


def test_a_reward(folder: Path) -> None:
    settings = tiny_config(folder)
    del settings["model"]["init_args"]["rewards"]
    module = follow(folder, "A reward", settings).model
    assert {"reward/accuracy/mean", "reward/no_fillers/mean"} <= module.step_metrics.keys()
    assert module.step_metrics["reward_failures/no_fillers"] == 0
    reward = module.rewards.rewards[1]
    said = [hypothesis for group in module.last_step.groups for hypothesis in group]
    assert len(reward.score(said)) == len(said)


def test_a_loss(folder: Path) -> None:
    """It trains, with two updates a step and in micro-batches, and a resumed run is the whole run."""
    settings = tiny_config(folder)
    shared = settings["model"]["init_args"]
    sampler = {"group_size": shared.pop("group_size"), "decoding": shared.pop("decoding")}
    shared |= {"sampler": sampler, "num_updates": 2, "micro_batch_size": 1, "num_steps": 3}
    settings["checkpoint"] = {"every_n_steps": 1, "keep": 9}
    module = follow(folder, "A loss", settings).model
    assert module.rl_step == 3
    assert module.step_metrics["loss"] > 0
    assert module.step_metrics["grad_norm"] > 0
    (loss,) = module.losses
    used = loss.prepare(module.last_step, None).used
    assert used.sum(-1).tolist() == [1, 1]
    best = module.last_step.scores.total[used]
    assert torch.equal(best, module.last_step.scores.total.amax(-1))

    checkpoint = folder / "run" / "checkpoints" / "step-000001.ckpt"
    _, _, line = task("A loss")
    resumed = run(folder, laid_over(settings, line), "--ckpt_path", str(checkpoint)).model
    for name, parameter in module.policy.trainable().items():
        assert torch.equal(parameter, resumed.policy.trainable()[name])


def test_a_metric(folder: Path) -> None:
    """In the log, in the report's table, drawn, watched, and monitored by the checkpoint."""
    settings = tiny_config(folder) | {
        "checkpoint": {"monitor": "val/tones/first_word_rate", "mode": "max"}
    }
    settings["report"] = {"enabled": True}
    command = follow(folder, "A metric", settings)
    module, trainer = command.model, command.trainer
    value = module.evaluations[-1]["results"]["tones"]["first_word_rate"]
    assert 0 <= value <= 1
    assert float(trainer.callback_metrics["val/tones/first_word_rate"]) == pytest.approx(value)
    assert (folder / "run" / "checkpoints" / "best.ckpt").is_file()
    header, *_ = (
        line
        for line in (folder / "run" / "report" / "report.md").read_text().splitlines()
        if line.startswith("set ")
    )
    assert "first word" in header

    from lightning_audiorl.callbacks.metric_table import shown_metrics
    from lightning_audiorl.metrics.watch import reward_hacking_alerts

    (spec,) = (
        spec
        for spec in shown_metrics(module.evaluations[-1]["results"])
        if spec.name == "first_word_rate"
    )
    assert spec.bars is not None
    assert reward_hacking_alerts([0.0, 1.0], {"val/tones/first_word_rate": [0.9, 0.1]})


def test_a_model_family(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains, pairs each clip with its own group, exports what it reads back, and is planned."""
    settings = tiny_config(folder) | {"export": {"enabled": True}}
    settings["model"]["init_args"].pop("policy")
    settings["model"]["init_args"] |= {"num_updates": 2, "micro_batch_size": 1}
    command = follow(folder, "A model family", settings)
    module, data = command.model, command.datamodule
    policy = module.policy
    assert module.rl_step == 2
    assert {"model.projector.weight", "model.model.norm.weight"} <= policy.trainable().keys()

    context = policy.encode(data.load(list(ManifestRows(str(folder / "train.jsonl")))))
    rollout = policy.sample(context, 2, Decoding(max_new_tokens=5), SampleKey(0, 0))
    whole = log_probs(policy, context, rollout)
    assert_close(whole, rollout.log_probs * rollout.keep, "policy")
    alone = log_probs(policy, context.select([3]), rollout.select([3]))
    assert_close(alone[0], whole[3, :, : alone.shape[-1]], "policy")

    again = type(policy)(str(folder / "run" / "export"))
    assert_close(log_probs(again, context, rollout), whole, "policy")

    cli.main(
        ["plan", "--config", str(folder / "config.yaml"), "--audio_s", "2", "--accelerator", "cpu"]
    )
    assert "update" in capsys.readouterr().out


def test_a_data_subset(folder: Path) -> None:
    """Rows are kept by the rule, the slowest first, and say why."""
    settings = tiny_config(folder)
    data: dict[str, Any] = {
        "batch_size": 2,
        "val": {"other": class_of("data.NonSpeech", num_rows=2)},
    }
    data |= {"cache_dir": str(folder / "mix"), "content_cache": str(folder / "content.sqlite")}
    module = follow(folder, "A data subset", settings | {"data": {"init_args": data}}).model
    assert module.rl_step == 2
    (manifest,) = (folder / "mix").rglob("slow.jsonl")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rates = [len(row["text"].split()) / row["duration"] for row in rows]
    assert rates
    assert max(rates) <= 5.0
    assert all("words a second" in row["chosen_because"] for row in rows)

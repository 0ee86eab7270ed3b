from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning import Trainer
from lightning.pytorch.cli import LightningCLI

from lightning_audiorl.data import Augment, FsddDigits, NonSpeech
from lightning_audiorl.data.datamodules.asr_rl import AsrRLDataModule
from lightning_audiorl.data.mix.build import MixPlan, RLSubset
from lightning_audiorl.data.mix.selection.by_metadata import Length, RandomControl
from lightning_audiorl.types import PromptBatch
from tests.command import parser, tiny_config
from tests.data.mixes import HighFirst, write_set
from tests.data.test_datamodule import Recorder, assert_same_batches, trainer
from tests.helpers import assert_close


@pytest.fixture
def train(tmp_path: Path) -> str:
    return write_set(tmp_path, "train", 12, seed=0)


def module(folder: Path, train: str, **settings: Any) -> AsrRLDataModule:
    settings = {
        "subsets": {
            "high": RLSubset(train, HighFirst(4), share=0.6),
            "noise": RLSubset(NonSpeech(9, min_s=0.1, max_s=0.2), share={0: 0.4}),
        },
        "val": {"noise": NonSpeech(3, min_s=0.1, max_s=0.2, seed=7)},
        "batch_size": 5,
        "cache_dir": str(folder / "mixes"),
        "content_cache": str(folder / "content.sqlite"),
    } | settings
    return AsrRLDataModule(**settings)


def take(data: AsrRLDataModule, num: int) -> list[PromptBatch]:
    return list(islice(data.train_dataloader(), num))


@pytest.fixture
def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    builds: list[str] = []
    build = MixPlan.build

    def counted(self: MixPlan) -> Path:
        builds.append(str(build(self)))
        return Path(builds[-1])

    monkeypatch.setattr(MixPlan, "build", counted)
    return builds


def test_batches_come_from_the_chosen_rows_by_share(tmp_path: Path, train: str) -> None:
    data = module(tmp_path, train)
    data.prepare_data()
    batches = take(data, 8)
    for batch in batches:
        assert Counter(row.extra["subset"] for row in batch.rows) == {"high": 3, "noise": 2}
        assert all(row.extra["chosen_because"] for row in batch.rows)
    ids = [row_id for batch in batches for row_id in batch.ids]
    assert len(set(ids)) == 40
    assert {f"train{i}@high.{epoch}" for i in (8, 9, 10, 11) for epoch in range(6)} == {
        i for i in ids if "@high" in i
    }
    assert all(row_id.endswith(("@noise.0", "@noise.1")) for row_id in ids if "@high" not in row_id)
    assert data.summary["subsets"]["high"]["kept"] == 4
    assert [len(batch) for batch in data.val_dataloader()[0]] == [3]


def test_another_process_reads_what_was_built(
    tmp_path: Path, train: str, count_builds: list[str]
) -> None:
    waiting = module(tmp_path, train)
    with pytest.raises(FileNotFoundError, match=r"mix is not built here; call prepare_data first"):
        waiting.setup("fit")
    first = module(tmp_path, train)
    first.prepare_data()
    waiting.setup("fit")
    assert_same_batches(take(waiting, 3), take(first, 3))
    assert_same_batches(take(module(tmp_path, train, num_workers=2), 3), take(first, 3))
    assert len(count_builds) == 1
    assert waiting.folder == first.folder


def test_ranks_see_disjoint_rows_of_one_mix(
    tmp_path: Path, train: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module(tmp_path, train, batch_size=4)
    whole.prepare_data()
    parts, refills = [], []
    for rank in range(2):
        monkeypatch.setattr(
            "lightning_audiorl.data.datamodules.asr._rank_and_size", lambda rank=rank: (rank, 2)
        )
        data = module(tmp_path, train, batch_size=4)
        data.setup("fit")
        parts.append(take(data, 6))
        refills.append(data.refill(3, 1, 2))
    monkeypatch.undo()
    for step, batch in enumerate(take(whole, 6)):
        assert parts[0][step].ids + parts[1][step].ids == batch.ids
        assert not set(parts[0][step].ids) & set(parts[1][step].ids)
    assert len({i for part in parts for batch in part for i in batch.ids}) == 24
    refill = whole.refill(3, 1, 4)
    assert refills[0].ids + refills[1].ids == refill.ids
    assert {row_id.split("@")[1] for row_id in refill.ids} == {"high.r3.1", "noise.r3.1"}
    assert_close(refill.waveform[0, : refills[0].num_samples[0]], refills[0].waveform[0, : refills[0].num_samples[0]],
                 "exact")  # fmt: skip


def test_shares_change_with_the_step(tmp_path: Path, train: str) -> None:
    subsets = {
        "high": RLSubset(train, HighFirst(4), share={0: 1.0, 2: 0.5, 4: 0.0}),
        "noise": RLSubset(NonSpeech(9, min_s=0.1, max_s=0.2), share={2: 0.5, 4: 1.0}),
    }
    data = module(tmp_path, train, subsets=subsets, batch_size=4)
    data.prepare_data()
    counts = [Counter(row.extra["subset"] for row in batch.rows) for batch in take(data, 6)]
    assert counts == [{"high": 4}] * 2 + [{"high": 2, "noise": 2}] * 2 + [{"noise": 4}] * 2
    assert {row.extra["subset"] for row in data.refill(5, 0, 6).rows} == {"noise"}


def test_no_row_of_any_evaluation_set_enters(tmp_path: Path, train: str) -> None:
    rows = Path(train).read_text().splitlines()
    held = {}
    for name, number in (("val", 11), ("test", 10), ("forbid", 9)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(rows[number] + "\n")
        held[name] = {"mine": str(path)}
    data = module(tmp_path, train, **held)
    data.prepare_data()
    assert sorted(row.id for row in data.rows("train/high")) == [
        "train5",
        "train6",
        "train7",
        "train8",
    ]
    refused = data.summary["subsets"]["high"]["refused_first"]
    assert [why.rpartition(" ")[2] for why in refused] == ["'train11'", "'train10'", "'train9'"]
    assert [
        set_name
        for why in refused
        for set_name in data.summary["kept_out"]
        if f"audio of {set_name}" in why
    ] == [
        "val/mine",
        "test/mine",
        "forbid/mine",
    ]


def test_too_long_rows_are_told_before_training(tmp_path: Path, train: str) -> None:
    data = module(tmp_path, train, max_duration_s=0.2)
    data.prepare_data()
    with pytest.raises(ValueError, match=r"train/high: row 'train11' lasts 0.21 s"):
        data.train_dataloader()
    data = module(tmp_path, train, max_duration_s=0.2, on_too_long="skip")
    data.setup("fit")
    assert {row.id for row in data.rows("train/high")} == {"train8", "train9", "train10"}


def test_lightning_builds_once_and_a_resume_goes_on(
    tmp_path: Path, train: str, count_builds: list[str]
) -> None:
    whole, resumed = Recorder(), Recorder()
    settings: dict[str, Any] = {"augment": Augment(), "pool": 2}
    trainer(tmp_path, 6, []).fit(whole, module(tmp_path, train, **settings))
    assert len(count_builds) == 1
    data = module(tmp_path, train, **settings)
    data.load_state_dict({"next_step": 4})
    trainer(tmp_path, 2, []).fit(resumed, data)
    assert resumed.trained == whole.trained[4:]
    assert count_builds[0] == count_builds[1]


def test_evaluating_builds_nothing(tmp_path: Path, train: str, count_builds: list[str]) -> None:
    recorder = Recorder()
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet).validate(
        recorder, module(tmp_path, train)
    )
    assert recorder.validated == [(0, 3)]
    assert count_builds == []
    assert not (tmp_path / "mixes").exists()


def test_bad_mixes_are_told_when_the_module_is_made(tmp_path: Path, train: str) -> None:
    with pytest.raises(ValueError, match=r"shares add up to 0\.9 at step 0"):
        module(tmp_path, train, subsets={"a": RLSubset(train, share=0.9)})
    with pytest.raises(ValueError, match="is like 'x', which does not exist"):
        module(tmp_path, train, subsets={"a": RLSubset(train, RandomControl(like="x"))})
    with pytest.raises(TypeError, match="train"):
        module(tmp_path, train, train=train)


YAML = """
subsets:
  control:
    source: &digits
      class_path: lightning_audiorl.data.FsddDigits
      init_args: {{root: {root}, num_words: [1, 3], num_rows: 40}}
    builder:
      class_path: lightning_audiorl.data.RandomControl
      init_args: {{num_rows: 6}}
    share: {{0: 0.5, 10: 0.25}}
  long:
    source: *digits
    builder:
      class_path: lightning_audiorl.data.Length
      init_args: {{min_s: 0.3}}
    share: {{0: 0.5, 10: 0.75}}
val:
  digits:
    class_path: lightning_audiorl.data.FsddDigits
    init_args: {{root: {root}, part: dev, num_rows: 8}}
forbid:
  speaker:
    class_path: lightning_audiorl.data.FsddDigits
    init_args: {{root: {root}, part: test, num_rows: 8, only_speakers: [ann]}}
"""


def test_the_cli_builds_it_from_yaml(root: str, tmp_path: Path) -> None:
    data_settings = yaml.safe_load(YAML.format(root=root))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data_settings}))
    args = ["--config", str(tmp_path / "config.yaml"), f"--data.cache_dir={tmp_path / 'mixes'}", "--data.batch_size=4",
            f"--data.content_cache={tmp_path / 'c.sqlite'}", "--data.seed=3"]  # fmt: skip
    data = LightningCLI(
        Recorder, AsrRLDataModule, run=False, save_config_callback=None, args=args
    ).datamodule
    assert isinstance(data.subsets["control"], RLSubset)
    assert isinstance(data.subsets["long"].builder, Length)
    assert data.subsets["long"].share == {0: 0.5, 10: 0.75}
    assert isinstance(data.forbid["speaker"], FsddDigits)
    assert (data.seed, data.batch_size, data.val_names) == (3, 4, ["digits"])
    data.prepare_data()
    assert len(take(data, 1)[0]) == 4
    for wrong in ("--data.train=a.jsonl", "--data.cachedir=a"):
        with pytest.raises(SystemExit):
            LightningCLI(Recorder, AsrRLDataModule, run=False, args=[*args, wrong])


def test_audiorl_fit_parses_it(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    settings = yaml.safe_load(YAML.format(root=root))
    config["data"] = {
        "class_path": "lightning_audiorl.data.datamodules.asr_rl.AsrRLDataModule",
        "init_args": settings,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    try:
        fit = parser().parse_args(["fit", "--config", str(path)]).fit
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    assert fit.data.init_args.seed == fit.seed_everything == config["seed_everything"]
    assert fit.data.init_args.subsets["control"].builder.class_path.endswith("RandomControl")
    settings["subsets"]["long"]["builder"]["init_args"]["min_seconds"] = 3
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        parser().parse_args(["fit", "--config", str(path)])
    assert "min_seconds" in capsys.readouterr().err


def test_the_build_is_the_same_in_another_interpreter(root: str, tmp_path: Path) -> None:
    """Nothing that differs between processes (hash seeds, object addresses) is in the key."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, '.')\n"
        "from tests.data.test_rl_datamodule import module\n"
        "print(module(Path(sys.argv[1]), sys.argv[2]).folder)\n"
    )
    train = write_set(tmp_path, "train", 3, seed=0)
    command = [sys.executable, "-c", script, str(tmp_path), train]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    assert run.stdout.splitlines()[-1] == str(module(tmp_path, train).folder)

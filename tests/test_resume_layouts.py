"""A run on data that lies in shards, killed and resumed, is the undisturbed run on a manifest of the same clips."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.command import class_of
from tests.data.layouts import CASES, make_clips, manifest
from tests.test_resume import assert_same_checkpoints, long_config, scalars, start

SOURCES = {
    "nemo": (
        "TarShards",
        {"shards": "{}/audio_*.tar", "manifest": "{}/tarred_audio_manifest.json"},
    ),
    "webdataset": ("TarShards", {"shards": "{}"}),
    "hf": ("HfDataset", {"path": "{}"}),
    "shar": ("LhotseCuts", {"cuts": "{}"}),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SOURCES)
def test_shards_give_the_run_of_the_manifest(name: str, tmp_path: Path) -> None:
    clips = make_clips(tmp_path / "clips", 8)
    rows = str(manifest(tmp_path, clips))
    root = CASES[name].write(tmp_path / "set", clips)
    kind, settings = SOURCES[name]
    init_args = {key: value.format(root) for key, value in settings.items()}
    shards = class_of(f"data.{kind}") | {"init_args": {**init_args, "cache": str(tmp_path)}}
    plain = class_of("data.ManifestRows") | {"init_args": {"path": rows}}

    configs = {}
    for run, source in (("whole", plain), ("cut", shards)):
        config = long_config(tmp_path, run)
        config["data"]["init_args"]["train"][0]["source"] = source
        config["data"]["init_args"]["val"] = {"tones": source}
        configs[run] = config

    killed = start(tmp_path, configs["cut"], "cut", kill_at=5)
    assert killed.wait() == -signal.SIGKILL, killed.communicate()[1]
    for run, args in (("whole", ()), ("cut", ("--ckpt_path", "last"))):
        process = start(tmp_path, configs[run], run, *args)
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    assert scalars(tmp_path / "cut") == scalars(tmp_path / "whole")
    assert_same_checkpoints(
        *(tmp_path / run / "checkpoints" / "last.ckpt" for run in ("whole", "cut"))
    )

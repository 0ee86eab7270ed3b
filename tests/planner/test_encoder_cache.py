"""What ``audiorl plan`` says of an encoder cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl import cli
from tests.command import class_of, tiny_config

_SIZES = {"width": 32, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "chunk_length_s": 2}


def planned(run_folder: Path, said: pytest.CaptureFixture[str], *args: str, **cache: Any) -> str:
    config = tiny_config(run_folder)
    tiny = class_of("models.TinyWhisper", **_SIZES)
    policy = class_of("models.WhisperPolicy", init_from=tiny)
    if cache:
        policy["init_args"]["encoder_cache"] = cache
    config["model"]["init_args"]["policy"] = policy
    path = run_folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    cli.main(["plan", "--config", str(path), "--audio_s", "1", *args])
    return said.readouterr().out


def test_the_cache_is_listed_where_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = str(tmp_path / "kept")
    said = planned(tmp_path, capsys, memory_gib=0.25, folder=kept, disk_gib=2.0, dtype="bfloat16")
    # 100 positions of 32 numbers: a clip is padded to 2 s.
    size = 100 * 32 * 2
    assert "Encoder cache, 0.01 MiB for a clip of 1 s" in said
    assert f"0.25 GiB of host memory per process ({2**28 // size} clips)" in said
    assert f"2.00 GiB in {kept} ({2**31 // size} clips)" in said
    assert not Path(kept).exists()

    data = json.loads(planned(tmp_path, capsys, "--json", "true", memory_gib=0.25))
    assert data["encoder_cache"] == {
        "clip_bytes": 100 * 32 * 4,
        "memory_bytes": 2**28,
        "disk_bytes": 0,
    }


def test_without_one_a_plan_is_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cache" not in planned(tmp_path, capsys)
    assert "encoder_cache" not in json.loads(planned(tmp_path, capsys, "--json", "true"))

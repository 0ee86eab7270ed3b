"""``audiorl plan`` from a YAML file to its table, and what it says of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, Xcodec2Config, Xcodec2Model

from lightning_audiorl import cli
from lightning_audiorl.commands.plan import pieces, read_settings, trace
from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.commands.plan.skeleton import build_skeleton
from lightning_audiorl.models import SpeechLMPolicy
from tests.codecs.test_hf import SIZES
from tests.command import class_of, tiny_config


def write(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_tables_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, tiny_config(tmp_path))
    args = ["plan", "--config", path, "--audio_s", "1", "--device_memory_gb", "2"]
    cli.main([*args, "--json", "true"])
    data = json.loads(capsys.readouterr().out)
    assert [(p["sharding"], p["placement"]) for p in data["plans"]] == [
        ("single", "resident"),
        ("single", "auto"),
        ("single", "offload"),
    ]
    resident, _, offload = data["plans"]
    assert resident["max_bytes"] > offload["max_bytes"] > 0
    assert offload["moving_s"] > resident["moving_s"] == 0
    whole = sum(data["parts"].values())
    assert resident["resident_bytes"]["update"] == whole
    # The encoded prompts are made in the encode phase: they count there as its working memory.
    assert resident["resident_bytes"]["encode"] == whole - data["parts"]["context"]
    assert set(data["parts"]) >= {"encoder", "lm (trainable)", "reference", "optimizer", "context"}

    cli.main([*args, "--num_devices", "2"])
    said = capsys.readouterr().out
    for piece in (
        "2 prompts x 4 samples",
        "| single ",
        "| ddp x 2 ",
        "| fsdp x 2 ",
        "fits into 1 GiB",
    ):
        assert piece in said
    assert (
        len(
            [line for line in said.splitlines() if line.startswith(("| single", "| ddp", "| fsdp"))]
        )
        == 9
    )


def test_read_what_fit_reads(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, group_size=6, beta=0.0, micro_batch_size=3, max_tokens=99)
    config["trainer"]["precision"] = "bf16-mixed"
    read = read_settings(write(tmp_path, config))
    assert (read.group_size, read.beta, read.micro_batch_size, read.max_tokens) == (6, 0.0, 3, 99)
    assert (read.autocast, read.batch_size) == ("bfloat16", 2)
    assert read_settings(write(tmp_path, config), batch_size=7).batch_size == 7
    sft = read_settings(write(tmp_path, tiny_config(tmp_path, "SFT")))
    assert not sft.needs_rollout
    assert sft.group_size == 1


def refused(folder: Path, config: dict[str, Any], **changes: Any) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        trace(read_settings(write(folder, config), **changes))
    return str(error.value)


def test_bad_settings_are_named(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert "batch_size must be at least 1, got 0" in refused(tmp_path, config, batch_size=0)
    config["trainer"]["precision"] = "16-mixed"
    assert "16-mixed" in refused(tmp_path, config)
    config = tiny_config(tmp_path)
    config["model"]["init_args"]["group_sise"] = 3
    assert "group_sise" in refused(tmp_path, config)
    assert "'model'" in refused(tmp_path, {"data": {}})
    with pytest.raises(FileNotFoundError, match=r"no config .*absent\.yaml"):
        read_settings(tmp_path / "absent.yaml")


def test_a_folder_without_config_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = tiny_config(
        tmp_path, policy=class_of("models.FunAsrNanoPolicy", init_from=str(tmp_path / "model"))
    )
    assert "has no config.json" in refused(tmp_path, config)


def test_a_policy_of_another_kind_is_named() -> None:
    class Another:
        pass

    with pytest.raises(ValueError, match="Another is no CachedPromptPolicy, whose rollout"):
        build_skeleton(Another, Meter())  # type: ignore[arg-type]


def test_audio_that_the_encoder_does_not_take(tmp_path: Path) -> None:
    read = read_settings(write(tmp_path, tiny_config(tmp_path)))
    with pytest.raises(ValueError, match="the encoder takes 1 to 1024"):
        trace(read, audio_s=100.0)
    with pytest.raises(ValueError, match="audio_s > 0"):
        trace(read, audio_s=0.0)


def test_speech_is_planned_from_two_config_files(tmp_path: Path) -> None:
    """No weights, no tokenizer, no feature extractor: the language model's and the codec's config.json are enough."""
    num_codes, vocab_size = 64, 100
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    language_model = LlamaConfig(vocab_size=vocab_size, **sizes)
    codec = Xcodec2Config(**SIZES, quantization_levels=[4, 4, 4])
    language_model.save_pretrained(tmp_path / "lm")
    codec.save_pretrained(tmp_path / "codec")
    policy = class_of(
        "models.SpeechLMPolicy",
        init_from=str(tmp_path / "lm"),
        codec=class_of("codecs.Xcodec2Codec", init_from=str(tmp_path / "codec")),
        template=class_of("models.LlasaTemplate"),
    )
    working = trace(
        read_settings(write(tmp_path, tiny_config(tmp_path, policy=policy))), audio_s=1.0
    )

    held = {piece.name: piece.num_bytes for piece in pieces(working)}
    assert held["lm (trainable)"] == sum(
        p.nbytes for p in LlamaForCausalLM(language_model).parameters()
    )
    real = Xcodec2Model(codec)
    assert held["codec"] == sum(tensor.nbytes for tensor in (*real.parameters(), *real.buffers()))
    assert isinstance(working.policy, SpeechLMPolicy)
    assert int(working.policy.codec.cardinality) == num_codes
    assert min(working.phases[phase] for phase in ("rollout", "reference", "update")) > 0


def test_the_codec_must_fit_the_language_model(tmp_path: Path) -> None:
    LlamaConfig(vocab_size=10).save_pretrained(tmp_path / "lm")
    policy = class_of(
        "models.SpeechLMPolicy",
        init_from=str(tmp_path / "lm"),
        codec=class_of("codecs.TinyCodec", init_from=class_of("codecs.TinyCodecConfig")),
    )
    assert "the language model only 10 tokens" in refused(
        tmp_path, tiny_config(tmp_path, policy=policy)
    )


def test_a_shipped_run_of_speech_synthesis_is_planned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its tokenizer, and a codec whose weights are there."""
    monkeypatch.chdir(Path(__file__).parents[2])
    cli.main(
        ["plan", "--config", "configs/quickstart_tts.yaml", "--audio_s", "1", "--json", "true"]
    )
    data = json.loads(capsys.readouterr().out)
    assert data["parts"]["codec"] > 0
    assert data["parts"]["lm (trainable)"] == data["parts"]["reference"] > 1_000_000

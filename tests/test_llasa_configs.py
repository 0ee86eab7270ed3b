"""configs/llasa as they are, but for the published checkpoints: a tiny random one of its class stands for each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMForXVector,
    Xcodec2Config,
    Xcodec2FeatureExtractor,
    Xcodec2Model,
)

from lightning_audiorl import cli
from lightning_audiorl.judges import EcapaNetwork
from lightning_audiorl.models.tiny import TinyWhisper, build_whisper
from tests.codecs.test_hf import SIZES
from tests.command import run, write_rows
from tests.data.fakes import write_tone
from tests.judges.test_pretrained import SMALL_WAVE, ctc_folder
from tests.models.test_speech_templates import LLAMA_CHAT, LLAMA_CONTROL, byte_tokenizer

CONFIGS = Path(__file__).parents[1] / "configs" / "llasa"
#: In place of Xcodec2's 65,536, which take a minute to read.
NUM_CODES = 64


def llasa(folder: Path) -> str:
    """A Llama over bytes and Xcodec2's codes."""
    parts = [
        f"<|{part}_{end}|>"
        for part in ("TEXT_UNDERSTANDING", "SPEECH_GENERATION")
        for end in ("START", "END")
    ]
    tokenizer = byte_tokenizer(
        [*LLAMA_CONTROL, *parts, *(f"<|s_{i}|>" for i in range(NUM_CODES))], LLAMA_CHAT
    )
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def xcodec2(folder: Path) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Xcodec2Model(Xcodec2Config(**SIZES, quantization_levels=[4, 4, 4])).save_pretrained(folder)
    Xcodec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


def whisper(folder: Path) -> str:
    model, processor = build_whisper(
        TinyWhisper(words=("one", "two"), width=16, encoder_layers=1, decoder_layers=1)
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def wavlm(folder: Path) -> str:
    config = WavLMConfig(
        **SMALL_WAVE,
        tdnn_dim=(8, 8),
        tdnn_kernel=(3, 1),
        tdnn_dilation=(1, 1),
        xvector_output_dim=6,
    )
    WavLMForXVector(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return str(folder)


def ecapa(folder: Path) -> str:
    EcapaNetwork(16000, num_mels=20, width=16, attention_width=8, se_width=8, dim=6).save(
        str(folder)
    )
    return str(folder)


BUILDERS = {
    "HKUSTAudio/Llasa-1B": llasa,
    "hf-audio/xcodec2": xcodec2,
    "openai/whisper-large-v3-turbo": whisper,
    "facebook/wav2vec2-large-960h-lv60-self": ctc_folder,
    "speechbrain/spkrec-ecapa-voxceleb": ecapa,
    "microsoft/wavlm-base-plus-sv": wavlm,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests and checkpoints."""
    folder = tmp_path_factory.mktemp("llasa")
    for number in range(4):
        write_tone(folder / f"{number}.wav", 0.8, 16000, hz=150.0 + 40 * number)
    rows = [
        {
            "text": text,
            "audio_filepath": f"{number}.wav",
            "prompt_text": "one two",
            "target": {"audio_filepath": f"{(number + 1) % 4}.wav"},
        }
        for number, text in enumerate(["Seven two.", "Three!", "It's one.", "Four, five."])
    ]
    write_rows(folder / "rows.jsonl", rows)
    for number, build in enumerate(BUILDERS.values()):
        (folder / str(number)).mkdir()
        build(folder / str(number))
    return folder


def shipped(folder: Path, name: str) -> dict[str, Any]:
    """A configuration with local places."""
    text = (CONFIGS / f"{name}.yaml").read_text()
    for number, source in enumerate(BUILDERS):
        text = text.replace(source, str(folder / str(number)))
    for manifest in ("texts", "dev", "recordings"):
        text = text.replace(f"{manifest}.jsonl", str(folder / "rows.jsonl"))
    text = text.replace("runs/llasa", str(folder / "runs")).replace("device: cuda", "device: cpu")
    settings: dict[str, Any] = yaml.safe_load(
        text.replace("65536", str(NUM_CODES)).replace("max_characters: 400", "max_characters: 20")
    )
    return settings


def fit(folder: Path, name: str, **model: Any) -> Any:
    """One step of it, on a CPU."""
    settings = shipped(folder, name)
    settings["trainer"] |= {"accelerator": "cpu", "val_check_interval": 100}
    settings["model"]["init_args"] |= {"num_steps": 1} | model
    settings["data"]["init_args"] |= {"batch_size": 2, "num_workers": 0}
    return run(folder, settings).model


FIGURES = ("cer", "held_out_cer", "similarity", "held_out_similarity")
SHORT = {"min_cap": 24, "max_new_tokens": 24}
RL = {"group_size": 3, "decoding": SHORT, "eval_decodings": {"sampled": {"decoding": SHORT}}}


def test_token2text_calibration_and_both_ways_of_rl(folder: Path) -> None:
    fit(folder, "token2text")
    calibrate = folder / "calibrate.yaml"
    calibrate.write_text(yaml.safe_dump(shipped(folder, "calibrate") | {"decoding": SHORT}))
    cli.main(["calibrate", "--config", str(calibrate)])
    assert len(json.loads((folder / "runs" / "calibration.json").read_text())) == 2

    grpo, both = fit(folder, "grpo", **RL), fit(folder, "grpo_diffro", **RL)
    for model in (grpo, both):
        assert model.rl_step == 1
        assert all("lora_" in name for name in model.policy.trainable())
        assert model.step_metrics["reward_failures/speech_accuracy"] == 0
        figures = model.evaluations[-1]["results"]["dev"]
        assert figures["judge_failure_rate"] == 0
        assert all(
            math.isfinite(figures[f"{kind}{name}"])
            for kind in ("", "held_out_")
            for name in ("cer", "similarity")
        )
    assert both.step_metrics["grad_norm/diffro"] >= 0
    assert (
        AutoModelForCausalLM.from_pretrained(
            folder / "runs" / "grpo_diffro" / "export"
        ).config.hidden_size
        == 16
    )


def test_a_checkpoint_with_adapters_is_exported_as_the_run_does(folder: Path) -> None:
    fit(folder, "grpo", **RL)
    policy = shipped(folder, "grpo")["model"]["init_args"]["policy"]
    policy["init_args"]["init_from"] = str(folder / "runs" / "grpo" / "checkpoints" / "last.ckpt")
    (folder / "export.yaml").write_text(
        yaml.safe_dump({"policy": policy, "folder": str(folder / "again")})
    )
    cli.main(["export", "--config", str(folder / "export.yaml")])
    of_run = AutoModelForCausalLM.from_pretrained(folder / "runs" / "grpo" / "export").state_dict()
    again = AutoModelForCausalLM.from_pretrained(folder / "again").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in of_run.items())

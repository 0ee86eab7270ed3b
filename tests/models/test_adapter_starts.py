"""Starts that peft wrote: a base and an adapter are one model, and a part of them is none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_audiorl.models import Finetune, Reference, content_hash
from tests.damage import MAX_CHARACTERS
from tests.models.families import POLICIES, SPECS, batch_of, disturb, log_probs, random_rollout
from tests.models.records import RECORDS
from tests.models.test_loading import save_checkpoint

_FAST = ("text_lm", "whisper", "fun_asr_nano", "qwen2_audio")
FAMILIES = [
    *_FAST,
    *(pytest.param(name, marks=pytest.mark.slow) for name in RECORDS if name not in _FAST),
]
WEIGHTS = "adapter_model.safetensors"
MODES = {
    "all": Finetune(),
    "lora": Finetune(projector=False, lm="lora", lora_rank=2, lora_targets=["q_proj"]),
}


def adapted(folder: Path, family: str, targets: list[str] | None = None, **settings: Any) -> Any:
    """Write a base, and an adapter beside it as peft does; returns the model with the adapter merged by peft."""
    model, processor = SPECS[family].build()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = peft.LoraConfig(
            r=4, target_modules=targets or ["q_proj"], init_lora_weights=False, **settings
        )
        tuned = peft.get_peft_model(model, config)
        for name, value in tuned.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                value.data.normal_(std=0.3)
    tuned.save_pretrained(folder)
    return tuned.eval()


def alone(folder: Path, base: str) -> Path:
    """The adapter without what stands beside it, naming its base."""
    other = folder.with_name(f"{folder.name}_alone")
    other.mkdir()
    shutil.copyfile(folder / WEIGHTS, other / WEIGHTS)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = base
    (other / "adapter_config.json").write_text(json.dumps(settings))
    return other


def merged(tuned: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tuned.merge_and_unload().state_dict().items()}


def assert_is(policy: Any, expected: dict[str, Tensor]) -> None:
    found = policy.model.state_dict()
    assert all(".lora_" not in name or ".default" in name for name in found)
    for name, value in expected.items():
        own = found[name] if name in found else found[name.replace("q_proj.", "q_proj.base_layer.")]
        assert torch.equal(own, value), name


@pytest.mark.fault(
    "Starts and checkpoints",
    "a folder that holds a base and an adapter of peft, or an adapter that names its base",
    "training starts from both, merged: nothing of the old adapter trains, the merged model is the reference, and an "
    "export loads with transformers alone",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_and_its_adapter_are_one_start(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "start"
    expected = merged(adapted(folder, family))
    (tmp_path / "base").mkdir()
    for file in folder.iterdir():
        if not file.name.startswith("adapter"):
            shutil.copyfile(file, tmp_path / "base" / file.name)
    state = torch.get_rng_state()
    for source in (folder, alone(folder, str(tmp_path / "base"))):
        for mode, finetune in MODES.items():
            policy = POLICIES[family](str(source), finetune).eval()
            assert_is(policy, expected)
            trained = [name for name in policy.trainable() if "lora_" in name]
            assert bool(trained) == (mode == "lora")
            if mode == "all":
                continue

            reference = Reference(policy)
            context = policy.encode(batch_of(["a", "b"]))
            rollout = random_rollout(policy, 2, 2)
            with torch.no_grad():
                before = log_probs(policy, context, rollout)
                disturb(policy, 0.3)
                with reference.swapped_in(policy):
                    assert torch.equal(log_probs(policy, context, rollout), before)
                assert not torch.equal(log_probs(policy, context, rollout), before)

    assert torch.equal(torch.get_rng_state(), state), "draws of peft's"
    policy = POLICIES[family](str(folder))
    policy.export(str(tmp_path / "out"))
    assert not [name for name in os.listdir(tmp_path / "out") if "adapter" in name]
    again = type(policy.model).from_pretrained(tmp_path / "out")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.fault(
    "Starts and checkpoints",
    "an adapter on an embedding that is tied to the head, and one with a head of its own",
    "each of the two keeps its own values when they are merged, and in an export",
)
@pytest.mark.parametrize(
    "settings", [{"targets": ["embed_tokens"]}, {"modules_to_save": ["lm_head"]}]
)
def test_an_adapter_on_tied_weights_unties_them(settings: dict[str, Any], tmp_path: Path) -> None:
    tuned = adapted(tmp_path / "start", "text_lm", **settings)
    ids = torch.tensor([[5, 6, 7]])
    policy = POLICIES["text_lm"](str(tmp_path / "start")).eval()
    policy.export(str(tmp_path / "out"))
    again = POLICIES["text_lm"](str(tmp_path / "out")).eval()
    with torch.no_grad():
        expected = tuned(input_ids=ids).logits
        for found in (policy, again):
            assert torch.allclose(found.model(input_ids=ids).logits, expected, atol=1e-5)
    assert policy.embed.weight is not policy.output.weight
    assert not torch.equal(again.embed.weight, again.output.weight)


@pytest.mark.fault(
    "Starts and checkpoints",
    "the adapter of a start is another one than when a checkpoint was written",
    "the checkpoint is refused: its run began from other weights",
)
def test_the_hash_of_a_start_covers_its_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "start"
    adapted(folder, "text_lm")
    policy = POLICIES["text_lm"](str(folder), Finetune(lm="last", lm_layers=1))
    path = save_checkpoint(policy, tmp_path / "one.ckpt")
    assert content_hash(POLICIES["text_lm"](path)) == content_hash(policy)

    tensors = load_file(folder / WEIGHTS)
    tensors[min(tensors)] += 0.1
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="its run began from other weights"):
        POLICIES["text_lm"](path)


def broken(folder: Path, kind: str) -> Path:
    """The folder of an adapter that cannot be a start."""
    adapted(folder, "text_lm")
    tensors = load_file(folder / WEIGHTS)
    first = min(tensors)
    if kind in ("of no base", "of a base that is gone", "of an unnamed base"):
        names = {"of no base": "", "of a base that is gone": "./gone", "of an unnamed base": None}
        return alone(folder, names[kind])  # type: ignore[arg-type]
    if kind == "of a wider base":
        tensors = {name: torch.cat([value, value], -1) for name, value in tensors.items()}
    elif kind == "of a deeper base":
        tensors |= {
            name.replace("layers.0", "layers.7"): value.clone() for name, value in tensors.items()
        }
    elif kind == "of other layers":
        settings = json.loads((folder / "adapter_config.json").read_text())
        settings["target_modules"] = ["c_attn"]
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    elif kind == "with a tensor missing":
        del tensors[first]
    elif kind == "with NaN":
        tensors[first][0, 0] = torch.nan
    elif kind == "that overflows":
        tensors = {name: torch.full_like(value, 1e30) for name, value in tensors.items()}
    elif kind == "with biases of its own":
        # As peft writes it where the layer itself has no bias.
        settings = json.loads((folder / "adapter_config.json").read_text()) | {"lora_bias": True}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        for name in [name for name in tensors if "lora_B" in name]:
            tensors[name.replace("weight", "bias")] = torch.ones(len(tensors[name]))
    elif kind == "that changes no weights":
        settings = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "task_type": "CAUSAL_LM"}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    content = (folder / WEIGHTS).read_bytes()
    if kind == "cut short":
        (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        (folder / WEIGHTS).write_bytes(b"")
    elif kind == "as a pickle":
        torch.save(tensors, folder / "adapter_model.bin")
        (folder / WEIGHTS).unlink()
    elif kind == "of an unknown type":
        (folder / "adapter_config.json").write_text('{"peft_type": "NO_SUCH"}')
    return folder


BROKEN = {
    "of no base": "without its base, and does not name it",
    "of an unnamed base": "without its base, and does not name it",
    "of a base that is gone": r"adapter of \./gone, and no such folder is here",
    "of a wider base": "does not fit its base, a LlamaForCausalLM",
    "of a deeper base": "2 of its tensors have no place there",
    "of other layers": "does not fit its base, a LlamaForCausalLM",
    "with a tensor missing": "1 of its tensors are missing",
    "with NaN": "NaN or infinite values in .*lora_A",
    "that overflows": "NaN or infinite values in .*q_proj",
    "that changes no weights": "NaN|changes no weights|does not fit",
    "with biases of its own": "its adapter cannot be merged",
    "cut short": "cut short or damaged",
    "empty": "empty",
    "as a pickle": "has no adapter_model.safetensors",
    "of an unknown type": "does not fit its base",
}


@pytest.mark.fault(
    "Starts and checkpoints",
    "an adapter of another base, of none, damaged, or with NaN",
    "it is refused, with its path and what does not fit",
)
@pytest.mark.parametrize("kind", BROKEN)
def test_an_adapter_that_is_no_start_is_refused(kind: str, tmp_path: Path) -> None:
    folder = broken(tmp_path / "start", kind)
    with pytest.raises((ValueError, OSError), match=BROKEN[kind]) as refused:
        POLICIES["text_lm"](str(folder))
    assert str(folder) in str(refused.value)
    assert len(str(refused.value)) < MAX_CHARACTERS

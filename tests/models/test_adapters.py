"""Adapters go where they were asked to go, and hold what training moves them by; settings that cannot are refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightning_audiorl.algorithms import SFT
from lightning_audiorl.commands.export import export
from lightning_audiorl.engine import Optim
from lightning_audiorl.models import Finetune, FunAsrNanoPolicy, content_hash
from lightning_audiorl.models.finetune import lora_layers
from tests.algorithms.tiny import fit, make_batch, make_policy
from tests.models.families import POLICIES, SPECS, batch_of, disturb, log_probs, random_rollout
from tests.models.test_export_ways import start_folder
from tests.models.test_loading import save_checkpoint

LORA = Finetune(projector=False, lm="lora", lora_rank=4, lora_targets=["q_proj", "embed_tokens"])
FAMILIES = list(POLICIES)

# What stays in float32 in any model of a family, as its class wants it.
_ALWAYS_FLOAT32 = {"voxtral": "embed_positions.weight"}


@pytest.mark.fault(
    "What is exported",
    "a LoRA target that matches no layer, such as a slip or the head",
    "refused when the policy is built, with its name and the names that there are",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_that_matches_nothing_is_named(family: str) -> None:
    head = "proj_out" if family == "whisper" else "lm_head"
    for target in (head, "q_prj", "roj", "self_attn", "all-linear", ".*q_proj"):
        with pytest.raises(ValueError, match=r"lora_targets: \S*: no such layer.*q_proj") as error:
            POLICIES[family](SPECS[family], replace(LORA, lora_targets=["q_proj", target]))
        assert f"lora_targets: {target}: no" in str(error.value)
    # An end of a name is enough, and so is a whole one.
    policy = POLICIES[family](SPECS[family], replace(LORA, lora_targets=["1.self_attn.q_proj"]))
    assert len(list(lora_layers(policy))) == 1


def test_an_embedding_that_looks_nothing_up_takes_no_adapter() -> None:
    with pytest.raises(ValueError, match="lora_targets: embed_positions: no such layer"):
        POLICIES["whisper"](SPECS["whisper"], replace(LORA, lora_targets=["embed_positions"]))


@pytest.mark.fault(
    "What is exported",
    "LoRA settings that make no adapter: rank 0, an alpha of 0 or NaN, a string for a list",
    "refused with the setting's name",
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_rank", 0),
        ("lora_rank", -4),
        ("lora_alpha", 0),
        ("lora_alpha", -1),
        ("lora_alpha", math.nan),
        ("lora_alpha", math.inf),
        ("lora_dropout", 1.0),
        ("lora_dropout", -0.1),
        ("lora_dropout", math.nan),
        ("lora_targets", "q_proj"),
        ("lora_targets", []),
        ("lora_targets", [""]),
        ("lm", "lroa"),
    ],
)
def test_settings_that_make_no_adapter_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Finetune.{name}[=:]"):
        Finetune(**{name: value})


@pytest.mark.fault(
    "What is exported",
    "LoRA on a model in bfloat16",
    "the adapters are float32, what is frozen stays as it is, and every part of it learns",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_float32_on_any_model(family: str, tmp_path: Path) -> None:
    start = start_folder(family, True, tmp_path / "start")
    policy = POLICIES[family](start, LORA, dtype="bfloat16").eval()
    start_hash = content_hash(policy)
    dtypes = Counter(p.dtype for p in policy.trainable().values())
    assert set(dtypes) == {torch.float32}
    apart = _ALWAYS_FLOAT32.get(family, ())
    frozen = {n: p.dtype for n, p in policy.model.named_parameters() if not p.requires_grad}
    assert {kind for n, kind in frozen.items() if not n.endswith(apart)} == {torch.bfloat16}

    disturb(policy, 0.1)
    context = policy.encode(batch_of(["a", "b"]))
    rollout = random_rollout(policy, 2, 2)
    log_probs(policy, context, rollout).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in policy.trainable().values())
    optimizer, _ = Optim(lr=1e-5).build(policy.trainable().values(), 1)
    before = {name: p.detach().clone() for name, p in policy.trainable().items() if "_A" in name}
    optimizer.step()
    moved = [(p != before[n]).float().mean() for n, p in policy.trainable().items() if n in before]
    assert min(moved) > (0.2 if "embed" in str(list(before)) else 0.9)

    # Stored in the dtype of the model, and read back as the model that was trained.
    policy.export(str(tmp_path / "export"))
    weights = load_file(tmp_path / "export" / "model.safetensors")
    floats = {n: value.dtype for n, value in weights.items() if value.is_floating_point()}
    assert {kind for n, kind in floats.items() if not n.endswith(apart)} == {torch.bfloat16}
    assert json.loads((tmp_path / "export" / "config.json").read_text())["dtype"] == "bfloat16"
    again = POLICIES[family](str(tmp_path / "export"), dtype="bfloat16").eval()
    path = save_checkpoint(policy, tmp_path / "last.ckpt", start_hash)
    assert content_hash(POLICIES[family](path, dtype="bfloat16")) == content_hash(again)
    near = log_probs(again, again.encode(batch_of(["a", "b"])), rollout)
    assert (near - log_probs(policy, context, rollout)).abs().mean() < 0.2


@pytest.mark.fault(
    "What is exported",
    "trained weights in bfloat16 or float16, by the policy's dtype or the trainer's precision",
    "the fit is refused before its first step, with the settings to use",
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trained_weights_in_half_precision_are_refused(dtype: torch.dtype) -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=dtype))]
    with pytest.raises(ValueError, match=f"1 of 2 trained tensors are {dtype}.*dtype.*bf16-mixed"):
        Optim().build(parameters, 1)


@pytest.mark.fault(
    "What is exported",
    "a fit whose weights are rounded to bfloat16, by the policy or by precision: bf16-true",
    "refused before the first step; adapters on such weights train, in float32",
)
def test_a_fit_in_half_precision_trains_adapters_or_nothing(tmp_path: Path) -> None:
    for precision, dtype in (("32-true", "bfloat16"), ("bf16-true", "float32")):
        policy = make_policy().to(getattr(torch, dtype))
        with pytest.raises(ValueError, match=r"trained tensors are torch\.bfloat16"):
            fit(SFT(policy, num_steps=1), [make_batch()], precision=precision)

    make_policy().export(str(tmp_path))
    lora = Finetune(projector=False, lm="lora", lora_rank=4)
    policy = FunAsrNanoPolicy(str(tmp_path), lora, dtype="bfloat16")
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    fit(SFT(policy, num_steps=2, optim=Optim(lr=1e-5)), [make_batch(), make_batch()])
    for name, p in policy.trainable().items():
        assert p.dtype == torch.float32
        if "lora_A" in name:
            assert (p != before[name]).float().mean() > 0.9, name


@pytest.mark.fault(
    "What is exported",
    "audiorl export in another dtype, of a checkpoint with adapters",
    "merged first and rounded once: the float32 export in the other dtype",
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_export_in_another_dtype_is_rounded_once(dtype: str, tmp_path: Path) -> None:
    policy = POLICIES["text_lm"](SPECS["text_lm"], LORA)
    disturb(policy, 0.3)
    policy.export(str(tmp_path / "whole"))
    export(policy, str(tmp_path / "half"), dtype)
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    assert set(whole) == set(half)
    for name, value in whole.items():
        assert torch.equal(half[name], value.to(getattr(torch, dtype))), name
    for wrong in ("int8", "float33", "Tensor"):
        with pytest.raises(ValueError, match=f"dtype={wrong!r}.*bfloat16"):
            export(policy, str(tmp_path / "wrong"), wrong)


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_adapters_go_onto_a_model_in_another_dtype(dtypes: tuple[str, str], tmp_path: Path) -> None:
    start = start_folder("text_lm", True, tmp_path / "start")
    first = POLICIES["text_lm"](start, LORA, dtype=dtypes[0])
    path = save_checkpoint(first, tmp_path / "one.ckpt")
    again = POLICIES["text_lm"](path, dtype=dtypes[1])
    assert {str(p.dtype) for p in again.parameters()} == {f"torch.{dtypes[1]}"}

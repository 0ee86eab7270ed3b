"""Each family that transcribes is its own class: the same numbers, texts and files, in every mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_audiorl import ops
from lightning_audiorl.commands.plan import trace
from lightning_audiorl.models import Policy, Reference, SampleKey
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from tests.helpers import assert_close
from tests.models.families import (
    DECODING,
    POLICIES,
    SPECS,
    batch_of,
    disturb,
    finetune_of,
    log_probs,
    make,
    random_rollout,
)
from tests.models.naive import naive_log_probs
from tests.models.records import RECORDS
from tests.models.test_export import DECODERS, greedy
from tests.planner.runs import settings

FAMILIES = ["fun_asr_nano", "whisper", *RECORDS]
MODES = [(name, mode) for name, record in RECORDS.items() for mode in record.modes]
KEY = SampleKey(seed=5, rl_step=2)
NAMES = ["a", "b", "c"]


@pytest.mark.cell("shared prefix")
@pytest.mark.parametrize("family", FAMILIES)
def test_teacher_forced_log_probs_are_the_classes_own(family: str) -> None:
    policy, batch = make(family), batch_of(NAMES)
    rollout = random_rollout(policy, len(NAMES), 3)
    with torch.no_grad():
        ours = log_probs(policy, policy.encode(batch), rollout)
        own = naive_log_probs(family, policy, batch, rollout)

    apart = (ours - own).abs()[rollout.keep]
    assert apart.max() < 1e-4
    assert apart.mean() < 1e-5
    # The bound tells one position from the next.
    shifted = (ours[..., 1:] - own[..., :-1]).abs()[rollout.keep[..., 1:]]
    assert shifted.median() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_what_its_clips_are_alone(family: str) -> None:
    policy = make(family)
    batch = batch_of(NAMES, [0.35, 1.05, 1.9])
    together = policy.encode(batch)
    rollout = policy.sample(together, 2, DECODING, KEY)
    with torch.no_grad():
        scored = log_probs(policy, together, rollout)
    for i in range(len(batch)):
        alone = policy.encode(batch.select([i]))
        assert alone.prompt_lengths == together.prompt_lengths[i : i + 1]
        mine = policy.sample(alone, 2, DECODING, KEY)
        assert policy.decode(mine, alone)[0] == policy.decode(rollout, together)[i]
        with torch.no_grad():
            again = log_probs(policy, alone, rollout.select([i]))
        assert_close(again[0], scored[i, :, : again.shape[-1]], "policy")


@pytest.mark.cell("export")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_is_the_classes_own_folder(family: str, tmp_path: Path) -> None:
    """The names that its class saves, the very weights, and what ``generate`` makes of them."""
    policy, batch = make(family), batch_of(list("abcd"))
    disturb(policy)
    policy.export(str(tmp_path / "out"))
    model, processor = SPECS[family].build()
    model.save_pretrained(tmp_path / "own")
    processor.save_pretrained(tmp_path / "own")

    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert weights.keys() == load_file(tmp_path / "own" / "model.safetensors").keys()
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {path.name for path in (tmp_path / "own").iterdir()}
    for file in ("config.json", "processor_config.json"):
        mine, own = (json.loads((tmp_path / name / file).read_text()) for name in ("out", "own"))
        assert mine.keys() == own.keys(), file

    again = policy.family.model.from_pretrained(tmp_path / "out")
    for name, value in policy.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    texts = greedy(policy, batch)
    assert len(set(texts)) > 1, f"this compares next to nothing: {texts}"
    assert DECODERS[family](str(tmp_path / "out"), batch, attn_implementation="sdpa") == texts


@pytest.mark.parametrize(("family", "mode"), MODES)
def test_the_reference_is_the_start_in_each_mode(family: str, mode: str) -> None:
    policy = make(family, mode)
    reference = Reference(policy)
    context = policy.encode(batch_of(["a"]))
    rollout = random_rollout(policy, 1, 2)
    with torch.no_grad():
        now = log_probs(policy, context, rollout)
        with reference.swapped_in(policy):
            start = log_probs(policy, context, rollout)
            kl = ops.kl_estimate(now, start, "k3", rollout.keep)
        disturb(policy, 0.1)
        with reference.swapped_in(policy):
            later = log_probs(policy, context, rollout)
        moved = log_probs(policy, context, rollout)
    assert torch.equal(kl, torch.zeros_like(kl))
    assert torch.equal(later, start)
    assert not torch.equal(moved, start)


@pytest.mark.cell("LoRA")
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_train_and_are_merged_into_the_export(family: str, tmp_path: Path) -> None:
    policy = make(family, "lora")
    assert all("lora_" in name for name in policy.trainable())
    disturb(policy, 0.1)
    context, rollout = policy.encode(batch_of(NAMES)), random_rollout(policy, len(NAMES), 2)
    scored = log_probs(policy, context, rollout)
    scored.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.trainable().values())

    policy.export(str(tmp_path))
    again = POLICIES[family](str(tmp_path)).eval()
    assert not any("lora" in name for name in again.state_dict())
    with torch.no_grad():
        merged = log_probs(again, again.encode(batch_of(NAMES)), rollout)
    assert_close(merged, scored.detach(), "policy")


@pytest.mark.parametrize("family", list(RECORDS))
def test_checkpointed_layers_are_computed_again(family: str) -> None:
    """Each layer runs twice, and the gradient is bit for bit that of running once."""
    calls, gradients = [], []
    for checkpointing in (False, True):
        policy = make(family, checkpointing=checkpointing)
        count = count_calls(policy.roles.layers)
        context, rollout = policy.encode(batch_of(NAMES)), random_rollout(policy, len(NAMES), 2)
        log_probs(policy, context, rollout).sum().backward()
        calls.append(len(count))
        gradients.append(flat_gradient(policy))
    assert calls == [2, 4]
    assert_close(gradients[1], gradients[0], "exact")


def count_calls(layers: nn.ModuleList) -> list[nn.Module]:
    """Grows by a layer each time that its attention runs."""
    calls: list[nn.Module] = []
    for layer in layers:
        layer.self_attn.register_forward_hook(lambda module, *_: calls.append(module))
    return calls


def flat_gradient(policy: Policy) -> Tensor:
    grads = [p.grad.flatten() for p in policy.trainable().values() if p.grad is not None]
    return torch.cat(grads)


@pytest.mark.cell("plan")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_is_made_of_the_configuration_alone(family: str, tmp_path: Path) -> None:
    """What it traces is as large as what the policy then encodes."""
    model, _ = SPECS[family].build()
    model.config.save_pretrained(tmp_path)

    def planned() -> CachedPromptPolicy:
        return POLICIES[family](str(tmp_path), finetune_of(family, "all"))

    made = trace(settings(make_policy=planned), audio_s=1.5)
    policy = make(family)
    context = policy.encode(batch_of(list("abcd"), [1.5] * 4))
    assert made.context_bytes == context.num_bytes
    assert min(made.phases[phase] for phase in ("encode", "rollout", "reference", "update")) > 0


@pytest.mark.cell("loads")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_loads_whole_or_not_at_all(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "start"
    model, processor = SPECS[family].build()
    model.save_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=f"{folder} has no .*; copy it from the model"):
        POLICIES[family](str(folder))

    processor.save_pretrained(folder)
    policy = POLICIES[family](str(folder))
    for name, value in model.state_dict().items():
        assert torch.equal(policy.model.state_dict()[name], value), name

    edit(folder / "processor_config.json", "sampling_rate", 8000)
    with pytest.raises(ValueError, match="sampling_rate of its feature extractor is 8000"):
        POLICIES[family](str(folder))


def edit(path: Path, key: str, value: Any) -> None:
    """Another value wherever ``key`` stands in a JSON file."""

    def changed(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: value if k == key else changed(v) for k, v in node.items()}
        return node

    path.write_text(json.dumps(changed(json.loads(path.read_text()))))


@pytest.mark.parametrize("family", list(RECORDS))
def test_clips_that_the_model_does_not_take_are_refused(family: str) -> None:
    policy = make(family)
    _, longest = policy.clip_span_s
    with pytest.raises(ValueError, match=r"row 'a': .* this model takes .* to "):
        policy.encode(batch_of(["a"], [longest + 0.1]))
    batch = batch_of(["a"])
    slower = type(batch)(batch.waveform, batch.num_samples, 8000, batch.rows)
    with pytest.raises(ValueError, match="wants 16000 Hz audio, got 8000"):
        policy.encode(slower)

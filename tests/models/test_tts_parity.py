"""Each family that speaks is its own class: the same numbers, codes and files, in every mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_audiorl import ops
from lightning_audiorl.commands.plan import trace
from lightning_audiorl.models import Reference, SampleKey
from lightning_audiorl.models.tts.frames import whole_frames
from lightning_audiorl.types import Decoding
from tests.helpers import assert_close
from tests.models.families import MODES, disturb, log_probs
from tests.models.test_parity import count_calls, edit, flat_gradient
from tests.models.tts_records import (
    TTS_RECORDS,
    batch_of,
    generated,
    make,
    own_log_probs,
    random_rollout,
    start_folder,
)
from tests.planner.runs import settings

FAMILIES = list(TTS_RECORDS)
# Plans of two language models over text and codes are alike.
IN_TURN = [
    pytest.param(family, marks=pytest.mark.slow) if family in ("llasa", "neutts") else family
    for family in FAMILIES
]
KEY = SampleKey(seed=5, rl_step=2)
NAMES = ["a", "b", "c"]
DECODING = Decoding(max_new_tokens=10, min_cap=10)


@pytest.mark.cell("shared prefix")
@pytest.mark.parametrize("family", FAMILIES)
def test_teacher_forced_log_probs_are_the_classes_own(family: str) -> None:
    policy, batch = make(family), batch_of(family, NAMES)
    rollout = random_rollout(policy, len(NAMES), 3)
    with torch.no_grad():
        ours = log_probs(policy, policy.encode(batch), rollout)
        own = own_log_probs(family, policy, batch, rollout)

    apart = (ours - own).abs()[rollout.keep]
    assert apart.max() < 1e-4
    assert apart.mean() < 1e-5
    # The bound tells one position from the next.
    shifted = (ours[..., 1:] - own[..., :-1]).abs()[rollout.keep[..., 1:]]
    assert shifted.median() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_what_its_rows_are_alone(family: str) -> None:
    policy = make(family)
    batch = batch_of(family, NAMES, [0.35, 1.05, 1.9])
    together = policy.encode(batch)
    rollout = policy.sample(together, 2, DECODING, KEY)
    spoken = policy.decode(rollout, together)
    with torch.no_grad():
        scored = log_probs(policy, together, rollout)
    assert_close(scored[rollout.keep], rollout.log_probs[rollout.keep], "policy")

    for i in range(len(batch)):
        alone = policy.encode(batch.select([i]))
        assert alone.prompt_lengths == together.prompt_lengths[i : i + 1]
        mine = policy.sample(alone, 2, DECODING, KEY)
        heard = policy.decode(mine, alone)[0]
        for one, other in zip(heard, spoken[i], strict=True):
            assert torch.equal(one.codes, other.codes)
            assert_close(one.waveform, other.waveform, "policy")
        with torch.no_grad():
            again = log_probs(policy, alone, rollout.select([i]))
        assert_close(again[0], scored[i, :, : again.shape[-1]], "policy")


@pytest.mark.cell("export")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_is_the_classes_own_folder(family: str, tmp_path: Path) -> None:
    """The names that its class saves, the very weights, and what ``generate`` makes of them."""
    policy, batch = make(family), batch_of(family, NAMES)
    disturb(policy)
    policy.export(str(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    assert weights.keys() == load_file(start_folder(family) / "model.safetensors").keys()
    files = {path.name for path in tmp_path.iterdir()}
    assert files >= {path.name for path in start_folder(family).iterdir()}

    again = TTS_RECORDS[family].model.from_pretrained(tmp_path)
    for name, value in policy.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    # Read again by ourselves, no log-probability has changed.
    rollout = random_rollout(policy, len(NAMES), 2)
    read = TTS_RECORDS[family].policy(str(tmp_path)).eval()
    with torch.no_grad():
        before = log_probs(policy, policy.encode(batch), rollout)
        after = log_probs(read, read.encode(batch), rollout)
    assert torch.equal(after, before)

    ours = greedy(policy, batch)
    assert len({json.dumps(row) for row in ours}) > 1, f"this compares next to nothing: {ours}"
    assert generated(family, policy, str(tmp_path), batch, 8) == ours


def greedy(policy: Any, batch: Any) -> list[Any]:
    """Eight tokens or frames of each prompt, fewer where speech ends before."""
    context = policy.encode(batch)
    rollout = policy.sample(context, 1, Decoding(temperature=0.0, max_new_tokens=8), KEY)
    spoken = rollout.tokens
    if policy.num_codebooks > 1:
        spoken = whole_frames(rollout)
    lengths = rollout.lengths[:, 0].tolist()
    return [row[0, :num].tolist() for row, num in zip(spoken, lengths, strict=True)]


@pytest.mark.parametrize("mode", ["all", "last", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_the_start_in_each_mode(family: str, mode: str) -> None:
    policy = make(family, mode)
    reference = Reference(policy)
    context = policy.encode(batch_of(family, ["a"]))
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
    batch = batch_of(family, NAMES)
    context, rollout = policy.encode(batch), random_rollout(policy, len(NAMES), 2)
    scored = log_probs(policy, context, rollout)
    scored.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.trainable().values())

    policy.export(str(tmp_path))
    again = TTS_RECORDS[family].policy(str(tmp_path)).eval()
    assert not any("lora" in name for name in again.state_dict())
    with torch.no_grad():
        merged = log_probs(again, again.encode(batch), rollout)
    assert_close(merged, scored.detach(), "policy")


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointed_layers_are_computed_again(family: str) -> None:
    """Each layer runs twice, and the gradient is bit for bit that of running once."""
    calls, gradients = [], []
    for checkpointing in (False, True):
        policy = make(family, checkpointing=checkpointing)
        count = count_calls(policy.roles.layers)
        context = policy.encode(batch_of(family, NAMES))
        log_probs(policy, context, random_rollout(policy, len(NAMES), 2)).sum().backward()
        calls.append(len(count))
        gradients.append(flat_gradient(policy))
    assert calls == [2, 4]
    assert_close(gradients[1], gradients[0], "exact")


@pytest.mark.cell("plan")
@pytest.mark.parametrize("family", IN_TURN)
def test_a_plan_is_made_of_the_configuration_alone(family: str, tmp_path: Path) -> None:
    config = (start_folder(family) / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    made = {}
    for mode in ("all", "lora"):
        planned = settings(
            make_policy=lambda mode=mode: TTS_RECORDS[family].policy(str(tmp_path), MODES[mode])
        )
        made[mode] = trace(planned, audio_s=1.5)
    for working in made.values():
        assert min(working.phases[phase] for phase in ("rollout", "reference", "update")) > 0
    assert made["lora"].optimizer_bytes < made["all"].optimizer_bytes
    assert (made["lora"].needs_reference, made["all"].needs_reference) == (False, True)


@pytest.mark.cell("loads")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_loads_whole_or_not_at_all(family: str, tmp_path: Path) -> None:
    record = TTS_RECORDS[family]
    record.write(tmp_path)
    policy = record.policy(str(tmp_path))
    for name, value in record.model.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(policy.model.state_dict()[name], value), name

    if family == "csm":
        edit(tmp_path / "processor_config.json", "sampling_rate", 8000)
        with pytest.raises(ValueError, match="sampling_rate of its feature extractor is 8000"):
            record.policy(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} has no .*; copy it from the model"):
        record.policy(str(tmp_path))

"""From parts and working memory to peaks and moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lightning_audiorl.commands.plan import (
    Piece,
    Plan,
    Settings,
    Working,
    pieces,
    plan,
    read_settings,
    residency,
    trace,
)
from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.commands.plan.skeleton import build_skeleton
from lightning_audiorl.models import Finetune, TextLMPolicy, TinyWhisper, WhisperPolicy
from lightning_audiorl.strategies.parts import NEEDED
from lightning_audiorl.strategies.phases import PHASES
from lightning_audiorl.types import Decoding
from tests.planner.runs import SMALL, settings

ROOT = Path(__file__).parents[2]
MIB = 2**20


def of(finetune: Finetune) -> Settings:
    return settings(make_policy=lambda: TextLMPolicy(SMALL, finetune))


@pytest.fixture(scope="module")
def working() -> Working:
    return trace(settings(), audio_s=2.0)


@pytest.mark.parametrize(
    ("name", "encoder", "lm"),
    [
        # Language models as published: Qwen3-0.6B, Qwen2.5-7B, and Llama-3.2-1B with 65,544 rows of embedding more.
        ("fun_asr_nano", (0.2e9, 0.25e9), 596_049_920),
        ("paper_7b", (0.68e9, 0.72e9), 7_615_616_512),
        ("llasa_1b", None, 1_235_814_400 + (193_800 - 128_256) * 2048),
    ],
)
def test_parameters_of_the_shipped_examples(
    name: str, encoder: tuple[float, float] | None, lm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    run = read_settings(f"configs/plan/{name}.yaml")
    policy = build_skeleton(run.make_policy, Meter())

    def count(part: str) -> int:
        modules = policy.parts()[part]
        return sum(
            p.numel()
            for p in {id(p): p for module in modules for p in module.parameters()}.values()
        )

    assert count("lm") == lm
    if encoder is not None:
        assert encoder[0] < count("encoder") < encoder[1]


def test_parts_are_those_of_the_real_policy(working: Working) -> None:
    real = TextLMPolicy(SMALL)
    num_bytes = sum(p.nbytes for p in real.trainable().values())
    sizes = {piece.name: piece.num_bytes for piece in pieces(working)}
    assert sizes["lm (trainable)"] == sizes["reference"] == num_bytes
    assert sizes["optimizer"] == 2 * num_bytes
    assert {piece.name: piece.phases for piece in pieces(working)}["reference"] == NEEDED[
        "reference"
    ]


def test_a_fresh_adapter_needs_no_reference_and_little_optimizer() -> None:
    lora = trace(of(finetune=Finetune(lm="lora", lora_rank=2)), audio_s=2.0)
    sizes = {piece.name: piece.num_bytes for piece in pieces(lora)}
    assert "reference" not in sizes
    assert sizes["optimizer"] == 2 * sizes["lm (trainable)"] < sizes["lm"]
    assert "reference" in lora.phases


def plans(working: Working, **how: object) -> dict[str, Plan]:
    budget = sum(piece.num_bytes for piece in pieces(working)) * 3 // 4
    return {
        policy: plan(working, policy, budget_bytes=budget if policy == "auto" else None, **how)  # type: ignore[arg-type]
        for policy in ("resident", "auto", "offload")
    }


@pytest.mark.parametrize(("sharding", "ranks"), [("single", 1), ("ddp", 4), ("fsdp", 4)])
def test_offload_takes_least_and_resident_most(working: Working, sharding: str, ranks: int) -> None:
    made = plans(working, sharding=sharding, num_ranks=ranks)
    for phase in working.phases:
        sizes = [made[policy].peak_bytes[phase] for policy in ("offload", "auto", "resident")]
        assert sizes == sorted(sizes), phase
    assert made["offload"].peak_bytes["rollout"] < made["resident"].peak_bytes["rollout"]
    assert made["resident"].fetched_bytes == made["resident"].parked_bytes == 0
    assert made["offload"].fetched_bytes >= made["auto"].fetched_bytes


def test_sharding_takes_less_of_what_can_be_sharded() -> None:
    shared = trace(settings(), num_ranks=4, audio_s=2.0)
    ddp, fsdp = (plan(shared, "resident", sharding, 4) for sharding in ("ddp", "fsdp"))
    assert fsdp.resident_bytes["update"] < ddp.resident_bytes["update"]
    # Not 1/4: embedding and head share a weight and stay whole.
    assert fsdp.resident_bytes["update"] > ddp.resident_bytes["update"] / 4


def test_gradient_checkpointing_and_smaller_micro_batches_take_less() -> None:
    base = trace(settings(), audio_s=2.0)
    fewer = trace(settings(micro_batch_size=1), audio_s=2.0)
    again = trace(of(finetune=Finetune(gradient_checkpointing=True)), audio_s=2.0)
    assert fewer.phases["update"] < base.phases["update"]
    assert again.phases["update"] < base.phases["update"]
    assert again.phases["rollout"] == base.phases["rollout"] == fewer.phases["rollout"]


def test_an_encoder_decoder() -> None:
    whisper = TinyWhisper(width=32, encoder_layers=1, decoder_layers=2, heads=2, chunk_length_s=4)
    made = trace(settings(make_policy=lambda: WhisperPolicy(whisper)), audio_s=2.0)
    assert made.context_bytes == 4 * 200 * 32 * 4 + 4 * 4 * 8, (
        "4 clips: 200 frames in float32, 4 tokens in int64"
    )
    assert min(made.phases[phase] for phase in ("encode", "rollout", "reference", "update")) > 0


def test_without_the_fused_kernel_of_the_cpu_packed_rows_hold_their_scores() -> None:
    long = settings(decoding=Decoding(max_new_tokens=32, min_cap=32))
    fused, plain = (
        trace(replace(long, accelerator=kind), audio_s=2.0, text_tokens=400)
        for kind in ("cpu", "gpu")
    )
    scores = (
        4 * 2 * SMALL.heads * 3 * 31 * 400
    )  # float32, 2 prompts, 3 samples of 31 tokens that attend to 400
    assert plain.phases["reference"] >= fused.phases["reference"] + scores // 2
    assert plain.phases["rollout"] == fused.phases["rollout"]


def test_supervised_training_has_no_rollout() -> None:
    sft = trace(settings(needs_rollout=False, beta=0.0, group_size=1), audio_s=2.0)
    assert list(sft.phases) == ["encode", "update"]
    assert plan(sft, "offload").max_bytes > 0


def test_who_is_on_the_device_when_by_hand() -> None:
    placed = [
        Piece("encoder", NEEDED["encoder"], 4 * MIB, frozen=True),
        Piece("lm (trainable)", NEEDED["lm"] - NEEDED["reference"], 10 * MIB),
        Piece("reference", NEEDED["reference"], 10 * MIB, frozen=True),
        Piece("optimizer", NEEDED["optimizer"], 20 * MIB),
    ]
    names = residency(placed, "offload", list(PHASES))
    assert names == {
        "encode": {"encoder"},
        "rollout": {"lm (trainable)"},
        "reward": set(),
        "reference": {"reference"},
        "update": {"lm (trainable)", "optimizer"},
    }
    assert residency(placed, "resident", list(PHASES))["reward"] == {piece.name for piece in placed}
    auto = residency(placed, "auto", list(PHASES), 44 * MIB)
    assert auto == residency(placed, "resident", list(PHASES)), "everything fits into the budget"


def test_bytes_moved_by_hand() -> None:
    run: Settings = settings()
    working = trace(run, audio_s=2.0)
    sizes = {piece.name: piece.num_bytes for piece in pieces(working)}
    trained, frozen = sizes["lm (trainable)"], sizes["lm"]
    made = plan(working, "offload")
    # Fetched for the rollout and again for the update; the frozen buffers for rollout and reference, and still there.
    assert made.fetched_bytes == 2 * trained + 2 * frozen + sizes["reference"] + sizes["optimizer"]
    assert made.parked_bytes == 2 * trained + sizes["optimizer"]
    assert made.moving_s(1.0) == pytest.approx((made.fetched_bytes + made.parked_bytes) / 1e9)

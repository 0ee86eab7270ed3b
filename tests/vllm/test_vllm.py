"""`VllmEngine` over a real vLLM on the CPU; `make test-vllm`."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.models import (
    Finetune,
    FunAsrNanoPolicy,
    SampleKey,
    SpeechLMPolicy,
    TinyFunAsrNano,
)
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.serving import MismatchError, VllmEngine, process
from lightning_audiorl.serving.connection import Started, launch_python
from lightning_audiorl.types import Decoding, PromptBatch, Rollout, Utterance
from tests.models.families import batch_of, disturb, log_probs

PYTHON = os.environ.get("AUDIORL_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="AUDIORL_VLLM_PYTHON names no Python with vLLM"),
]

PARTS = Path(__file__).parents[2] / "configs" / "tts" / "fsdd" / "parts"
DECODING = Decoding(temperature=0.7, max_new_tokens=12, min_cap=12)

#: Log-probs of engine and policy for the same tokens, at most.
FLOAT32 = 1e-4
BFLOAT16 = 0.15


class CarelessEngine(VllmEngine):
    """vLLM whose pushes do too little where ``fault_file`` says so."""

    def __init__(self, fault_file: Path, **settings: Any) -> None:
        fault_file.write_text("")
        self.fault_file = fault_file
        variables = {
            "AUDIORL_PROCESS": process.__file__,
            "AUDIORL_FAULT": str(fault_file),
            # A tiny model gains nothing from a compiler's minute.
            "TORCHDYNAMO_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
        }
        super().__init__(
            python=PYTHON,
            environment=variables,
            cache_gib=1,
            arguments={"enforce_eager": True},
            **settings,
        )

    def launch(self, end: socket.socket, log: IO[bytes]) -> Started:
        script = str(Path(__file__).with_name("careless.py"))
        return launch_python(self.python, self.environment, script)(end, log)


def lively(policy: CachedPromptPolicy, scale: float = 0.1) -> CachedPromptPolicy:
    """Different things for different prompts."""
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if p.ndim > 1 and "lora_" not in name:
                generator = keyed_generator("lively", name.replace(".base_layer", ""))
                p.add_(scale * torch.randn(p.shape, generator=generator))
    return policy.eval()


def asr(finetune: Finetune | None = None) -> CachedPromptPolicy:
    """Served is a Qwen3 whose head is its embedding."""
    spec = TinyFunAsrNano(width=64, encoder_layers=1, lm_layers=2, heads=2, max_frames=256)
    return lively(FunAsrNanoPolicy(spec, finetune))


def clips(*names: str) -> PromptBatch:
    """Prompts of more than a block of vLLM's cache, which holds 128 tokens."""
    return batch_of(list(names), [9.0 + number for number in range(len(names))])


def step(engine: VllmEngine, policy: Any, batch: PromptBatch, rl_step: int) -> tuple[Rollout, Any]:
    context = policy.encode(batch)
    return engine.sample(policy, context, 4, DECODING, SampleKey(1, rl_step)), context


def gap(policy: Any, context: Any, rollout: Rollout) -> float:
    with torch.no_grad():
        scored = log_probs(policy, context, rollout, DECODING.temperature)
    return float((scored - rollout.log_probs)[rollout.keep].abs().max())


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CarelessEngine]:
    made = CarelessEngine(tmp_path_factory.mktemp("engine") / "fault")
    yield made
    made.close()


def update(policy: Any, context: Any, rollout: Rollout, lr: float = 1e-2) -> None:
    """A step of AdamW towards every other sample, as an RL step takes it."""
    trainable = list(policy.trainable().values())
    signs = torch.tensor([1.0, -1.0]).repeat(rollout.tokens.shape[1] // 2)[None, :, None]
    scored = log_probs(policy, context, rollout, DECODING.temperature)
    loss = -((scored * signs)[rollout.keep]).mean()
    gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
    for parameter, gradient in zip(trainable, gradients, strict=True):
        parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
    torch.optim.AdamW(trainable, lr=lr).step()


def gaps_over_updates(
    engine: VllmEngine, policy: Any, batch: PromptBatch, first: int
) -> list[float]:
    """The largest difference of log-probs before, and after each of three updates and pushes."""
    gaps = []
    weights = [p.detach().clone() for p in policy.trainable().values()]
    for rl_step in range(4):
        rollout, context = step(engine, policy, batch, first + rl_step)
        gaps.append(gap(policy, context, rollout))
        update(policy, context, rollout)
    # Adapters that were born as zeros have moved, too.
    moved = [
        float((now - before).abs().max())
        for before, now in zip(weights, policy.trainable().values(), strict=True)
    ]
    assert max(moved) > 0.02
    return gaps


LORA = Finetune(projector=False, lm="lora", lora_rank=4)


@pytest.mark.parametrize("mode", ["all", "lora"])
def test_log_probs_agree_before_and_after_three_updates(mode: str, engine: CarelessEngine) -> None:
    policy = asr(LORA if mode == "lora" else None)
    gaps = gaps_over_updates(engine, policy, clips("a", "b"), 10 * len(mode))
    print(f"\nfloat32, {mode}: {[f'{value:.1e}' for value in gaps]}")
    assert max(gaps) < FLOAT32
    assert engine.restarts == 0


def test_a_prefix_cache_that_is_not_emptied_is_found(engine: CarelessEngine) -> None:
    policy = asr(LORA)
    batch = clips("a")
    step(engine, policy, batch, 100)
    # The embeddings of the prompt stay as they were, the layers behind them do not.
    disturb(policy, scale=0.3)
    engine.fault_file.write_text("no reset")
    with pytest.raises(MismatchError) as raised:
        step(engine, policy, batch, 101)
    print(f"\n{raised.value}")


def test_weights_that_are_not_read_are_found(engine: CarelessEngine) -> None:
    policy = asr()
    engine.fault_file.write_text("")
    step(engine, policy, clips("a"), 200)
    disturb(policy)
    engine.fault_file.write_text("no reload")
    with pytest.raises(MismatchError) as raised:
        step(engine, policy, clips("a"), 201)
    print(f"\n{raised.value}")


def test_an_engine_that_is_killed_comes_back_with_the_present_weights(
    engine: CarelessEngine,
) -> None:
    policy = asr()
    engine.fault_file.write_text("")
    disturb(policy, scale=0.02)
    before, _ = step(engine, policy, clips("a", "b"), 300)
    os.kill(engine._link._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    after, context = step(engine, policy, clips("a", "b"), 300)
    assert engine.restarts == 1
    # On a CPU a seeded request depends on nothing else.
    assert torch.equal(before.tokens, after.tokens)
    assert gap(policy, context, after) < FLOAT32


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CarelessEngine]:
    made = CarelessEngine(tmp_path_factory.mktemp("speaking") / "fault")
    yield made
    made.close()


@pytest.mark.parametrize("mode", ["all", "lora"])
def test_the_shipped_speech_model(mode: str, speaking: CarelessEngine) -> None:
    """Served is a Llama of which nothing was made for this test."""
    finetune = LORA if mode == "lora" else None
    policy = SpeechLMPolicy(str(PARTS / "lm"), TinyCodec(str(PARTS / "codec")), finetune=finetune)
    texts = {"a": "one two", "b": "three four five", "c": "six"}
    rows = tuple(Utterance(name, (), text, 1.0) for name, text in texts.items())
    batch = PromptBatch(torch.zeros(3, 0), torch.zeros(3, dtype=torch.long), 8000, rows)
    gaps = gaps_over_updates(speaking, policy.eval(), batch, 10 * len(mode))
    print(f"\nfloat32, speech, {mode}: {[f'{value:.1e}' for value in gaps]}")
    assert max(gaps) < FLOAT32
    assert speaking.restarts == 0


def test_bfloat16(tmp_path: Path) -> None:
    engine = CarelessEngine(tmp_path / "fault", dtype="bfloat16")
    gaps = gaps_over_updates(engine, asr(), clips("a", "b"), 0)
    mean = engine.costs()["engine/first_group_mismatch"]
    engine.close()
    print(f"\nbfloat16 beside float32: {[f'{value:.1e}' for value in gaps]}, mean {mean:.1e}")
    assert max(gaps) < BFLOAT16

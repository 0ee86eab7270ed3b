from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_audiorl.algorithms import SFT, Optim
from lightning_audiorl.models import Finetune, FunAsrNanoPolicy
from tests.algorithms.naive import inputs_of
from tests.algorithms.tiny import fit, flat, make_batch, make_policy
from tests.helpers import assert_close, assert_gradients_close


def make_sft(policy: FunAsrNanoPolicy | None = None, **settings: Any) -> SFT:
    settings = {"num_steps": 1, "optim": Optim(lr=1e-2, max_grad_norm=0.0)} | settings
    return SFT(policy or make_policy(), **settings)


def with_dropout(policy: FunAsrNanoPolicy, share: float = 0.3) -> FunAsrNanoPolicy:
    """Switch on the dropout of the encoder, as in the released model."""
    for module in policy.model.model.audio_tower.modules():
        for name in ("dropout", "hidden_dropout"):
            if hasattr(module, name):
                setattr(module, name, share)
    return policy


def test_loss_and_gradient_are_those_of_transformers() -> None:
    """Mean over all target tokens, stop token included; over the tokens that may be sampled."""
    policy, batch = make_policy(), make_batch()
    losses, counts = [], []
    with policy.evaluating():
        for b, row in enumerate(batch.rows):
            target = [*policy.tokenizer.encode(row.text), policy.stop_ids[0]]
            inputs = inputs_of(policy, batch, b, target)
            labels = torch.full_like(inputs["input_ids"], -100)
            labels[:, -len(target) :] = inputs["input_ids"][:, -len(target) :]
            logits = policy.model(**inputs).logits.masked_fill(
                ~policy.allowed, torch.finfo(torch.float32).min
            )
            vocab_size = policy.model.config.text_config.vocab_size
            losses.append(
                policy.model.loss_function(logits=logits, labels=labels, vocab_size=vocab_size)
            )
            counts.append(len(target))
    total = sum(loss * n for loss, n in zip(losses, counts, strict=True)) / sum(counts)
    total.backward()
    gradients = {name: p.grad for name, p in policy.trainable().items() if p.grad is not None}
    expected = float(total.detach())
    recorder = fit(make_sft(), [batch])
    metrics = recorder.metrics[0]
    assert_gradients_close(recorder.gradient(), flat(gradients))
    assert_close(metrics["loss"], expected)
    assert metrics["tokens"] == sum(counts) == 9
    assert metrics["perplexity"] == pytest.approx(math.exp(expected), rel=1e-4)


@pytest.mark.parametrize(
    "settings", [{"micro_batch_size": 1}, {"micro_batch_size": 2}, {"chunk_size": 4}]
)
@pytest.mark.parametrize(
    "finetune", [Finetune(), Finetune(encoder=True)], ids=["frozen", "encoder"]
)
def test_pieces_of_a_batch_change_nothing(settings: dict[str, int], finetune: Finetune) -> None:
    whole, pieces = (fit(make_sft(make_policy(finetune), **kwargs)) for kwargs in ({}, settings))
    assert_close(pieces.metrics[0]["loss"], whole.metrics[0]["loss"])
    assert_gradients_close(pieces.gradient(), whole.gradient())
    assert whole.metrics[0]["grad_norm"] == pytest.approx(float(whole.gradient().norm()), rel=1e-5)


def test_a_frozen_encoder_gets_no_gradient() -> None:
    policy = make_policy()
    before = {k: v.clone() for k, v in policy.model.model.audio_tower.state_dict().items()}
    recorder = fit(make_sft(policy, num_steps=2))
    assert not [name for name in recorder.gradients[0] if "audio_tower" in name]
    assert recorder.gradients[0].keys() == policy.trainable().keys()
    for name, value in policy.model.model.audio_tower.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_trainable_encoder_gets_one() -> None:
    recorder = fit(make_sft(make_policy(Finetune(encoder=True))))
    encoder = [
        gradient for name, gradient in recorder.gradients[0].items() if "audio_tower" in name
    ]
    assert len(encoder) > 5
    assert all(gradient.abs().max() > 0 for gradient in encoder)


def test_dropout_of_a_frozen_encoder_is_off() -> None:
    """The model's other parts are in training mode, whatever mode the policy came in."""
    policy = with_dropout(make_policy()).eval()
    with_it, without = fit(make_sft(policy)), fit(make_sft())
    assert policy.model.model.language_model.training
    assert not policy.model.model.audio_tower.training
    assert_close(with_it.metrics[0]["loss"], without.metrics[0]["loss"], "exact")


def test_dropout_of_a_trainable_encoder_is_on_and_keyed() -> None:
    def run(seed: int, share: float = 0.3) -> list[float]:
        torch.manual_seed(torch.seed())
        policy = with_dropout(make_policy(Finetune(encoder=True)), share).eval()
        return [m["loss"] for m in fit(make_sft(policy, num_steps=2, seed=seed)).metrics]

    assert run(0) == run(0)
    assert run(0) != run(1)
    assert run(0) != run(0, share=0.0)


def test_lora_dropout_is_on() -> None:
    losses = []
    for share in (0.0, 0.5):
        policy = make_policy(Finetune(projector=False, lm="lora", lora_rank=4, lora_dropout=share))
        losses.append([m["loss"] for m in fit(make_sft(policy, num_steps=2)).metrics])
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_it_learns() -> None:
    recorder = fit(make_sft(num_steps=15))
    assert recorder.metrics[-1]["loss"] < 0.5 * recorder.metrics[0]["loss"]
    assert not torch.equal(flat(recorder.weights[0]), flat(recorder.weights[-1]))

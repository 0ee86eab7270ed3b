from __future__ import annotations

import pytest

from lightning_audiorl import ops
from lightning_audiorl.algorithms import Optim
from lightning_audiorl.types import Decoding
from tests.algorithms.naive import grpo_gradient, with_weights
from tests.algorithms.tiny import (
    FINETUNES,
    fit,
    flat,
    make_batch,
    make_grpo,
    make_policy,
    trainable,
)
from tests.helpers import assert_gradients_close


@pytest.mark.parametrize("finetune", FINETUNES)
def test_gradient_is_that_of_a_naive_loop(finetune: str) -> None:
    """Third inner update of the second RL step: ratio, clipping and KL are all at work."""
    decoding = Decoding(max_new_tokens=6, temperature=0.7)
    lr, clip = {"all": (2e-3, 0.2), "lora": (2e-2, 0.2), "projector": (2e-2, 1e-3)}[finetune]
    settings = {
        "beta": 0.3,
        "num_updates": 3,
        "decoding": decoding,
        "optim": Optim(lr=lr, max_grad_norm=0.0),
    }
    settings["objective"] = ops.GRPO(clip_low=clip, clip_high=clip)
    policy = make_policy(FINETUNES[finetune])
    start = trainable(policy)
    module = make_grpo(policy, num_steps=2, micro_batch_size=2, **settings)
    recorder = fit(module)
    step = module.last_step
    assert step is not None
    assert recorder.metrics[1]["kl"] > 0
    assert 0 < recorder.metrics[1]["clip_high"] + recorder.metrics[1]["clip_low"] < 0.9
    assert len(recorder.gradients) == 6
    naive = grpo_gradient(
        with_weights(policy, recorder.before[5]),
        with_weights(policy, recorder.before[3]),
        with_weights(policy, start),
        make_batch(),
        step.rollout,
        step.scores.total,
        beta=0.3,
        temperature=0.7,
        clip=clip,
    )
    assert naive.keys() == recorder.gradients[5].keys()
    assert_gradients_close(recorder.gradient(5), flat(naive))

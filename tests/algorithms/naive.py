"""GRPO's gradient the slow way: one sample after another through transformers' own forward, nothing shared."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_audiorl.models import FunAsrNanoPolicy
from lightning_audiorl.types import PromptBatch, Rollout


def inputs_of(
    policy: FunAsrNanoPolicy, batch: PromptBatch, b: int, completion: Sequence[int]
) -> dict[str, Tensor]:
    """Inputs of `FunAsrNanoForConditionalGeneration` for one clip and one completion, unpadded."""
    wave = batch.waveform[b, : batch.num_samples[b]].numpy()
    inputs = dict(
        policy.processor.apply_transcription_request(audio=wave, language=batch.rows[b].lang)
    )
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([list(completion)])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def logits_of(
    policy: FunAsrNanoPolicy, batch: PromptBatch, b: int, completion: Sequence[int]
) -> Tensor:
    """[T, V] logits that predict each token of the completion; -inf for tokens that may not be sampled."""
    logits = policy.model(**inputs_of(policy, batch, b, completion)).logits[0]
    start = len(logits) - len(completion)
    return logits[start - 1 : -1].masked_fill(~policy.allowed, -torch.inf)


def with_weights(policy: FunAsrNanoPolicy, weights: dict[str, Tensor]) -> FunAsrNanoPolicy:
    """A copy of the policy, in eval mode, that holds these trainable tensors."""
    other = copy.deepcopy(policy).eval()
    other.load_state_dict(weights, strict=False)
    return other


def grpo_gradient(
    policy: FunAsrNanoPolicy,
    old: FunAsrNanoPolicy,
    reference: FunAsrNanoPolicy,
    batch: PromptBatch,
    rollout: Rollout,
    rewards: Tensor,
    beta: float,
    temperature: float,
    clip: float = 0.2,
) -> dict[str, Tensor]:
    """Gradient of -mean over samples of the token mean of min(rA, clip(r)A) - beta (e^d - d - 1) (arXiv 2402.03300).

    Args:
        policy, old, reference: the model that trains, the one before this step's first update, the one RL began from.
        rewards: [B, G].
        beta, temperature, clip: settings of the run.
    """

    def log_probs(model: FunAsrNanoPolicy, b: int, tokens: list[int]) -> Tensor:
        scaled = (logits_of(model, batch, b, tokens) / temperature).log_softmax(-1)
        return scaled[torch.arange(len(tokens)), tokens]

    num_prompts, group_size = rewards.shape
    for parameter in policy.parameters():
        parameter.grad = None
    for b in range(num_prompts):
        mean, std = rewards[b].double().mean(), rewards[b].double().std()
        for g in range(group_size):
            tokens = rollout.tokens[b, g][rollout.keep[b, g]].tolist()
            advantage = float((rewards[b, g].double() - mean) / (std + 1e-4))
            now = log_probs(policy, b, tokens)
            with torch.no_grad():
                before, start = log_probs(old, b, tokens), log_probs(reference, b, tokens)
            ratio = (now - before).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
            d = start - now
            loss = -(gain - beta * (d.exp() - d - 1)).mean() / (num_prompts * group_size)
            loss.backward()
    return {name: p.grad for name, p in policy.trainable().items() if p.grad is not None}

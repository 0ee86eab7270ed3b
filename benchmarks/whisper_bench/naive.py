"""A GRPO step as one writes it first with transformers: each of the B*G samples is a row of its own, audio and all.

What a careful user does is done here too: sampling with a key-value cache, no graph through the frozen encoder, no
gradients for the reference, log-probs of the completion alone, in eval mode. What it lacks is what this library adds:
the audio of a clip is encoded once for each sample in each of the three passes, and every pass is of the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import process_time

import torch
from grpo_bench.driver import Driver
from torch import Tensor
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lightning_audiorl.types import Hypothesis, PromptBatch
from whisper_bench.case import WhisperCase, batches, optimizer_of, reward_mix


class NaiveStep:
    """Policy, reference and optimizer, and a step with them.

    Args:
        case: what is measured.
        trains_encoder: whether the encoder trains too, as it does where nobody freezes it.
    """

    def __init__(self, case: WhisperCase, trains_encoder: bool) -> None:
        torch.manual_seed(case.seed)
        self.case = case
        self.processor = WhisperProcessor.from_pretrained(case.model)
        self.policy = WhisperForConditionalGeneration.from_pretrained(case.model).eval()
        self.reference = WhisperForConditionalGeneration.from_pretrained(case.model).eval()
        self.reference.requires_grad_(False)
        # Its positions are sinusoids, which train on no side.
        self.policy.model.encoder.requires_grad_(trains_encoder)
        self.policy.model.encoder.embed_positions.requires_grad_(False)
        # The answer to silence is the empty text, as it may be on our side.
        self.policy.generation_config.begin_suppress_tokens = None

        trained = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = optimizer_of(case, trained)
        self.trained = trained
        self.rewards = reward_mix()

        # What the last step did: CPU seconds by phase, and rows that went through an encoder.
        self.seconds: dict[str, float] = {}
        self.encoded = 0
        for model in (self.policy, self.reference):
            model.model.encoder.register_forward_hook(self._count)

    def _count(self, module: object, args: object, output: object) -> None:
        self.encoded += len(output.last_hidden_state)  # type: ignore[attr-defined]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """CPU seconds inside are those of a phase."""
        began = process_time()
        yield
        self.seconds[name] = process_time() - began

    def step(self, batch: PromptBatch) -> dict[str, float]:
        """Sample, reward, score by the reference, update; returns metrics."""
        case = self.case
        self.seconds = {}
        self.encoded = 0

        with self.phase("encode"):
            clips = [
                wave[:length].numpy()
                for wave, length in zip(batch.waveform, batch.num_samples.tolist(), strict=True)
            ]
            features = self.processor.feature_extractor(
                clips, sampling_rate=batch.sample_rate_hz, return_tensors="pt"
            ).input_features

        with self.phase("rollout"):
            sequences = self.policy.generate(
                features,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                num_return_sequences=case.group_size,
                max_new_tokens=case.max_new_tokens,
                language="en",
                task="transcribe",
                # Tokens as they were drawn, prompt and end of text among them.
                force_unique_generate_call=True,
            )

        with self.phase("reward"):
            num_prompt = 4
            completions = sequences[:, num_prompt:]
            is_end = completions == self.policy.generation_config.eos_token_id
            # Up to the first end of text, that one among them; padding is the same token.
            keep = (is_end.cumsum(-1) - is_end.int()) == 0
            texts = self.processor.batch_decode(completions, skip_special_tokens=True)
            advantages, mean = self._advantages(batch, texts)

        rows = features.repeat_interleave(case.group_size, 0)
        with self.phase("reference"), torch.no_grad():
            reference = log_probs(self.reference, rows, sequences, num_prompt)

        with self.phase("update"):
            current = log_probs(self.policy, rows, sequences, num_prompt)
            ratio = (current - current.detach()).exp()
            gap = reference - current
            kl = gap.exp() - gap - 1
            terms = torch.where(keep, advantages[:, None] * ratio - case.beta * kl, 0.0)
            loss = -(terms.sum(-1) / keep.sum(-1)).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

        return {
            "loss": float(loss.detach()),
            "kl": float(kl.detach()[keep].mean()),
            "reward/mean": mean,
            "generated": int(keep.sum()),
            "longest": int(keep.sum(-1).max()),
        }

    def _advantages(self, batch: PromptBatch, texts: list[str]) -> tuple[Tensor, float]:
        """[B*G] normalised within each group, and the mean reward."""
        size = self.case.group_size
        groups = [
            [Hypothesis(row, text.strip()) for text in texts[b * size : (b + 1) * size]]
            for b, row in enumerate(batch.rows)
        ]
        rewards = self.rewards.score(groups).total
        spread = rewards.std(-1, keepdim=True)
        advantages = (rewards - rewards.mean(-1, keepdim=True)) / (spread + 1e-4)
        return advantages.flatten(), float(rewards.mean())


def log_probs(
    model: WhisperForConditionalGeneration, features: Tensor, sequences: Tensor, num_prompt: int
) -> Tensor:
    """[rows, T] log-probs of the completions behind a prompt, by a pass of the whole model."""
    logits = model(
        input_features=features, decoder_input_ids=sequences[:, :-1], use_cache=False
    ).logits
    logits = logits[:, num_prompt - 1 :]
    picked = logits.log_softmax(-1).gather(-1, sequences[:, num_prompt:, None])
    return picked.squeeze(-1)


def serve(case: WhisperCase, driver: Driver, trains_encoder: bool) -> None:
    """Take steps until the driver is told to stop."""
    step = NaiveStep(case, trains_encoder)
    for batch in batches(case):
        if not driver.wait():
            return
        metrics = step.step(batch)
        driver.report(
            phases=step.seconds,
            generated=metrics.pop("generated"),
            longest=metrics.pop("longest"),
            completions=len(batch) * case.group_size,
            encoder_rows=step.encoded,
            metrics=metrics,
        )

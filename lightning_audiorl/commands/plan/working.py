"""What each phase needs beside the parts that stand on the device: activations, caches, logits, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_audiorl import ops
from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.commands.plan.settings import Settings
from lightning_audiorl.commands.plan.skeleton import build_skeleton, unique_bytes
from lightning_audiorl.engine.micro_batches import micro_batches
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy, PrefixContext
from lightning_audiorl.models.decoding.sampling import draw
from lightning_audiorl.models.finetune import adapters_off
from lightning_audiorl.models.policy import Context
from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.types import Rollout


@dataclass(frozen=True)
class Working:
    """Bytes that a run takes on one device, apart from where its parts are.

    Args:
        policy: without values.
        phases: the most bytes held at once in each phase, what is made in it included.
        update_sharded: of the update, where only 1/N of each gradient is kept.
        context_bytes: of the encoded prompts of a step.
        optimizer_bytes: of the optimizer's state.
        needs_reference: whether a copy of the trainable tensors stands aside.
    """

    policy: CachedPromptPolicy
    phases: dict[Phase, int]
    update_sharded: int
    context_bytes: int
    optimizer_bytes: int
    needs_reference: bool


class Trace:
    """Runs the phases of a step, one by one, on tensors without values.

    Every completion is taken to reach its length cap, every clip to be ``audio_s`` long.

    Args:
        settings: of the run.
        num_ranks: devices that share the batch; gradients are kept whole, and as 1/num_ranks beside.
        audio_s: seconds of each clip.
        text_tokens: tokens of the prompt beside the audio frames; None is a usual number.
    """

    def __init__(
        self,
        settings: Settings,
        num_ranks: int = 1,
        audio_s: float = 20.0,
        text_tokens: int | None = None,
    ) -> None:
        if num_ranks < 1 or audio_s <= 0 or (text_tokens or 0) < 0:
            raise ValueError(
                f"plan: want num_devices >= 1, audio_s > 0, text_tokens >= 0; got {num_ranks}, {audio_s}, {text_tokens}"
            )
        self.settings, self.audio_s, self.text_tokens = settings, audio_s, text_tokens
        self.num_prompts = -(-settings.batch_size // num_ranks)
        self.share = 1 / num_ranks
        self.meter = Meter((self.share,))
        self.policy = build_skeleton(settings.make_policy, self.meter)
        if settings.accelerator != "cpu":
            # The meter's tensors are the CPU's, but no other device has its fused kernel.
            self.policy.fused_attention = False

    def run(self) -> Working:
        """Trace every phase that the run has."""
        settings, phases = self.settings, dict[Phase, int]()
        trainable = list(self.policy.trainable().values())
        self.meter.watch_gradients(trainable)
        only_adapters = all("lora_" in name for name in self.policy.trainable())
        with self._phase():
            context = self._encode()
            phases["encode"] = self._held()
            context_bytes = unique_bytes(context.tensors()) if context.tensors() else 0
        assert isinstance(context, PrefixContext)
        cap = max(self.policy.caps(context, settings.decoding))
        if settings.needs_rollout:
            with self._phase(), torch.no_grad():
                self._rollout(self._first(context, settings.rollout_batch_size), cap)
                phases["rollout"] = self._held() - context_bytes
            phases["reward"] = 0
        if settings.beta > 0:
            with self._phase(), torch.no_grad(), ExitStack() as stack:
                if only_adapters:
                    stack.enter_context(adapters_off(self.policy))
                self._score(*self._micro_batch(context, cap))
                phases["reference"] = self._held() - context_bytes
        phases["update"], update_sharded, optimizer_bytes = self._update(
            context, cap, trainable, context_bytes
        )
        needs_reference = settings.beta > 0 and not only_adapters
        return Working(
            self.policy, phases, update_sharded, context_bytes, optimizer_bytes, needs_reference
        )

    # --- the phases

    def _encode(self) -> Context:
        trains = self.policy.finetune.encoder
        size = self.num_prompts
        if trains:  # supervised training then encodes one micro-batch at a time, with its graph
            size = min(size, self.settings.micro_batch_size or size)
        with torch.set_grad_enabled(trains):
            return self.policy.example_context(size, self.audio_s, self.text_tokens)

    def _rollout(self, context: Context, cap: int) -> None:
        assert isinstance(context, PrefixContext)
        group_size = self.settings.group_size
        rows = len(context) * group_size
        held = [
            torch.empty(rows, cap, dtype=torch.float64),
            torch.zeros(rows, cap, dtype=torch.long),
        ]
        held += [torch.empty(rows, cap), torch.zeros(rows, cap, dtype=torch.bool)]
        state = self.policy.prefill(context)
        state.expand(group_size)
        uniform = torch.empty(rows, dtype=torch.float64)
        drawn = draw(self.policy.head(state.hidden), uniform, self.settings.decoding)
        if cap > 1:
            state.lengthen(cap - 2)
            state.advance(torch.zeros(rows, dtype=torch.long))
            drawn = draw(self.policy.head(state.hidden), uniform, self.settings.decoding)
        del drawn, held

    def _score(self, context: Context, rollout: Rollout, with_entropy: bool = False) -> Tensor:
        hidden = self.policy.hidden(context, rollout)
        tokens, keep = rollout.tokens.flatten(0, 1), rollout.keep.flatten(0, 1)
        temperature, chunk_size = self.settings.decoding.temperature, self.settings.chunk_size
        scored = ops.token_log_probs(
            hidden, self.policy.head, tokens, keep, temperature, None, chunk_size, with_entropy
        )
        return scored.log_probs

    def _update(
        self, context: Context, cap: int, trainable: list[nn.Parameter], context_bytes: int
    ) -> tuple[int, int, int]:
        """Working bytes with whole gradients and with a share of them, and those of the optimizer's state."""
        with self._phase(), torch.enable_grad():
            if self._num_micro_batches(context, cap) > 1:  # the gradients of those before are there
                for parameter in trainable:
                    parameter.grad = torch.empty_like(parameter)
                    self.meter.mark_gradient(parameter)
            self._score(
                *self._micro_batch(context, cap), self.settings.needs_rollout
            ).sum().backward()
        whole, sharded = (self._held(share) - context_bytes for share in (1.0, self.share))
        optimizer = torch.optim.AdamW(trainable, foreach=self.settings.accelerator != "cpu")
        with self.meter:
            optimizer.step()
            state = [
                t for values in optimizer.state.values() for t in values.values() if t.ndim > 0
            ]
            optimizer_bytes = unique_bytes(state)
            self.meter.reset()
            nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            whole_step = self._held() - optimizer_bytes - context_bytes
            # A rank steps over its own share of the parameters alone.
            sharded_step = int(whole_step * self.share)
        return max(whole, whole_step), max(sharded, sharded_step), optimizer_bytes

    # --- helpers

    @contextmanager
    def _phase(self) -> Iterator[None]:
        """A new peak, in the dtype of the forward passes."""
        settings = self.settings
        with ExitStack() as stack:
            stack.enter_context(self.meter)
            if settings.autocast:
                # As Lightning does it: no cast of a weight is kept for its next use.
                stack.enter_context(
                    torch.autocast("cpu", getattr(torch, settings.autocast), cache_enabled=False)
                )
            self.meter.reset()
            yield

    def _held(self, share: float = 1.0) -> int:
        return self.meter.peak_bytes[share]

    def _first(self, context: Context, num: int) -> Context:
        return context if num == 0 or num >= len(context) else context.select(list(range(num)))

    def _pieces(self, context: Context, cap: int) -> list[list[int]]:
        settings = self.settings
        lengths = [cap] * len(context)
        limits = settings.max_tokens, settings.micro_batch_size
        return micro_batches(context.prompt_lengths, lengths, settings.group_size, *limits)

    def _num_micro_batches(self, context: Context, cap: int) -> int:
        if self.policy.finetune.encoder:
            return -(-self.num_prompts // len(context))
        return len(self._pieces(context, cap))

    def _micro_batch(self, context: Context, cap: int) -> tuple[Context, Rollout]:
        """The largest micro-batch."""
        size = max(len(piece) for piece in self._pieces(context, cap))
        shape = (size, self.settings.group_size, cap)
        tokens, keep = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool)
        finished = torch.ones(shape[:2], dtype=torch.bool)
        return self._first(context, size), Rollout(tokens, keep, torch.zeros(shape), finished)


def trace(
    settings: Settings, num_ranks: int = 1, audio_s: float = 20.0, text_tokens: int | None = None
) -> Working:
    """See `Trace`."""
    return Trace(settings, num_ranks, audio_s, text_tokens).run()

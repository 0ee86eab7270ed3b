"""What each phase needs beside the parts that stand on the device: activations, caches, logits, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from lightning_audiorl import ops
from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.commands.plan.settings import Settings
from lightning_audiorl.commands.plan.skeleton import build_skeleton, unique_bytes
from lightning_audiorl.engine.micro_batches import micro_batches
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy, PrefixContext
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy
from lightning_audiorl.models.decoding.sampling import draw
from lightning_audiorl.models.decoding.weight_copies import copied_layers, copy_bytes
from lightning_audiorl.models.finetune import adapters_off
from lightning_audiorl.serving.base import EngineMemory
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
        cached_clip_bytes: of one clip in the policy's encoder cache; 0 without one.
        engine: what another engine takes; None where our own sampler runs.
        kept_copies_bytes: of copies of frozen weights that our own sampler keeps.
    """

    policy: CachedPromptPolicy
    phases: dict[Phase, int]
    update_sharded: int
    context_bytes: int
    optimizer_bytes: int
    needs_reference: bool
    cached_clip_bytes: int = 0
    engine: EngineMemory | None = None
    kept_copies_bytes: int = 0


@dataclass(frozen=True)
class _Update:
    """Bytes of the update.

    Args:
        num_bytes: the most that is held beside the parts and the encoded prompts.
        num_bytes_sharded: the same where only 1/N of each gradient is kept.
        optimizer_bytes: of the optimizer's state.
    """

    num_bytes: int
    num_bytes_sharded: int
    optimizer_bytes: int


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
        self.settings = settings
        self.audio_s = audio_s
        self.text_tokens = text_tokens

        # Rounded up: the plan is that of the rank with the most prompts.
        self.num_prompts = -(-settings.batch_size // num_ranks)
        self.share = 1 / num_ranks
        self.meter = Meter((self.share,))
        self.policy = build_skeleton(settings.make_policy, self.meter)
        if settings.accelerator != "cpu":
            # The meter's tensors are the CPU's, but no other device has its fused kernel.
            self.policy.fused_attention = False

    def run(self) -> Working:
        """Trace every phase that the run has."""
        settings = self.settings
        phases: dict[Phase, int] = {}
        kept, in_rollout = self._copied_bytes()
        trainable = self.policy.trainable()
        self.meter.watch_gradients(trainable.values())

        with self._phase():
            context = self._encode()
            phases["encode"] = self._held()
            context_bytes = unique_bytes(context.tensors())

        # The encoded prompts are a part of their own: what a phase makes is what it holds beside them.
        cap = max(self.policy.caps(context, settings.decoding))
        if settings.needs_rollout:
            with self._phase(), torch.no_grad():
                some = self._first(context, settings.rollout_batch_size)
                if settings.engine is None:
                    self._rollout(some, cap)
                else:
                    self._embed(some, cap)
                # Those that are kept are a part of their own.
                phases["rollout"] = self._held() - context_bytes + in_rollout - kept
            phases["reward"] = 0

        # Fresh adapters alone: the reference is the model without them, at no cost.
        only_adapters = all("lora_" in name for name in trainable)
        if settings.beta > 0:
            with (
                self._phase(),
                torch.no_grad(),
                adapters_off(self.policy) if only_adapters else nullcontext(),
            ):
                self._score(*self._micro_batch(context, cap))
                phases["reference"] = self._held() - context_bytes

        update = self._update(context, cap, list(trainable.values()), context_bytes)
        phases["update"] = update.num_bytes
        return Working(
            policy=self.policy,
            phases=phases,
            update_sharded=update.num_bytes_sharded,
            context_bytes=context_bytes,
            optimizer_bytes=update.optimizer_bytes,
            needs_reference=settings.beta > 0 and not only_adapters,
            cached_clip_bytes=self._cached_clip_bytes(context),
            engine=None if settings.engine is None else settings.engine.memory(self.policy),
            kept_copies_bytes=kept,
        )

    # --- the phases

    def _encode(self) -> PrefixContext:
        trains = self.policy.finetune.encoder
        size = self.num_prompts
        # Supervised training of an encoder encodes one micro-batch at a time, with its graph.
        if trains and self.settings.micro_batch_size:
            size = min(size, self.settings.micro_batch_size)
        with torch.set_grad_enabled(trains):
            context: PrefixContext = self.policy.example_context(
                size, self.audio_s, self.text_tokens
            )
            return context

    def _cached_clip_bytes(self, context: PrefixContext) -> int:
        cache = self.policy.encoder_cache
        features: Tensor | None = getattr(context, "features", None)
        if cache is None or features is None:
            return 0
        return cache.bytes_of(features[0])

    def _copied_bytes(self) -> tuple[int, int]:
        """Of copies of weights for the rollout: those that are kept, and all of them."""
        kept = 0
        in_rollout = 0
        if not self.settings.copy_weights:
            return kept, in_rollout

        for layer in copied_layers([self.policy.backbone, self.policy.output]):
            dtype = layer.weight.dtype
            if self.settings.autocast and dtype == torch.float32:
                dtype = getattr(torch, self.settings.autocast)
            size = copy_bytes(layer.weight, self.settings.accelerator, dtype)
            in_rollout += size
            kept += 0 if layer.weight.requires_grad else size
        return kept, in_rollout

    def _rollout(self, context: PrefixContext, cap: int) -> None:
        """The first token after the prompts, and the last one before the cap: in between memory only grows."""
        group_size = self.settings.group_size
        rows = len(context) * group_size

        # What the sampling loop keeps: uniform draws and tokens, their log-probs and whether they count.
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

    def _embed(self, context: PrefixContext, cap: int) -> None:
        """What is left here of a rollout by another engine: prompts are embedded, and one group is scored."""
        assert isinstance(self.policy, DecoderOnlyPolicy)
        prompts = self.policy.prompt(context, "right")
        del prompts
        self._score(*self._completions(context, 1, cap))

    def _score(
        self, context: PrefixContext, rollout: Rollout, with_entropy: bool = False
    ) -> Tensor:
        """Log-probs of a micro-batch's completions."""
        hidden = self.policy.hidden(context, rollout)
        scored = ops.token_log_probs(
            hidden,
            self.policy.head,
            rollout.tokens.flatten(0, 1),
            rollout.keep.flatten(0, 1),
            self.settings.decoding.temperature,
            chunk_size=self.settings.chunk_size,
            with_entropy=with_entropy,
        )
        return scored.log_probs

    def _update(
        self, context: PrefixContext, cap: int, trainable: list[nn.Parameter], context_bytes: int
    ) -> _Update:
        """The last micro-batch's backward pass, then clipping and the optimizer's second step."""
        with self._phase(), torch.enable_grad():
            # The gradients of the micro-batches before are there.
            if self._num_micro_batches(context, cap) > 1:
                for parameter in trainable:
                    parameter.grad = torch.empty_like(parameter)
                    self.meter.mark_gradient(parameter)
            self._score(
                *self._micro_batch(context, cap), self.settings.needs_rollout
            ).sum().backward()
        backward = self._held() - context_bytes
        backward_sharded = self._held(self.share) - context_bytes

        optimizer = torch.optim.AdamW(trainable, foreach=self.settings.accelerator != "cpu")
        with self.meter:
            # The first step makes the optimizer's state; steps cost what the second one does.
            optimizer.step()
            states = chain.from_iterable(values.values() for values in optimizer.state.values())
            optimizer_bytes = unique_bytes([state for state in states if state.ndim > 0])

            self.meter.reset()
            nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            step = self._held() - optimizer_bytes - context_bytes

        # A rank steps over its own share of the parameters alone.
        step_sharded = int(step * self.share)
        return _Update(max(backward, step), max(backward_sharded, step_sharded), optimizer_bytes)

    # --- helpers

    @contextmanager
    def _phase(self) -> Iterator[None]:
        """A new peak, in the dtype of the forward passes."""
        with ExitStack() as stack:
            stack.enter_context(self.meter)
            if self.settings.autocast:
                dtype = getattr(torch, self.settings.autocast)
                # As Lightning does it: no cast of a weight is kept for its next use.
                stack.enter_context(torch.autocast("cpu", dtype, cache_enabled=False))
            self.meter.reset()
            yield

    def _held(self, share: float = 1.0) -> int:
        """The most bytes since the phase began, with that share of the gradients."""
        return self.meter.peak_bytes[share]

    def _first(self, context: PrefixContext, num: int) -> PrefixContext:
        """The first ``num`` prompts; 0 is all of them."""
        if num == 0 or num >= len(context):
            return context
        return context.select(list(range(num)))

    def _micro_batches(self, context: PrefixContext, cap: int) -> list[list[int]]:
        settings = self.settings
        lengths = [cap] * len(context)
        return micro_batches(
            context.prompt_lengths,
            lengths,
            settings.group_size,
            settings.max_tokens,
            settings.micro_batch_size,
        )

    def _num_micro_batches(self, context: PrefixContext, cap: int) -> int:
        if self.policy.finetune.encoder:
            return -(-self.num_prompts // len(context))
        return len(self._micro_batches(context, cap))

    def _micro_batch(self, context: PrefixContext, cap: int) -> tuple[PrefixContext, Rollout]:
        """The largest micro-batch."""
        size = max(len(index) for index in self._micro_batches(context, cap))
        return self._completions(context, size, cap)

    def _completions(
        self, context: PrefixContext, size: int, cap: int
    ) -> tuple[PrefixContext, Rollout]:
        """The first ``size`` prompts, and completions of ``cap`` tokens."""
        shape = (size, self.settings.group_size, cap)
        following = None
        if self.policy.num_codebooks > 1:
            following = torch.zeros(*shape, self.policy.num_codebooks - 1, dtype=torch.long)
        rollout = Rollout(
            tokens=torch.zeros(shape, dtype=torch.long),
            keep=torch.ones(shape, dtype=torch.bool),
            log_probs=torch.zeros(shape),
            finished=torch.ones(shape[:2], dtype=torch.bool),
            following=following,
        )
        return self._first(context, size), rollout


def trace(
    settings: Settings, num_ranks: int = 1, audio_s: float = 20.0, text_tokens: int | None = None
) -> Working:
    """What a run needs beside its parts; the arguments are those of `Trace`."""
    return Trace(settings, num_ranks, audio_s, text_tokens).run()

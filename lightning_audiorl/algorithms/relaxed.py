"""The pass that DiffRO and GRPO + DiffRO share: hidden states -> relaxed codes -> Token2Text -> backward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.algorithms.diffro_filters import Candidates, DiffroFilter
from lightning_audiorl.algorithms.ranks import total
from lightning_audiorl.algorithms.refill import Sampled
from lightning_audiorl.algorithms.relaxation import ReferenceStates, Relaxation, RelaxedChunk
from lightning_audiorl.algorithms.sampled import SamplingModule
from lightning_audiorl.algorithms.unrolled import require_unrollable, unrolled_states
from lightning_audiorl.models.policy import Context, Policy
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.ops.logprobs import CHUNK_BYTES, over_chunks, scatter
from lightning_audiorl.rewards.differentiable import DifferentiableMix
from lightning_audiorl.strategies import Part, PhaseMixin, module_parts, rl_strategy
from lightning_audiorl.types import PromptBatch, Rollout, Utterance


@dataclass(frozen=True)
class RelaxedStep:
    """What a step's relaxed passes need.

    Args:
        rows: B.
        used: [B, G] bool, the samples that are learnt from.
        reference: None without a KL term.
        dropped: samples left out by reason.
    """

    rows: tuple[Utterance, ...]
    used: Tensor
    reference: ReferenceStates | None
    dropped: dict[str, int]


class RelaxedModule(SamplingModule):
    """Samples, and differentiates a reward of the relaxed samples.

    Args:
        differentiable: Token2Text and the rewards that it gives.
        relaxation: of the samples; default straight-through at tau 1 with posterior noise.
        diffro_filters: which samples are learnt from, in order.
        kwargs: see the class behind.
    """

    chunk_size: int | None

    def __init__(
        self,
        *args: Any,
        differentiable: DifferentiableMix,
        relaxation: Relaxation | None = None,
        diffro_filters: list[DiffroFilter] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        require_codes(self.policy, type(self).__name__)
        if self.decoding.top_k or self.decoding.top_p < 1:
            raise ValueError(
                f"{type(self).__name__} differentiates the whole distribution that samples come from; set "
                f"decoding.top_k to 0 and top_p to 1, not {self.decoding.top_k} and {self.decoding.top_p}"
            )
        self.differentiable = differentiable
        self.relaxation = relaxation or Relaxation()
        if self.relaxation.unrolled:
            require_unrollable(self.policy, type(self).__name__)
        self.diffro_filters = diffro_filters or []

    @abstractmethod
    def _parts(self, context: Context, rollout: Rollout) -> Iterator[tuple[list[int], bool, Context, Rollout]]:
        """Micro-batches: the prompts' numbers, whether they count, and their part of context and rollout."""

    # --- where Token2Text is, and whether it fits

    def setup(self, stage: str) -> None:
        """As `SamplingModule.setup`.

        Raises:
            ValueError: where Token2Text reads other codes than the policy speaks, or `Relaxation.unrolled` meets
                ranks that share each layer.
        """
        if stage == "fit":
            if self.relaxation.unrolled and rl_strategy(self.trainer.strategy).lockstep:
                raise ValueError(
                    f"relaxation.unrolled is {self.relaxation.unrolled}, which takes another number of forward passes "
                    f"on each rank; under {type(self.trainer.strategy).__name__} all take the same. Set it to 0, or "
                    "use phase_ddp"
                )
            codec: Any = self.policy.codec
            self.differentiable.check_codec(codec.cardinality, content_hash(codec))
        super().setup(stage)

    def parts(self) -> list[Part]:
        """As `SamplingModule.parts`, and Token2Text."""
        return [*super().parts(), *module_parts("token2text", [self.differentiable.network])]

    def on_fit_start(self) -> None:
        """Token2Text is no submodule; a strategy that places no parts does not move it."""
        if not isinstance(self.trainer.strategy, PhaseMixin):
            self.differentiable.network.to(self.device)

    def _sampled(self, batch: PromptBatch) -> Sampled:
        self.differentiable.check(batch.rows)
        return super()._sampled(batch)

    # --- before the update

    def candidates(self, sampled: Sampled, advantages: ops.Advantages) -> Candidates:
        """The samples as filters see them."""
        policy: Any = self.policy
        rollout = sampled.rollout
        codes = torch.where(rollout.keep, policy.token_to_code[rollout.tokens], -1)
        return Candidates(sampled.batch.rows, rollout, codes, sampled.scores, advantages)

    def select(self, candidates: Candidates) -> tuple[Tensor, dict[str, int]]:
        """[B, G] bool, the samples to learn from; and how many fell to each reason, the first that they met.

        Reasons beside the filters: "invalid", a reward failed; "no_speech", not a single code to read.
        """
        rules = {"invalid": candidates.scores.valid, "no_speech": candidates.num_codes > 0}
        used = torch.ones_like(candidates.scores.valid)
        dropped: dict[str, int] = {}
        for name, keep in [*rules.items(), *((type(f).__name__, f.keep(candidates)) for f in self.diffro_filters)]:
            dropped[name] = dropped.get(name, 0) + int((used & ~keep).sum())
            used = used & keep
        return used, dropped

    @torch.no_grad()
    def reference_states(self, context: Context, rollout: Rollout) -> ReferenceStates | None:
        """Hidden states of all samples under the reference, and its head; None without a reference."""
        if self.reference is None:
            return None
        policy: Any = self.policy
        with self.phase("reference"), self.reference.swapped_in(policy):
            hidden: Tensor | None = None
            for index, _, part_context, part in self._parts(context, rollout):
                states = policy.hidden(part_context, part).unflatten(0, part.tokens.shape[:2])
                if hidden is None:
                    hidden = states.new_zeros(*rollout.tokens.shape, states.shape[-1])
                hidden[index, :, : states.shape[2]] = states
            assert hidden is not None
            trains = any(p.requires_grad for p in policy.output.parameters())
            head = deepcopy(policy.output).requires_grad_(False) if trains else policy.output
        return ReferenceStates(hidden, head)

    # --- the update

    def relaxed_backward(self, step: RelaxedStep, context: Context, rollout: Rollout, beta: float) -> dict[str, float]:
        """Leave the gradient of -mean(R - beta KL) over the used samples in the parameters; returns its figures.

        KL is the mean over a sample's tokens. A step without a used sample leaves no gradient.
        """
        strategy: Any = self.trainer.strategy
        num_used = total(strategy, step.used.sum())
        scale = getattr(strategy, "loss_scale", 1.0) / max(1.0, num_used)
        tau = self.relaxation.tau.at(self.rl_step, self.num_steps)
        sums = dict.fromkeys(["loss", "tokens", "kl", "entropy", *self._reward_names()], 0.0)
        together = rl_strategy(strategy).lockstep  # where ranks compute layer by layer, all of them take part
        for index, counts, part_context, part in self._parts(context, rollout):
            if step.used[index].any() or together:
                loss, counted = self._part(step, index, part_context, part, beta, tau)
                self.manual_backward(loss * (scale * counts))
                for name, value in counted.items():
                    sums[name] += float(value) * counts
        sums = {name: total(strategy, value) for name, value in sums.items()}
        tokens = max(1.0, sums.pop("tokens"))
        figures = {name: sums.pop(name) / tokens for name in ("kl", "entropy")}
        if step.reference is None:
            figures.pop("kl")
        means = {name: value / num_used if num_used else float("nan") for name, value in sums.items()}
        return figures | means | {"tau": tau}

    def _reward_names(self) -> list[str]:
        return [f"reward/diffro/{name}" for name in ("total", *(r.name for r in self.differentiable.rewards))]

    def _part(
        self, step: RelaxedStep, index: list[int], context: Context, part: Rollout, beta: float, tau: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss of a micro-batch's used samples, and sums to be logged."""
        policy: Any = self.policy
        how, mix = self.relaxation, self.differentiable
        used = step.used[index]
        group_size, width = part.tokens.shape[1:]
        samples = used.flatten().nonzero().squeeze(-1)
        if not len(samples):
            hidden: Tensor = policy.hidden(context, part)
            return ops.masked_sum(hidden, torch.zeros_like(hidden, dtype=torch.bool)), {}
        read = part.keep.flatten(0, 1) & used.flatten()[:, None]
        own = policy.token_to_code[part.tokens.flatten(0, 1)]
        spoken = read & (own >= 0) if how.stop == "excluded" else read
        own = torch.where(own < 0, len(policy.code_to_token), own)
        names = [step.rows[i].id for i in index]
        keys = [
            ("relax", self.seed, self.rl_step, names[row // group_size], row % group_size, place)
            for row, place in read.nonzero().tolist()
        ]
        reference = None if step.reference is None else step.reference.head
        chunk = RelaxedChunk(
            policy, self.decoding.temperature, mix.network.table, how, tau, keys, own[read], spoken[read], reference
        )
        if how.unrolled:
            hidden = unrolled_states(chunk, context, part.tokens, read, self._chunk_size)
        else:
            hidden = policy.hidden(context, part)
        states = [hidden[read]]
        if step.reference is not None:
            states.append(step.reference.hidden[index][:, :, :width].flatten(0, 1)[read].to(hidden.device))
            if how.unrolled:
                states.append(policy.hidden(context, part)[read])
        parts = over_chunks(chunk, states, self._chunk_size(states[0]))
        embedded, measured = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
        sequence = embedded.new_zeros(*spoken.shape, embedded.shape[-1]).index_put(
            spoken.nonzero(as_tuple=True), embedded
        )
        lengths = spoken.sum(-1)[samples]
        rows = [step.rows[index[i // group_size]] for i in samples.tolist()]
        rewards, by_name = mix.score(sequence[samples, : int(lengths.max())], lengths, rows)
        kl = scatter(measured[:, 0], read)[samples].sum(-1) / read.sum(-1)[samples]
        loss = -(rewards - beta * kl).sum() if beta else -rewards.sum()
        counted = {"loss": loss, "tokens": read.sum(), "kl": measured[:, 0].sum(), "entropy": measured[:, 1].sum()}
        counted |= {f"reward/diffro/{name}": value.sum() for name, value in by_name.items()}
        return loss, {
            name: value.detach() for name, value in (counted | {"reward/diffro/total": rewards.sum()}).items()
        }

    @torch.no_grad()
    def _chunk_size(self, hidden: Tensor) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        vocab_size = self.policy.head(hidden[:0]).shape[-1]
        chunk_size = max(1, CHUNK_BYTES // (4 * vocab_size * (1 + self.relaxation.num_draws)))
        return 0 if chunk_size >= len(hidden) else chunk_size


def require_codes(policy: Policy, who: str) -> None:
    """See that a policy speaks in the codes of a codec.

    Raises:
        ValueError: for one that does not.
    """
    missing = [n for n in ("codec", "code_to_token", "token_to_code", "stop_ids", "output") if not hasattr(policy, n)]
    if missing:
        raise ValueError(
            f"{who} wants a policy that speaks in the codes of a codec, such as SpeechLMPolicy; "
            f"{type(policy).__name__} has no {', '.join(missing)}"
        )

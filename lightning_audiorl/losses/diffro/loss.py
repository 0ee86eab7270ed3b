"""DiffRO (arXiv 2507.05911): the gradient of a Token2Text's reward, through relaxed speech codes, into the policy.

The policy is teacher-forced on its own sample. Each position's distribution becomes a point in the simplex
(Gumbel-Softmax), embedded by Token2Text, whose log-likelihood of the text is the reward R. Maximised is
mean(R - beta * KL(policy || reference)) over the samples used; the KL is over the full vocabulary at each position.

    hidden [B*G, T, D] -> relaxed codes, KL, entropy (in chunks) -> Token2Text -> R [used samples] -> loss
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_audiorl import ops
from lightning_audiorl.checks import check_number
from lightning_audiorl.fields import Shape
from lightning_audiorl.losses.base import Loss, LossSettings, Prepared, ReferenceStates, Scorer
from lightning_audiorl.losses.diffro.filters import Candidates, DiffroFilter
from lightning_audiorl.losses.diffro.relaxation import Relaxation, RelaxedChunk
from lightning_audiorl.losses.diffro.unrolled import unrolled_states
from lightning_audiorl.losses.step import MicroBatch, RLStep, group_part
from lightning_audiorl.models.policy import SampleKey, SpeechPolicy, require_speech_policy
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.ops.logprobs import CHUNK_BYTES, over_chunks, scatter
from lightning_audiorl.rewards.differentiable import DifferentiableMix
from lightning_audiorl.types import Utterance


@dataclass(frozen=True, kw_only=True)
class PreparedDiffRO(Prepared):
    """What the updates of one step need.

    Args:
        used: [B, G] bool, the samples that are learnt from.
        key: of the step's draws.
        tau: temperature of the relaxation in this step.
        reference: hidden states and head of the reference; None without a KL term.
    """

    used: Annotated[Tensor, Shape("B G")]
    key: SampleKey
    tau: float
    reference: ReferenceStates | None = None


@dataclass(frozen=True)
class _Positions:
    """Which positions of a micro-batch are used, as masks over its n * G samples.

    Args:
        samples: numbers of the samples that are used.
        used: [n*G, T] bool, their tokens.
        spoken: [n*G, T] bool, of these, the tokens that Token2Text reads.
        classes: [n*G, T] code of each token; the number of codes stands for the end of speech.
    """

    samples: Tensor
    used: Tensor
    spoken: Tensor
    classes: Tensor


class DiffROLoss(Loss[PreparedDiffRO]):
    """Climb the gradient of a differentiable reward of the relaxed samples.

    Args:
        differentiable: Token2Text and the rewards that it gives.
        relaxation: of the samples; default straight-through at tau 1 with posterior noise.
        filters: which samples are learnt from, in order.
        beta: weight of the KL; 0 asks for no reference.
    """

    name = "diffro"
    progress_bar: ClassVar[Mapping[str, str]] = {"reward": "reward/diffro/total", "kl": "kl"}

    policy: SpeechPolicy

    def __init__(
        self,
        differentiable: DifferentiableMix,
        relaxation: Relaxation | None = None,
        filters: Sequence[DiffroFilter] | None = None,
        beta: float = 0.1,
    ) -> None:
        check_number("DiffROLoss.beta", beta, at_least=0)

        self.differentiable = differentiable
        self.relaxation = relaxation or Relaxation()
        self.filters = list(filters or [])
        self.beta = beta
        rewards = ["total", *(reward.name for reward in differentiable.rewards)]
        keys = [f"reward/diffro/{name}" for name in rewards]
        self.sum_names = ("loss", "tokens", "kl", "entropy", *keys)

    def bind(self, settings: LossSettings) -> None:
        """Learn which run the loss belongs to.

        Raises:
            ValueError: for a policy that does not speak in codes, or a decoding that truncates.
        """
        super().bind(settings)
        self.policy = require_speech_policy(settings.policy, settings.algorithm)

        decoding = settings.decoding
        if decoding.top_k or decoding.top_p < 1:
            raise ValueError(
                f"{settings.algorithm} differentiates the whole distribution that samples come from; set "
                f"decoding.top_k to 0 and top_p to 1, not {decoding.top_k} and {decoding.top_p}"
            )

    @property
    def needs_reference(self) -> bool:
        return self.beta > 0

    @property
    def needs_rewards(self) -> str | None:
        wanting = [type(rule).__name__ for rule in self.filters if rule.needs_rewards]
        return wanting[0] if wanting else None

    @property
    def passes_vary(self) -> str | None:
        return (
            f"relaxation.unrolled is {self.relaxation.unrolled}"
            if self.relaxation.unrolled
            else None
        )

    def frozen_modules(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"token2text": [self.differentiable.network]}

    def check_run(self) -> None:
        """See that Token2Text reads the codes that the policy speaks."""
        codec = self.policy.codec
        self.differentiable.check_codec(codec.cardinality, content_hash(codec))

    def check_rows(self, rows: Sequence[Utterance]) -> None:
        self.differentiable.check(rows)

    # --- which samples are learnt from

    def candidates(self, step: RLStep) -> Candidates:
        """The samples as filters see them."""
        rollout = step.rollout
        codes = torch.where(rollout.keep, self.policy.token_to_code[rollout.tokens], -1)
        return Candidates(step.batch.rows, rollout, codes, step.scores, step.advantages)

    def select(self, candidates: Candidates) -> tuple[Tensor, dict[str, int]]:
        """[B, G] bool, the samples to learn from; and how many fell to each reason, the first that they met.

        Reasons beside the filters: "invalid", a reward failed; "no_speech", not a single code to read.
        """
        rules = [("invalid", candidates.scores.valid), ("no_speech", candidates.num_codes > 0)]
        rules += [(type(rule).__name__, rule.keep(candidates)) for rule in self.filters]

        used = torch.ones_like(candidates.scores.valid)
        dropped: dict[str, int] = {}
        for name, keep in rules:
            dropped[name] = dropped.get(name, 0) + int((used & ~keep).sum())
            used = used & keep
        return used, dropped

    def has_signal(self, step: RLStep) -> list[bool]:
        """Groups of which any sample passes the filters."""
        used, _ = self.select(self.candidates(step))
        return [bool(group.any()) for group in used]

    # --- before the update

    def prepare(self, step: RLStep, scorer: Scorer) -> PreparedDiffRO:
        used, dropped = self.select(self.candidates(step))
        metrics = {
            "used_share": float(used.float().mean()),
            "used_group_share": float(used.any(-1).float().mean()),
            "stop_rate": float(step.rollout.finished.float().mean()),
        }

        return PreparedDiffRO(
            used=used,
            count=float(used.sum()),
            metrics=metrics
            | {f"dropped/diffro/{name}": float(count) for name, count in dropped.items()},
            key=step.key,
            tau=self.relaxation.tau.at(step.key.rl_step, step.num_steps),
            reference=scorer.reference_states() if self.needs_reference else None,
        )

    # --- the update

    def compute(
        self, prepared: PreparedDiffRO, micro_batch: MicroBatch, divisor: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        positions = self._positions(prepared, micro_batch)

        # Ranks that compute layer by layer together pass even where nothing is used: a graph, and the value 0.
        if not len(positions.samples):
            hidden = self.policy.hidden(micro_batch.context, micro_batch.samples)
            return ops.masked_sum(hidden, torch.zeros_like(hidden, dtype=torch.bool)), {}

        embedded, kl_of_tokens, entropy = self._relaxed(prepared, micro_batch, positions)

        # What Token2Text reads: the relaxed codes of each used sample, padded to the longest.
        spoken = positions.spoken
        sequence = embedded.new_zeros(*spoken.shape, embedded.shape[-1])
        sequence = sequence.index_put(spoken.nonzero(as_tuple=True), embedded)
        lengths = spoken.sum(-1)[positions.samples]
        group_size = micro_batch.samples.tokens.shape[1]
        rows = [micro_batch.rows[i // group_size] for i in positions.samples.tolist()]
        longest = int(lengths.max())
        rewards, by_name = self.differentiable.score(
            sequence[positions.samples, :longest], lengths, rows
        )

        # The KL is the mean over a sample's tokens.
        num_tokens = positions.used.sum(-1)[positions.samples]
        kl = scatter(kl_of_tokens, positions.used)[positions.samples].sum(-1) / num_tokens
        if self.beta:
            loss = -(rewards - self.beta * kl).sum()
        else:
            loss = -rewards.sum()

        sums = {
            "loss": loss,
            "tokens": positions.used.sum(),
            "kl": kl_of_tokens.sum(),
            "entropy": entropy.sum(),
        }
        sums |= {f"reward/diffro/{name}": value.sum() for name, value in by_name.items()}
        sums["reward/diffro/total"] = rewards.sum()
        return loss * (1.0 / divisor), {name: value.detach() for name, value in sums.items()}

    def metrics(
        self, prepared: PreparedDiffRO, sums: dict[str, float], divisor: float
    ) -> dict[str, float]:
        """KL and entropy per token; loss and rewards per used sample, NaN where none is used; tau."""
        per_token = {}
        per_sample = {}
        num_tokens = max(1.0, sums["tokens"])
        for name, value in sums.items():
            if name in ("kl", "entropy"):
                per_token[name] = value / num_tokens
            elif name != "tokens":
                per_sample[name] = value / divisor if divisor else float("nan")

        if not self.needs_reference:
            per_token.pop("kl")
        return per_token | per_sample | {"tau": prepared.tau}

    def _positions(self, prepared: PreparedDiffRO, micro_batch: MicroBatch) -> _Positions:
        rollout = micro_batch.samples
        used_samples = prepared.used[micro_batch.index].flatten()
        used = rollout.keep.flatten(0, 1) & used_samples[:, None]

        classes = self.policy.token_to_code[rollout.tokens.flatten(0, 1)]
        spoken = used
        if self.relaxation.stop == "excluded":
            spoken = used & (classes >= 0)
        return _Positions(
            samples=used_samples.nonzero().squeeze(-1),
            used=used,
            spoken=spoken,
            classes=torch.where(classes < 0, len(self.policy.code_to_token), classes),
        )

    def _relaxed(
        self, prepared: PreparedDiffRO, micro_batch: MicroBatch, positions: _Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded relaxed codes [spoken, width], and KL and entropy [used], of a micro-batch's positions."""
        policy = self.policy
        rollout = micro_batch.samples
        context = micro_batch.context
        used = positions.used
        reference = prepared.reference

        # Positions go through head and relaxation in chunks: the logits of all never stand in memory together.
        chunk = RelaxedChunk(
            policy=policy,
            temperature=self.settings.decoding.temperature,
            table=self.differentiable.network.table,
            how=self.relaxation,
            tau=prepared.tau,
            keys=self._keys(prepared, micro_batch, used),
            own=positions.classes[used],
            spoken=positions.spoken[used],
            reference=None if reference is None else reference.head,
        )

        if self.relaxation.unrolled:
            hidden = unrolled_states(chunk, context, rollout.tokens, used, self._chunk_size)
        else:
            hidden = policy.hidden(context, rollout)

        states = [hidden[used]]
        if reference is not None:
            of_reference = group_part(reference.hidden, micro_batch).flatten(0, 1)
            states.append(of_reference[used].to(hidden.device))

            # The KL is of the policy after the sample's own tokens, whatever it reads while it is unrolled.
            if self.relaxation.unrolled:
                states.append(policy.hidden(context, rollout)[used])

        chunks = over_chunks(chunk, states, self._chunk_size(states[0]))
        embedded = torch.cat([codes for codes, _ in chunks])
        measured = torch.cat([kl_and_entropy for _, kl_and_entropy in chunks])
        return embedded, measured[:, 0], measured[:, 1]

    def _keys(
        self, prepared: PreparedDiffRO, micro_batch: MicroBatch, used: Tensor
    ) -> list[tuple[int | str, ...]]:
        """What keys the noise of each used position: the same draw wherever and whenever it is computed."""
        group_size = micro_batch.samples.tokens.shape[1]
        keys: list[tuple[int | str, ...]] = []
        for sample, place in used.nonzero().tolist():
            prompt = micro_batch.rows[sample // group_size].id
            keys.append(
                (
                    "relax",
                    prepared.key.seed,
                    prepared.key.rl_step,
                    prompt,
                    sample % group_size,
                    place,
                )
            )
        return keys

    @torch.no_grad()
    def _chunk_size(self, hidden: Tensor) -> int:
        """Positions per call of the head, so that one chunk's logits and draws stay small; 0 takes all at once."""
        if self.settings.chunk_size is not None:
            return self.settings.chunk_size

        vocab_size = self.policy.head(hidden[:0]).shape[-1]
        chunk_size = max(1, CHUNK_BYTES // (4 * vocab_size * (1 + self.relaxation.num_draws)))
        return 0 if chunk_size >= len(hidden) else chunk_size

"""How samples are relaxed, and the relaxation itself: one chunk of hidden states at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.checks import check_count
from lightning_audiorl.models.policy import SpeechPolicy
from lightning_audiorl.ops.logprobs import scaled_logits


@dataclass(frozen=True)
class Relaxation:
    """How sampled codes become points that gradients pass through.

    Args:
        tau: temperature of the Gumbel-Softmax.
        form: "straight_through", Token2Text reads the hard codes; or "soft", it reads weighted means of embeddings.
        noise: "posterior", as it must have been for the own sample to be drawn, so that the relaxed codes belong to
            the prefix that they are conditioned on; or "fresh", as in the paper.
        num_draws: K draws of noise, averaged.
        stop: "relaxed", the end of speech is one more class, which gets a gradient; or "excluded", a softmax over the
            codes alone, and the stop token is not read.
        unrolled: how many codes at the start of each sample the language model itself reads relaxed, so that the
            gradient of the reward also flows through time (`unrolled.unrolled_states`); 0, all are the own sample's.

    Example:
        >>> Relaxation(form="soft").keeps_values
        False
        >>> Relaxation().keeps_values
        True
    """

    tau: ops.TauSchedule = field(default_factory=ops.TauSchedule)
    form: ops.RelaxForm = "straight_through"
    noise: Literal["posterior", "fresh"] = "posterior"
    num_draws: int = 1
    stop: Literal["relaxed", "excluded"] = "relaxed"
    unrolled: int = 0

    def __post_init__(self) -> None:
        known = self.form in ("soft", "straight_through") and self.noise in ("posterior", "fresh")
        if not known or self.stop not in ("relaxed", "excluded"):
            raise ValueError(
                "Relaxation: form is soft or straight_through, noise posterior or fresh, stop relaxed or excluded; got "
                f"{self.form!r}, {self.noise!r}, {self.stop!r}"
            )
        check_count("Relaxation.num_draws", self.num_draws, at_least=1)
        check_count("Relaxation.unrolled", self.unrolled)

    @property
    def keeps_values(self) -> bool:
        """Whether relaxed codes have the values of the own sample's, and only their gradient is another."""
        return self.form == "straight_through" and self.noise == "posterior"


@dataclass(frozen=True)
class RelaxedChunk:
    """Hidden states [n, D] of some positions -> embedded relaxed codes [spoken of them, width], KL and entropy [n, 2].

    Draws are keyed, so that a chunk that is computed again in the backward pass sees the same noise.

    Args:
        policy: that speaks in codes.
        temperature: of the sampler.
        table: [N + 1, width] embeddings of Token2Text.
        how: the relaxation.
        tau: its temperature in this step.
        keys: of each position's draws.
        own: class of each position's sampled token, N for the end of speech.
        spoken: bool, the positions that Token2Text reads.
        reference: the reference's head; None without a KL. The KL is then 0.
    """

    policy: SpeechPolicy
    temperature: float
    table: Tensor
    how: Relaxation
    tau: float
    keys: Sequence[tuple[int | str, ...]]
    own: Tensor
    spoken: Tensor
    reference: ops.Head | None

    def __call__(self, hidden: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        """Relax one chunk.

        Args:
            hidden: [n, D] of the policy.
            others: where there is a reference, its hidden states and, where ``how.unrolled``, the policy's own after
                the sample's tokens, which is what the KL is of; then the positions' places in the whole.
        """
        *states, places = others
        logits = scaled_logits(self.policy.head(hidden), self.temperature)
        kl = torch.zeros_like(logits[:, 0])

        if self.reference is not None:
            with torch.no_grad():
                of_reference = scaled_logits(self.reference(states[0]), self.temperature)
            own = (
                scaled_logits(self.policy.head(states[1]), self.temperature)
                if self.how.unrolled
                else logits
            )
            # A token that the policy may not say is none for the reference either.
            kl = ops.full_vocabulary_kl(own, of_reference.masked_fill(own.isneginf(), -torch.inf))

        embedded = ops.soft_embedding(self._weights(logits, places), self.table)
        return embedded, torch.stack([kl, _entropy(logits.detach())], dim=-1)

    def _weights(self, logits: Tensor, places: Tensor) -> Tensor:
        """[n, V] logits of the positions ``places`` -> [spoken of them, N + 1] relaxed codes."""
        policy = self.policy
        how = self.how
        spoken = self.spoken[places]
        with_stop = how.stop == "relaxed"
        classes = ops.code_logits(
            logits[spoken], policy.code_to_token, policy.stop_ids, with_stop=with_stop
        )

        keys = [self.keys[i] for i in places[spoken].tolist()]
        draws = ops.keyed_exponentials(keys, how.num_draws, classes.shape[-1]).to(classes.device)
        if how.noise == "fresh":
            noise = ops.gumbel_noise(draws)
        else:
            noise = ops.posterior_noise(classes.detach(), self.own[places][spoken], draws)
        return ops.relax(classes, self.tau, noise, how.form)


def _entropy(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    return -ops.masked(log_p.exp() * log_p, ~log_p.isneginf()).sum(-1)

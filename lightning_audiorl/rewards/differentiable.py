"""Rewards that gradients flow through (DiffRO): log-likelihoods of a frozen Token2Text, over codes hard or relaxed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_audiorl.token2text.labels import class_ids
from lightning_audiorl.token2text.network import Encoded, Token2Text
from lightning_audiorl.types import Utterance


class DifferentiableReward(ABC):
    """Scores speech that a `Token2Text` has encoded; higher is better.

    Args:
        weight: factor in the mix, finite and >= 0; with 0 the reward is only logged.
        name: log key of this component; unique within a mix.
    """

    def __init__(self, weight: float, name: str) -> None:
        if not math.isfinite(weight) or weight < 0 or not name:
            raise ValueError(
                f"{type(self).__name__}: want a finite weight >= 0 and a name, got {weight} and {name!r}; rewards are "
                "higher-is-better"
            )
        self.weight = float(weight)
        self.name = name

    @abstractmethod
    def score(
        self,
        network: Token2Text,
        encoded: Encoded,
        rows: Sequence[Utterance],
    ) -> Tensor:
        """[B] values with their gradient to ``encoded``; a row's value depends on that row alone."""

    @abstractmethod
    def check(self, network: Token2Text, rows: Sequence[Utterance] = ()) -> None:
        """See that ``network`` can score ``rows``; called once without rows, then with those of each step.

        Raises:
            ValueError: naming what is missing, and the row.
        """


class TextLikelihood(DifferentiableReward):
    """log P(text | speech) per character, in nats (arXiv 2507.05911).

    Range: (-inf, 0]. Not clamped: a bound would take the gradient from the worst samples.

    Args:
        form: "decoder", teacher-forced as in the paper, or "ctc", over all alignments.
        weight: factor in the mix.
        name: log key.

    Example:
        >>> network = Token2Text(num_codes=16, characters="one", width=8, heads=2).eval()
        >>> encoded = network(torch.tensor([[3, 7, 1, 16]]), torch.tensor([4]))
        >>> TextLikelihood("ctc").score(network, encoded, [Utterance("row", (), "one", 1.0)]).shape
        torch.Size([1])
    """

    def __init__(
        self,
        form: Literal["decoder", "ctc"] = "decoder",
        weight: float = 1.0,
        name: str = "text",
    ) -> None:
        super().__init__(weight, name)
        if form not in ("decoder", "ctc"):
            raise ValueError(f"TextLikelihood.form: expected 'decoder' or 'ctc', got {form!r}")
        self.form = form

    def score(
        self,
        network: Token2Text,
        encoded: Encoded,
        rows: Sequence[Utterance],
    ) -> Tensor:
        targets = network.targets(rows)
        if self.form == "ctc":
            return network.ctc_log_likelihood(encoded, targets)
        return network.text_log_likelihood(encoded, targets)

    def check(self, network: Token2Text, rows: Sequence[Utterance] = ()) -> None:
        network.targets(rows)


class HeadLikelihood(DifferentiableReward):
    """log P(label | speech) of a further head, in nats: one component of the multi-task reward.

    Range: (-inf, 0]. The label is the row's speaker for the head "speaker", else the manifest field of its name.

    Args:
        head: one of the network's ``labels``.
        weight: factor in the mix.
        name: log key; by default the head's name.
    """

    def __init__(
        self,
        head: str = "speaker",
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name or head)
        self.head = head

    def score(
        self,
        network: Token2Text,
        encoded: Encoded,
        rows: Sequence[Utterance],
    ) -> Tensor:
        classes = class_ids(rows, self.head, network.labels[self.head])
        return network.head_log_likelihood(
            self.head, encoded, torch.tensor(classes, device=encoded.states.device)
        )

    def check(self, network: Token2Text, rows: Sequence[Utterance] = ()) -> None:
        if self.head not in network.labels:
            raise ValueError(
                f"HeadLikelihood: Token2Text has no head {self.head!r}, only {sorted(network.labels) or 'none'}; train "
                "it with labels (network.init_args.labels)"
            )
        class_ids(rows, self.head, network.labels[self.head])


class DifferentiableMix:
    """Weighted sum of differentiable rewards over one Token2Text, which encodes each sample once.

    Args:
        token2text: the folder of a trained network, or a network.
        rewards: the components; default the text likelihood alone.

    Example:
        >>> network = Token2Text(num_codes=16, characters="one", width=8, heads=2)
        >>> mix = DifferentiableMix(network, [TextLikelihood(), TextLikelihood("ctc", weight=0.0, name="ctc")])
        >>> embedded = network.embed(torch.tensor([[3, 7, 1, 16]]))
        >>> total, components = mix.score(embedded, torch.tensor([4]), [Utterance("row", (), "one", 1.0)])
        >>> bool(total == components["text"]), sorted(components)
        (True, ['ctc', 'text'])
    """

    def __init__(
        self, token2text: str | Token2Text, rewards: list[DifferentiableReward] | None = None
    ) -> None:
        self.rewards = [TextLikelihood()] if rewards is None else list(rewards)
        names = [reward.name for reward in self.rewards]
        names_differ = len(set(names)) == len(names)
        if not names_differ or not any(reward.weight for reward in self.rewards):
            raise ValueError(
                f"DifferentiableMix.rewards: names must differ and some weight must be above 0; got {names} with "
                f"weights {[reward.weight for reward in self.rewards]}"
            )

        # Frozen: its gradient goes to the codes, never to its weights.
        network = Token2Text.load(token2text) if isinstance(token2text, str) else token2text
        self.network = network.requires_grad_(False).eval()
        for reward in self.rewards:
            reward.check(self.network)

    def check(self, rows: Sequence[Utterance]) -> None:
        """See that every reward can score ``rows``; raises ValueError naming the first that it cannot."""
        for reward in self.rewards:
            reward.check(self.network, rows)

    def check_codec(self, num_codes: int, codec_hash: str) -> None:
        """See that the network reads the codes that a policy speaks.

        Raises:
            ValueError: for another number of codes, or another codec with as many.
        """
        network = self.network
        if network.num_codes != num_codes:
            raise ValueError(
                f"Token2Text reads {network.num_codes} codes, the policy speaks {num_codes}: they belong to different "
                "codecs; train Token2Text with the policy's codec"
            )
        if network.codec_hash not in ("", codec_hash):
            raise ValueError(
                f"Token2Text was trained with another codec of {num_codes} codes (content hash {network.codec_hash}; "
                f"the policy's is {codec_hash}): the same code would be another sound; train it with the policy's codec"
            )

    def score(
        self,
        embedded: Tensor,
        lengths: Tensor,
        rows: Sequence[Utterance],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score B samples.

        Args:
            embedded: [B, T, width] codes as the network embeds them, hard or relaxed.
            lengths: [B] codes of each sample, its end of speech included.
            rows: B.

        Returns:
            [B] total with its gradient, and the unweighted components by name, without.
        """
        encoded = self.network.encode(embedded, lengths)
        components = {
            reward.name: reward.score(self.network, encoded, rows) for reward in self.rewards
        }

        # A reward of weight 0 is only logged: 0 times its infinite gradient would be NaN.
        total = embedded.new_zeros(len(rows))
        for reward in self.rewards:
            if reward.weight:
                total = total + reward.weight * components[reward.name]
        return total, {name: component.detach() for name, component in components.items()}

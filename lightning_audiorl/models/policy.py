"""What an algorithm knows of a model: encode, sample, hidden, head, decode. Nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.fields import Batched
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.types import Decoding, PromptBatch, Rollout, Speech


class Context(Batched, ABC):
    """Encoded prompts, opaque to algorithms: they can be selected, joined and moved, and they know their size."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of prompts B."""

    @property
    @abstractmethod
    def prompt_lengths(self) -> list[int]:
        """Tokens of each prompt as the language model (or decoder) reads it, audio frames in its stream included."""


ContextT = TypeVar("ContextT", bound=Context)


@dataclass(frozen=True)
class SampleKey:
    """What keys the draws of one rollout: with a prompt's id and a sample's index it names every draw.

    Example:
        >>> SampleKey(seed=0, rl_step=12)
        SampleKey(seed=0, rl_step=12, purpose='rollout')
    """

    seed: int
    rl_step: int
    purpose: str = "rollout"


class StartingPoint(Protocol):
    """Where a policy's starting weights came from."""

    def record(self) -> dict[str, Any]:
        """Names them in plain data, for checkpoints and error messages."""


class Policy(nn.Module, ABC, Generic[ContextT]):
    """A language model that continues an audio (or text) prompt; ``ContextT`` is what it encodes prompts to.

    Rows of G samples of B prompts are always ordered prompt by prompt: row = b * G + g.
    """

    #: Encoder rows computed so far; each clip counts one row per `encode` (a test holds that it is once per step), and
    #: none where its output was kept.
    num_encoded: int = 0

    #: Hotwords that prompts had no room for, since the last step was logged.
    num_hotwords_cut: int = 0

    #: Whether its answers are speech, and not text.
    speaks: bool = False

    #: Codes that a completion has at each of its positions, and which of them are drawn by what trains: `head` and
    #: log-probabilities are of these. The others follow (`Rollout.following`), drawn by parts that stay as they are.
    num_codebooks: int = 1
    learning_codebooks: tuple[int, ...] = (0,)

    #: Whether evaluations may hold clips beyond `clip_span_s`, which `transcribe_long` reads.
    long_form: bool = False

    #: What the weights were before training; a subclass sets it. Checkpoints hold its record instead of frozen weights.
    start: StartingPoint

    #: What trains; a subclass sets it. A checkpoint with adapters is read by it.
    finetune: Finetune = Finetune()

    #: Where a frozen encoder's outputs are kept; None computes them each time.
    encoder_cache: EncoderCache | None = None

    @abstractmethod
    def encode(self, batch: PromptBatch) -> ContextT:
        """Encode each clip once. Gradients flow only where encoder parameters are trainable."""

    def needs_encoder(self, batch: PromptBatch) -> bool:
        """Whether `encode` would enter the encoder: not where it has all of a batch's outputs at hand."""
        return True

    @abstractmethod
    def sample(
        self, context: ContextT, group_size: int, decoding: Decoding, key: SampleKey
    ) -> Rollout:
        """Draw G completions per prompt with keyed randomness, in eval mode, without gradients."""

    @abstractmethod
    def hidden(self, context: ContextT, rollout: Rollout) -> Tensor:
        """[B*G, T, D] hidden states that predict ``rollout.tokens``; the prompt is computed once per group."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, [..., D] -> [..., V]; tokens that may not be sampled are -inf."""

    def target_head(self, hidden: Tensor) -> Tensor:
        """Logits for the tokens of `targets`, like `head`'s; a text may have tokens that are never sampled."""
        return self.head(hidden)

    def may_sample(self, tokens: Tensor) -> Tensor:
        """Bool like ``tokens``: which of them `head` allows; a text of `targets` may have others, too."""
        return torch.ones_like(tokens, dtype=torch.bool)

    @abstractmethod
    def decode(self, rollout: Rollout, context: ContextT) -> Sequence[Sequence[str | Speech]]:
        """B lists of G texts, special tokens and padding removed; of a model that speaks, G samples of speech."""

    def prompt_texts(self, context: ContextT) -> list[str]:
        """B prompts as the model reads them, as text: a person shall see what hotwords became.

        Raises:
            ValueError: for a policy that puts no hotwords into its prompts; it is asked where a row has some.
        """
        raise ValueError(
            f"{type(self).__name__} puts no hotwords into its prompts, and a row has some; leave the rows' field "
            "`hotwords` and the data module's `hotwords` out"
        )

    @abstractmethod
    def targets(self, context: ContextT, texts: Sequence[str]) -> Rollout:
        """Reference texts as a rollout of G=1 (stop token appended, log-probs zero), for supervised training.

        A model that speaks takes the recordings that `encode` found in the batch.

        Raises:
            ValueError: for a text outside the tokenizer's vocabulary, naming the prompt's id.
        """

    def transcribe_long(self, batch: PromptBatch) -> list[tuple[str, int]]:
        """Greedy transcripts of clips of any length by the family's own way, and how many tokens each has.

        Raises:
            NotImplementedError: for a family that has none.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no clips beyond its window")

    def check_export(self, folder: str | Path) -> None:
        """See that an export into ``folder`` replaces no model that is needed.

        Raises:
            ValueError: where the policy was loaded from that folder, which checkpoints of its runs begin from.
        """
        source = self.start.record()["source"]
        if not isinstance(source, str):
            return
        start = Path(source).expanduser()
        if start.is_dir() and start.resolve() == Path(folder).expanduser().resolve():
            raise ValueError(
                f"export: {folder} is the folder that the policy was loaded from, and checkpoints of its runs begin "
                "from it; give another folder"
            )

    @abstractmethod
    def export(self, folder: str) -> None:
        """Write a folder that the transformers class loads with ``from_pretrained``; adapters are merged."""

    def export_adapter(self, folder: str) -> None:
        """`export` with the adapters of ``finetune.lm: lora`` beside their base, in the files of peft.

        Raises:
            ValueError: where there are none.
            NotImplementedError: for a family that only merges them.
        """
        raise NotImplementedError(f"{type(self).__name__} exports its adapters merged alone")

    def check_adapter(self) -> None:
        """See that there are adapters to be exported.

        Raises:
            ValueError: where the finetuning mode has none.
        """
        if self.finetune.lm != "lora":
            raise ValueError(
                f"export: an adapter is asked for, and finetune.lm of {type(self).__name__} is "
                f"{self.finetune.lm!r}, which has none; set finetune.lm: lora, or leave the adapter out"
            )

    @property
    def usage(self) -> str:
        """Python lines that load an exported folder in transformers; empty for a policy that does not say."""
        return ""

    @property
    def clip_span_s(self) -> tuple[float, float] | None:
        """Shortest and longest clip that `encode` takes, in seconds; None for a model that takes any, or none.

        A data module leaves out, or refuses, what lies outside before the run begins.
        """
        return None

    def padded_s(self, duration_s: float) -> float:
        """Seconds that a clip of ``duration_s`` is computed as; more where a model pads every clip to one length.

        Batches within a budget of seconds count it.
        """
        return duration_s

    def vocabulary_hash(self) -> str | None:
        """Hash of which text each token stands for; None for a policy without a tokenizer."""
        return None

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> ContextT:
        """What `encode` makes of clips of one length, whatever they say: ``audiorl plan`` traces a step on it.

        Args:
            num_prompts: B.
            seconds: of each clip, or of the speech to be made.
            text_tokens: tokens of a prompt beside its audio frames; by default a usual number.

        Raises:
            NotImplementedError: for a family that does not say.
            ValueError: for a length that the model does not take.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no example_context, which a plan of its memory needs"
        )

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules by role, "encoder", "projector", "lm" and "codec": together they hold every parameter.

        Each is entered in its own phases only; a strategy parks it in the others.
        """
        return {"lm": [self]}

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name, in a fixed order."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def train(self, mode: bool = True) -> Self:
        """Train mode but for modules of which nothing trains: no dropout in a frozen encoder."""
        super().train(mode)
        for module in self.modules() if mode else ():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                nn.Module.train(module, False)
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode inside, the former mode of every module after."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


class SpeechPolicy(Policy[ContextT]):
    """A policy that speaks in the codes of a codec, and can read points between its tokens.

    Attributes:
        codec: that the codes belong to, frozen.
        code_to_token: [N] int64 buffer, the token of each code.
        token_to_code: [V] int64 buffer, the code of each token, -1 where it is none.
        stop_ids: tokens that end speech; the first one ends training targets.
    """

    speaks = True
    codec: Codec
    code_to_token: Tensor
    token_to_code: Tensor
    stop_ids: list[int]

    @property
    @abstractmethod
    def output(self) -> nn.Module:
        """Linear layer from hidden states to logits."""

    @abstractmethod
    def embedded(self, tokens: Tensor) -> Tensor:
        """Token ids [...] -> [..., D], as the language model reads them."""

    @abstractmethod
    def hidden_of(self, context: ContextT, embedded: Tensor) -> Tensor:
        """Hidden states of completions that are given as the language model reads them.

        Args:
            context: B prompts.
            embedded: [B, G, T, D] of `embedded`, or means of its rows; with a graph gradients reach it.

        Returns:
            [B*G, T + 1, D]; the state at t has read the prompt and ``embedded[:, :, :t]``.
        """


def require_speech_policy(policy: Policy[Any], who: str) -> SpeechPolicy[Any]:
    """The same policy, seen to speak in the codes of a codec.

    Args:
        policy: any policy.
        who: wants it, for the error.

    Raises:
        ValueError: for a policy that is no `SpeechPolicy`.
    """
    if isinstance(policy, SpeechPolicy):
        return policy
    raise ValueError(
        f"{who} wants a policy that speaks in the codes of a codec, such as SpeechLMPolicy; "
        f"{type(policy).__name__} is no SpeechPolicy{_why_none(policy)}"
    )


def _why_none(policy: Policy[Any]) -> str:
    if policy.num_codebooks == 1:
        return ""
    return f": it speaks {policy.num_codebooks} codes at once, and a point between tokens would be of the first alone"

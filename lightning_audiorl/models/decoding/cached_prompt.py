"""What every family with a tokenizer and a key-value cache shares: the prompt is computed once per group.

In the rollout the prompt is prefilled into a cache, whose keys and values the samples of its group share
(`shared_prompt`, an encoder-decoder's by `shared_clip`). The update and the reference put the prompt and its
completions into one row (`shared_prefix`).
"""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl.fields import PerPrompt
from lightning_audiorl.models.decoding import sampling
from lightning_audiorl.models.decoding.clips import clips_of
from lightning_audiorl.models.decoding.shared_prefix import Layout, packed_arguments, share_prefix
from lightning_audiorl.models.decoding.thin_head import thin_product
from lightning_audiorl.models.decoding.tokens import allowed_tokens, decode_groups, target_rollout
from lightning_audiorl.models.encoder_cache import EncoderCache, encoder_hash
from lightning_audiorl.models.export import Adapter, write_model
from lightning_audiorl.models.finetune import (
    USUAL_LORA_TARGETS,
    Finetune,
    Parts,
    apply_finetune,
)
from lightning_audiorl.models.loading import Family, Start, build, read_start, stop_token_ids
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.models.tiny_base import TinySpec
from lightning_audiorl.types import Decoding, PromptBatch, Rollout
from lightning_audiorl.weights.adapters import find_adapter


@dataclass(frozen=True)
class PrefixContext(Context):
    """A context of prompts with ids.

    Args:
        ids: of the prompts; they key the draws.
        durations_s: of each clip, or of the speech to be made, in seconds; the length cap goes by it.
    """

    ids: PerPrompt[list[str]]
    durations_s: PerPrompt[list[float]]

    def __len__(self) -> int:
        return len(self.ids)


PrefixT = TypeVar("PrefixT", bound=PrefixContext)


class PromptState(sampling.DecodeState, Protocol):
    """A decoder that stands after the prompts, one row each."""

    def expand(self, repeats: int) -> None:
        """Each prompt's row becomes ``repeats`` neighbouring rows."""

    def lengthen(self, num: int) -> None:
        """Take up the room of ``num`` tokens more, without their values: for plans of memory alone."""


class CachedPromptPolicy(Policy[PrefixT]):
    """Loading, sampling and scoring over a shared prompt; what all families with a tokenizer have in common.

    A family says which classes it is loaded with (`family`), where its modules are (`roles`, `output`) and
    how it reads a prompt (`encode`, `prefill`, `packed`, or what a more special base asks for). Its constructor calls
    `_load`, does what only this family needs, and ends with `_make_ready`.

    Attributes:
        family: classes of model and processor.
        load_arguments: that ``from_pretrained`` wants for an export to decode as the policy does.
        default_lora_targets: layers that adapters go to where a `Finetune` names none.
        model: of transformers.
        processor: of audio and text; without audio, the tokenizer.
        tokenizer: of the text (and special) tokens.
        stop_ids: tokens that end a completion; the first one ends training targets.
        allowed: [V] bool buffer, the tokens that may be sampled.
        usual_tokens_per_second: of the length cap, where a `Decoding` gives none.
        fused_attention: see `Layout.fused`.
    """

    family: ClassVar[Family]
    load_arguments: ClassVar[Mapping[str, str]] = {}
    default_lora_targets: ClassVar[tuple[str, ...]] = USUAL_LORA_TARGETS
    start: Start
    model: Any
    processor: Any
    tokenizer: PreTrainedTokenizerBase
    stop_ids: list[int]
    allowed: Tensor
    usual_tokens_per_second: float = 15.0
    fused_attention: bool | None = None
    _hashed: tuple[Any, str] | None = None

    # --- loading

    def _load(self, init_from: str | TinySpec, dtype: str, revision: str | None) -> None:
        """The first half of a family's constructor: start, model, processor and tokenizer."""
        # A wrong path or a foreign checkpoint fails here, before minutes of loading.
        self.start = read_start(init_from)
        who = type(self).__name__
        self.model, self.processor = build(self.start, self.family, dtype, revision, who)
        self.tokenizer = self.processor
        if isinstance(self.processor, ProcessorMixin):
            self.tokenizer = self.processor.tokenizer

    def _make_ready(
        self, finetune: Finetune | None, encoder_cache: EncoderCache | None = None
    ) -> None:
        """The last call in a family's constructor: what may be sampled, the start's checkpoints, what trains."""
        # On the plain model: it may be refused here, and adapters then wrap layers that attend as they will.
        share_prefix(self.backbone)

        self.stop_ids, allowed = self._vocabulary()
        self.register_buffer("allowed", allowed, persistent=False)

        # The start's checkpoints go onto its weights, their adapters put in, filled and merged. They are compared by a
        # hash of the whole policy: all that is part of it, such as a codec, stands in its place by now.
        roles = self.roles
        self.start.load_into(self, roles.backbone, self.vocabulary_hash)

        # Last, since it freezes all that it does not name, and puts fresh adapters onto weights that are final.
        # What is left to the family is settled here: a checkpoint says which layers have adapters.
        self.finetune = (finetune or Finetune()).with_lora_targets(self.default_lora_targets)
        apply_finetune(self.model, roles, self.finetune)
        if encoder_cache is not None:
            encoder_cache.check_frozen(self.finetune.encoder)
        self.encoder_cache = encoder_cache

    def _vocabulary(self) -> tuple[list[int], Tensor]:
        """`stop_ids` and `allowed`."""
        stop_ids = stop_token_ids(self.model, self.tokenizer)
        vocab_size = self.model.config.get_text_config().vocab_size
        return stop_ids, allowed_tokens(self.tokenizer, vocab_size, stop_ids)

    def vocabulary_hash(self) -> str:
        entries = sorted(self.tokenizer.get_vocab().items())
        return hashlib.blake2b(repr(entries).encode(), digest_size=16).hexdigest()

    def export(self, folder: str) -> None:
        self._write(folder)

    def export_adapter(self, folder: str) -> None:
        self.check_adapter()
        source = self.start.source
        # The weights of a start that was put together, or whose projector trained, are in this folder alone.
        is_source = isinstance(source, str) and not self.start.checkpoints
        is_whole = is_source and not self.finetune.projector and find_adapter(str(source)) is None
        self._write(folder, Adapter(self.finetune, str(source) if is_whole else None))

    def _write(self, folder: str, adapter: Adapter | None = None) -> None:
        """All files of an export, adapters merged or beside their base."""
        write_model(folder, self.model, self.processor, self.generation_config(), adapter)

    @property
    def _loaded_with(self) -> str:
        """The class of transformers that loads an export."""
        return str(self.family.model.__name__)

    @property
    def usage(self) -> str:
        model = self._loaded_with
        reader = "AutoTokenizer"
        if issubclass(self.family.processor, ProcessorMixin):
            reader = "AutoProcessor"
        folder = '"path/to/this/folder"'
        given = [folder, *(f'{name}="{value}"' for name, value in self.load_arguments.items())]
        return (
            f"from transformers import {', '.join(sorted([model, reader]))}\n\n"
            f"model = {model}.from_pretrained({', '.join(given)})\n"
            f"{reader.removeprefix('Auto').lower()} = {reader}.from_pretrained({folder})"
        )

    def generation_config(self) -> GenerationConfig:
        """What an exported folder generates by: it draws from the same tokens as training did."""
        config = copy.deepcopy(self.model.generation_config)
        config.suppress_tokens = (~self.allowed).nonzero().squeeze(-1).tolist()
        return config

    # --- its modules

    @property
    @abstractmethod
    def roles(self) -> Parts:
        """The model's modules by role."""

    def parts(self) -> dict[str, list[nn.Module]]:
        roles = self.roles
        by_role = {
            "encoder": list(roles.encoder),
            "projector": list(roles.projector),
            "lm": [roles.backbone, self.output],
        }
        return {role: modules for role, modules in by_role.items() if modules}

    @property
    def backbone(self) -> PreTrainedModel:
        """The language model or decoder without its head; it went through `share_prefix`."""
        return self.roles.backbone

    @property
    @abstractmethod
    def output(self) -> nn.Module:
        """Linear layer from hidden states to logits."""

    # --- encoder outputs that are kept

    def _kept_outputs(
        self, batch: PromptBatch, encode: Callable[[list[Tensor]], Sequence[Tensor]]
    ) -> list[Tensor]:
        """B encoder outputs [F, E] on the batch's device, from the cache where they are in it.

        Args:
            batch: of clips.
            encode: the outputs of some clips, computed together.
        """
        assert self.encoder_cache is not None
        clips = clips_of(batch)
        device = batch.waveform.device
        outputs = self.encoder_cache.outputs(
            clips,
            self._encoder_hash(device),
            lambda numbers: encode([clips[number] for number in numbers]),
            once=batch.once,
        )
        return [output.to(device) for output in outputs]

    def _encoder_hash(self, device: torch.device) -> str:
        """Of the encoder as it now runs; computed again where its values were written to since."""
        state = self._encoder_state(device)
        if self._hashed is None or self._hashed[0] != state:
            [encoder] = self.roles.encoder
            self._hashed = (state, encoder_hash(encoder, self.encoder_settings(), device))
        return self._hashed[1]

    def _encoder_state(self, device: torch.device) -> tuple[Any, ...]:
        """How the encoder runs, and how often its values were written to; placing a part counts as no writing."""
        [encoder] = self.roles.encoder
        autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
        written = [
            (id(tensor), 0 if tensor.is_inference() else tensor._version)
            for tensor in encoder.parameters()
        ]
        return device.type, autocast, written

    def needs_encoder(self, batch: PromptBatch) -> bool:
        if self.encoder_cache is None or self._hashed is None or batch.once:
            return True
        state, encoder = self._hashed
        # Another hash wants the encoder's values.
        if state != self._encoder_state(batch.waveform.device):
            return True
        return not self.encoder_cache.holds(clips_of(batch), encoder)

    def encoder_settings(self) -> dict[str, Any]:
        """All but the weights that the encoder's output of a clip depends on, in plain data; a cache wants it."""
        raise NotImplementedError(f"{type(self).__name__} has no encoder_settings")

    # --- rollout and update

    @abstractmethod
    def prefill(self, context: PrefixT) -> PromptState:
        """Compute the prompts once each, without gradients."""

    @abstractmethod
    def packed(self, context: PrefixT, completions: Tensor) -> tuple[Layout, dict[str, Tensor]]:
        """Rows of a prompt and its ``completions`` [B, G, T]; trainable parts of the prompt run here.

        Returns:
            The layout, and what the backbone takes beside `packed_arguments`.
        """

    def caps(self, context: PrefixT, decoding: Decoding) -> list[int]:
        """Most tokens that each prompt's completions may have."""
        usual = self.usual_tokens_per_second
        return [decoding.cap(seconds, usual) for seconds in context.durations_s]

    @torch.no_grad()
    def sample(
        self, context: PrefixT, group_size: int, decoding: Decoding, key: SampleKey
    ) -> Rollout:
        with self.evaluating():
            state = self.prefill(context)
            state.expand(group_size)
            caps = self.caps(context, decoding)
            return sampling.sample(
                state, self.head, self.stop_ids, context.ids, group_size, caps, decoding, key
            )

    def hidden(self, context: PrefixT, rollout: Rollout) -> Tensor:
        # The last token predicts nothing.
        layout, inputs = self.packed(context, rollout.tokens[:, :, :-1])
        return self._predicting(layout, inputs)

    def _predicting(self, layout: Layout, inputs: dict[str, Tensor]) -> Tensor:
        """[B*G, T + 1, D] states of packed rows."""
        flex = self.finetune.flex_attention
        layout = replace(layout, fused=self.fused_attention, flex=flex)
        out = self.backbone(**inputs, **packed_arguments(layout))
        return layout.predicting(out.last_hidden_state)

    def head(self, hidden: Tensor) -> Tensor:
        return self._logits(hidden, self.allowed)

    def target_head(self, hidden: Tensor) -> Tensor:
        return self._logits(hidden, self.writable)

    def may_sample(self, tokens: Tensor) -> Tensor:
        return self.allowed[tokens]

    def _logits(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        logits = thin_product(self.output, hidden)
        forbidden = torch.zeros_like(allowed, dtype=logits.dtype)
        forbidden.masked_fill_(~allowed, -torch.inf)
        # Added rather than filled in: nothing is copied, and the gradient passes (where -inf stands it is 0 anyway).
        return logits.add_(forbidden)

    @property
    def writable(self) -> Tensor:
        """[V] bool, the tokens that a text to learn from may have; those that may be sampled, or more."""
        return self.allowed

    def decode(self, rollout: Rollout, context: PrefixT) -> list[list[str]]:
        return decode_groups(self.tokenizer, rollout)

    def targets(self, context: PrefixT, texts: Sequence[str]) -> Rollout:
        return target_rollout(self.tokenizer, self.writable, context.ids, texts, self.stop_ids[0])

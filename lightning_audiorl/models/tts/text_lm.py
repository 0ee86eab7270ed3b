"""A causal language model with text prompts: what a text-to-speech language model is before it speaks in codes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_audiorl.fields import PerPrompt
from lightning_audiorl.models.decoding.cached_prompt import PrefixContext
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy, Side
from lightning_audiorl.models.decoding.shared_prefix import share_prefix
from lightning_audiorl.models.decoding.tokens import allowed_tokens, padded
from lightning_audiorl.models.finetune import Finetune, Parts, apply_finetune, merged_state_dict
from lightning_audiorl.models.loading import build, read_start, stop_token_ids
from lightning_audiorl.models.tiny import TinyCausalLM, build_causal_lm
from lightning_audiorl.types import PromptBatch, Utterance

# What some families do to the logits behind the head, where `head` would not see it.
_RESCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")

# A text to be spoken, and a speaker prompt of three seconds in tokens.
_USUAL_TEXT_TOKENS = 200


@dataclass(frozen=True)
class TextContext(PrefixContext):
    """B prompts as token ids."""

    tokens: PerPrompt[list[list[int]]]

    @property
    def prompt_lengths(self) -> list[int]:
        return [len(row) for row in self.tokens]


class TextLMPolicy(DecoderOnlyPolicy[TextContext]):
    """Any Llama-like causal language model behind the policy interface; the audio of a row is not read.

    The prompt is ``row.extra["prompt"]`` where the row has one, else ``row.text``, behind the tokenizer's start token.
    The length cap goes by ``row.duration_s``.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; encoder and projector there are none.
        dtype: of the weights ("float32", "bfloat16"); trained weights want float32.
        revision: hub revision.
    """

    def __init__(
        self,
        init_from: str | TinyCausalLM,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.start = read_start(init_from)
        self.model, self.tokenizer = build(
            self.start,
            (TinyCausalLM, build_causal_lm),
            (AutoModelForCausalLM, AutoTokenizer),
            dtype,
            revision,
        )
        config = self.model.config
        rescaled = [
            name for name in _RESCALED_LOGITS if getattr(config, name, None) not in (None, 1)
        ]
        if rescaled:
            raise ValueError(
                f"{type(self.model).__name__} rescales its logits ({rescaled}), which is not supported"
            )
        share_prefix(self.model)
        self.stop_ids = stop_token_ids(self.model, self.tokenizer)
        allowed = allowed_tokens(self.tokenizer, config.vocab_size, self.stop_ids)
        self.register_buffer("allowed", allowed, persistent=False)
        self.finetune = finetune or Finetune()
        layers = getattr(self.backbone, "layers", nn.ModuleList())
        norm = getattr(self.backbone, "norm", None)
        final = [self.output] if norm is None else [norm, self.output]
        self.start.load_into(self, self.backbone)
        apply_finetune(self.model, Parts([], [], self.backbone, layers, final), self.finetune)

    @property
    def backbone(self) -> nn.Module:
        return self.model.base_model

    @property
    def embed(self) -> nn.Module:
        return self.model.get_input_embeddings()

    @property
    def output(self) -> nn.Module:
        return self.model.get_output_embeddings()

    def encode(self, batch: PromptBatch) -> TextContext:
        tokens = [self._prompt(row) for row in batch.rows]
        self.num_encoded += len(batch)
        return TextContext(batch.ids, [row.duration_s for row in batch.rows], tokens)

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> TextContext:
        tokens = [self.stop_ids[0]] * (_USUAL_TEXT_TOKENS if text_tokens is None else text_tokens)
        ids = [str(number) for number in range(num_prompts)]
        return TextContext(ids, [seconds] * num_prompts, [tokens] * num_prompts)

    def _prompt(self, row: Utterance) -> list[int]:
        text = row.extra.get("prompt", row.text)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"row {row.id!r}: the prompt is {text!r}; expected text in 'prompt' or 'text'"
            )
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in tokens:
            raise ValueError(
                f"row {row.id!r}: prompt {text!r} is outside the tokenizer's vocabulary"
            )
        if not tokens:
            raise ValueError(
                f"row {row.id!r}: prompt {text!r} has no token in the tokenizer's vocabulary"
            )
        start = self.tokenizer.bos_token_id
        return tokens if start is None else [start, *tokens]

    def prompt(self, context: TextContext, side: Side) -> tuple[Tensor, Tensor]:
        ids, mask = padded(context.tokens, self.stop_ids[0], self.allowed.device, side)
        return self.embed(ids), mask

    def export(self, folder: str) -> None:
        self.model.generation_config.suppress_tokens = (
            (~self.allowed).nonzero().squeeze(-1).tolist()
        )
        self.model.save_pretrained(
            folder, state_dict=merged_state_dict(self.model), safe_serialization=True
        )
        self.tokenizer.save_pretrained(folder)

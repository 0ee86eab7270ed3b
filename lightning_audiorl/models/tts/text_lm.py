"""A causal language model with text prompts: what a text-to-speech language model is before it speaks in codes."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family
from lightning_audiorl.models.tiny_base import DIGIT_WORDS, TinySpec, keyed_weights, word_tokenizer
from lightning_audiorl.models.tts.causal_lm import CausalLMPolicy
from lightning_audiorl.models.tts.context import TextContext
from lightning_audiorl.types import PromptBatch, Utterance

# A text to be spoken, and a speaker prompt of three seconds in tokens.
_USUAL_TEXT_TOKENS = 200


@dataclass(frozen=True)
class TinyCausalLM(TinySpec):
    """Sizes of a tiny `LlamaForCausalLM`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size.
        layers: number of layers.
        max_positions: most tokens, prompt included.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    layers: int = 2
    heads: int = 4
    max_positions: int = 512
    seed: int = 0

    def build(self) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
        tokenizer = word_tokenizer(self.words)
        return self._llama(tokenizer, "tiny"), tokenizer

    def _llama(self, tokenizer: PreTrainedTokenizerFast, kind: str) -> LlamaForCausalLM:
        """A random model over the tokens of ``tokenizer``; ``kind`` is one of the keys of its weights."""
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.max_positions,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with keyed_weights(self, kind):
            return LlamaForCausalLM(config)


class TextLMPolicy(CausalLMPolicy[TextContext]):
    """Any Llama-like causal language model behind the policy interface; the audio of a row is not read.

    The prompt is ``row.extra["prompt"]`` where the row has one, else ``row.text``, behind the tokenizer's start token.
    The length cap goes by ``row.duration_s``.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; encoder and projector there are none.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
    """

    family = Family(TinyCausalLM, AutoModelForCausalLM, AutoTokenizer)

    def __init__(
        self,
        init_from: str | TinyCausalLM,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self._load(init_from, dtype, revision)
        self._make_ready(finetune)

    def encode(self, batch: PromptBatch) -> TextContext:
        tokens = [self._prompt(row) for row in batch.rows]
        self.num_encoded += len(batch)
        return TextContext(batch.ids, [row.duration_s for row in batch.rows], tokens)

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> TextContext:
        if text_tokens is None:
            text_tokens = _USUAL_TEXT_TOKENS
        tokens = [self.stop_ids[0]] * text_tokens
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

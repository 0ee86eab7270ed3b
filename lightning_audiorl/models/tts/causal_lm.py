"""What causal language models share whose prompts are token ids alone, be they to write text or to speak in codes."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from transformers import PreTrainedConfig

from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy, Side
from lightning_audiorl.models.decoding.tokens import padded
from lightning_audiorl.models.finetune import Parts
from lightning_audiorl.models.tiny_base import TinySpec
from lightning_audiorl.models.tts.context import TextContext

# What some families do to the logits behind the head, where `head` would not see it.
_RESCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")

TextT = TypeVar("TextT", bound=TextContext)


def rescaled_logits(config: PreTrainedConfig) -> list[str]:
    """The settings by which a causal language model rescales its logits behind the head."""
    return [name for name in _RESCALED_LOGITS if getattr(config, name, None) not in (None, 1)]


class CausalLMPolicy(DecoderOnlyPolicy[TextT]):
    """Any Llama-like causal language model; a family adds `encode`."""

    def _load(self, init_from: str | TinySpec, dtype: str, revision: str | None) -> None:
        super()._load(init_from, dtype, revision)
        rescaled = rescaled_logits(self.model.config)
        if rescaled:
            raise ValueError(
                f"{type(self.model).__name__} rescales its logits ({rescaled}), which is not supported"
            )

    @property
    def _loaded_with(self) -> str:
        return "AutoModelForCausalLM"

    @property
    def usage(self) -> str:
        if getattr(self.output, "bias", None) is None:
            return super().usage
        return (
            "from lightning_audiorl.models.tts.biased_head import AnyCausalLM\n\n"
            "# Its head has a bias, which transformers' own classes would drop.\n"
            'model = AnyCausalLM.from_pretrained("path/to/this/folder")'
        )

    @property
    def roles(self) -> Parts:
        # Most models call them so; where not, the last layers alone cannot train, nor be checkpointed.
        backbone = self.model.base_model
        layers = getattr(backbone, "layers", nn.ModuleList())
        norm = getattr(backbone, "norm", None)
        final = [self.output] if norm is None else [norm, self.output]
        return Parts(encoder=[], projector=[], backbone=backbone, layers=layers, final=final)

    @property
    def embed(self) -> nn.Module:
        return self.model.get_input_embeddings()

    @property
    def output(self) -> nn.Module:
        return self.model.get_output_embeddings()

    def prompt(self, context: TextT, side: Side) -> tuple[Tensor, Tensor]:
        ids, mask = padded(context.tokens, self.stop_ids[0], self.allowed.device, side)
        return self.embed(ids), mask

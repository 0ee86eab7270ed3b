"""Causal language models whose head has a bias, which transformers' own classes would drop without an error."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)


class Qwen2WithHeadBias(Qwen2ForCausalLM):
    """Qwen2 with a bias in its head, as the language model of CosyVoice 2 has it in Hugging Face layout."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=True)
        self.post_init()


class AnyCausalLM:
    """Loads any causal language model; a Qwen2 folder whose config has ``use_bias`` keeps the bias of its head."""

    #: By configuration, as an Auto class of transformers has it.
    _model_mapping = AutoModelForCausalLM._model_mapping

    @staticmethod
    def from_pretrained(source: str, revision: str | None = None, **how: Any) -> Any:
        """The model of a folder or hub id."""
        config = AutoConfig.from_pretrained(source, revision=revision)
        kind: Any = Qwen2WithHeadBias if _has_head_bias(config) else AutoModelForCausalLM
        return kind.from_pretrained(source, revision=revision, **how)

    @staticmethod
    def from_config(config: PreTrainedConfig, **how: Any) -> Any:
        """The model of a configuration, with random weights."""
        if _has_head_bias(config):
            return Qwen2WithHeadBias._from_config(config, **how)
        return AutoModelForCausalLM.from_config(config, **how)


def _has_head_bias(config: PreTrainedConfig) -> bool:
    return config.model_type == "qwen2" and getattr(config, "use_bias", False)

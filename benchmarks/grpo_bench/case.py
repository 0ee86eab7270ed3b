"""What is measured: the sizes of a step, the model and the prompts behind it, and its floating-point operations."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_audiorl.models.tiny import word_tokenizer

#: Tokens of `word_tokenizer` that are no words.
_NUM_SPECIAL = 5


@dataclass(frozen=True)
class Case:
    """Sizes of one GRPO step; the defaults are the benchmark's case.

    Args:
        num_prompts: B.
        prompt_tokens: P, of every prompt.
        group_size: G.
        new_tokens: T, of every completion: stop tokens are never sampled.
        width, layers, intermediate, heads, vocab_size: of the language model; embeddings are tied.
        beta: weight of the KL penalty.
        accumulate: forward and backward passes that one update is split into; divides B*G, and B for ours.
        audio_s: seconds of audio per prompt of a Fun-ASR-Nano in place of text; 0 is text.
        encoder_layers: of that Fun-ASR-Nano.
        seed: keys weights and prompts.
    """

    num_prompts: int = 4
    prompt_tokens: int = 384
    group_size: int = 8
    new_tokens: int = 64
    width: int = 512
    layers: int = 8
    intermediate: int = 1408
    heads: int = 8
    vocab_size: int = 32000
    beta: float = 0.04
    accumulate: int = 1
    audio_s: float = 0.0
    encoder_layers: int = 4
    seed: int = 0

    @property
    def num_rows(self) -> int:
        """B * G."""
        return self.num_prompts * self.group_size

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def build_model(case: Case, folder: Path) -> Path:
    """Write random weights and a word-level tokenizer as a Hugging Face folder; every system loads it from there.

    Qwen2's shape in the Llama class, which lacks Qwen2's three bias vectors per layer: to a folder of a Qwen2 model
    `AutoTokenizer` gives Qwen2's own byte-level tokenizer, whatever is saved there.
    """
    name = (
        f"{case.width}x{case.layers}x{case.intermediate}x{case.heads}x{case.vocab_size}s{case.seed}"
    )
    path = folder / f"llama-{name}"
    if (path / "config.json").is_file():
        return path

    tokenizer = word_tokenizer(words_of(case))
    config = LlamaConfig(
        vocab_size=case.vocab_size,
        hidden_size=case.width,
        intermediate_size=case.intermediate,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )

    torch.manual_seed(case.seed)
    model = LlamaForCausalLM(config)

    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(path)
    model.save_pretrained(path, safe_serialization=True)
    return path


def words_of(case: Case) -> list[str]:
    """The words of the tokenizer: what the special tokens leave of the vocabulary."""
    return [f"w{i}" for i in range(case.vocab_size - _NUM_SPECIAL)]


def prompt_texts(case: Case, step: int) -> list[str]:
    """B prompts of P - 1 words; with the start token in front they have P tokens."""
    words = words_of(case)
    draw = random.Random(f"{case.seed}/{step}")
    return [
        " ".join(draw.choices(words, k=case.prompt_tokens - 1)) for _ in range(case.num_prompts)
    ]


def reward_of(text: str) -> float:
    """Cheap, and different for most texts: what the rewards are does not matter to the time of a step."""
    return (sum(map(ord, text)) % 997) / 997


def layer_weights(case: Case) -> int:
    """Weights of the matrices of all layers: four of attention, three of the feed-forward part."""
    return case.layers * (4 * case.width**2 + 3 * case.width * case.intermediate)


def step_flops(case: Case) -> dict[str, float]:
    """Model FLOPs of one step by phase, every prompt token counted once.

    2 per weight and token forward and 4 backward; attention over kept positions only (4 per pair of positions and unit
    of width forward, twice that backward); the head on completion tokens only; nothing for recomputation.
    """
    prompts, rows = case.num_prompts, case.num_rows
    prompt, new = case.prompt_tokens, case.new_tokens
    tokens = prompts * prompt + rows * (new - 1)  # the last token of a completion predicts nothing
    pairs = prompts * prompt * (prompt + 1) / 2 + rows * sum(prompt + i for i in range(1, new))
    forward = 2 * layer_weights(case) * tokens + 4 * case.width * case.layers * pairs
    forward += 2 * case.width * case.vocab_size * rows * new
    return {"rollout": forward, "reference": forward if case.beta else 0.0, "update": 3 * forward}

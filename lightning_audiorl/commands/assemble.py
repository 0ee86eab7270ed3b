"""``audiorl assemble``: a speech language model of a pretrained encoder, a fresh projector and a pretrained LM."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from lightning_audiorl import outline
from lightning_audiorl.models.asr.qwen2_audio import INSTRUCTION
from lightning_audiorl.models.decoding.shared_prefix import share_prefix
from lightning_audiorl.models.export import write_model
from lightning_audiorl.models.tts.causal_lm import rescaled_logits
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.weights.families import first_line
from lightning_audiorl.weights.pretrained import load_pretrained
from lightning_audiorl.weights.tensors import WeightsError, require_fit

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# As Qwen2-Audio's own processor calls them.
_AUDIO = "<|AUDIO|>"
_BEGIN = "<|audio_bos|>"
_END = "<|audio_eos|>"

# Stands for the message in the language model's own template.
_MESSAGE = "THE MESSAGE"

# For one message of the user; the names in braces are filled in, ASKED by the instruction.
_TEMPLATE = (
    "{% if messages | length != 1 or messages[0]['role'] != 'user' %}"
    "{{ raise_exception('this template takes one message of the user') }}{% endif %}"
    "{% set asked = namespace(text={ASKED}) %}{{ {BEFORE} }}"
    "{% for part in messages[0]['content'] %}"
    "{% if part['type'] == 'audio' %}{{ {AUDIO} }}{% else %}{% set asked.text = part['text'] %}{% endif %}"
    "{% endfor %}{{ asked.text }}{{ {AFTER} }}"
)

# What the two encoders call alike.
_ENCODER_SIZES = (
    "num_mel_bins",
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "max_source_positions",
    "activation_function",
    "dropout",
    "attention_dropout",
    "activation_dropout",
)


def assemble(
    out: str,
    encoder: str,
    lm: str,
    family: str = "qwen2_audio",
    instruction: str = INSTRUCTION,
    chat: bool = True,
    seed: int = 0,
    dtype: str = "float32",
) -> None:
    """Make one speech language model of a pretrained encoder, a fresh projector and a pretrained language model.

    The projector is random: train it first, by SFT on transcripts, as SLAM-ASR does (arXiv 2402.08846).

    Args:
        out: folder to write, new or empty; transformers and the family's policy load it.
        encoder: folder or hub id of a Whisper model, whose encoder is taken.
        lm: folder or hub id of a causal language model.
        family: class of transformers to be, "qwen2_audio".
        instruction: stands behind the audio in every prompt that has no text of its own.
        chat: ask in the language model's own chat template; false, or for a model without one, the prompt is audio,
            instruction and a line break.
        seed: keys the projector's weights.
        dtype: of the written weights, "float32" or "bfloat16".

    Raises:
        FileExistsError: for a folder that holds something.
        ValueError: for parts that are not of these kinds, or do not fit together.
    """
    if family not in _FAMILIES:
        raise ValueError(
            f"assemble: family={family!r}; expected one of {', '.join(sorted(_FAMILIES))}"
        )
    if dtype not in _DTYPES:
        raise ValueError(f"assemble: dtype={dtype!r}; expected one of {', '.join(_DTYPES)}")
    folder = Path(out).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(f"assemble: {out} is there already; give a new or empty folder")

    _FAMILIES[family](
        folder, encoder, lm, instruction=instruction, chat=chat, seed=seed, dtype=_DTYPES[dtype]
    )


def _qwen2_audio(
    folder: Path,
    encoder: str,
    lm: str,
    instruction: str,
    chat: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    whisper, extractor = load_pretrained(
        WhisperForConditionalGeneration,
        WhisperFeatureExtractor,
        encoder,
        "assemble: encoder",
        dtype=dtype,
    )
    language_model, tokenizer = load_pretrained(
        AutoModelForCausalLM, AutoTokenizer, lm, "assemble: lm", dtype=dtype
    )
    _check_language_model(language_model, lm)
    generation = _generation_config(language_model, tokenizer, lm)
    around = _around(tokenizer, chat, lm)

    # Special, so that they are never sampled, and never cut.
    tokens = [AddedToken(name, special=True, normalized=False) for name in (_AUDIO, _BEGIN, _END)]
    num_known = len(tokenizer)
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    generation.pad_token_id = tokenizer.pad_token_id

    config = _config(whisper.config, language_model.config, tokenizer)
    model = outline.from_config(Qwen2AudioForConditionalGeneration, config, dtype)
    _check_backbone(model.model.language_model, language_model, lm)

    weights = _weights(whisper, language_model, config, num_known, seed)
    require_fit(model, weights, f"{encoder} and {lm}")
    model.load_state_dict(weights, assign=True)

    # The processor's template is the one for audio.
    tokenizer.chat_template = None
    extractor.return_attention_mask = True
    template = _chat_template(*around, instruction)
    processor = Qwen2AudioProcessor(extractor, tokenizer, chat_template=template)

    write_model(folder, model, processor, generation)
    (folder / "README.md").write_text(_card(encoder, lm, instruction, seed), encoding="utf-8")
    _tell(folder, model, seed)


_FAMILIES: dict[str, Callable[..., None]] = {"qwen2_audio": _qwen2_audio}


def _check_language_model(model: Any, lm: str) -> None:
    """See that a language model can be a part: what stands around its backbone would not come along."""
    rescaled = rescaled_logits(model.config)
    if rescaled:
        raise WeightsError(
            f"assemble: {lm} rescales its logits ({', '.join(rescaled)}), which Qwen2-Audio does not"
        )
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise WeightsError(
            f"assemble: the head of {lm} has a bias, which that of Qwen2-Audio lacks"
        )

    missing = [name for name in ("layers", "norm") if not hasattr(model.base_model, name)]
    if missing:
        raise WeightsError(
            f"assemble: {lm} is a {type(model).__name__} without {' and '.join(missing)} where Llama-like models have "
            "them; give a Llama, Qwen2, Qwen3 or the like"
        )


def _check_backbone(built: Any, language_model: Any, lm: str) -> None:
    """See that the family builds the same class from the configuration, and that it can be trained here."""
    if type(built) is not type(language_model.base_model):
        raise WeightsError(
            f"assemble: {lm} is a {type(language_model.base_model).__name__}, and Qwen2-Audio would make a "
            f"{type(built).__name__} of its configuration; give another language model"
        )
    share_prefix(built)


def _generation_config(model: Any, tokenizer: Any, lm: str) -> GenerationConfig:
    """What ends a text, as the language model has it; how it draws is left open."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    if ends is None:
        raise WeightsError(
            f"assemble: neither the generation config nor the tokenizer of {lm} says which token ends a text"
        )
    return GenerationConfig(eos_token_id=ends, bos_token_id=tokenizer.bos_token_id)


def _config(whisper: Any, language_model: Any, tokenizer: Any) -> Qwen2AudioConfig:
    text = copy.deepcopy(language_model)
    # An embedding is often padded to more rows than there are tokens.
    text.vocab_size = max(text.vocab_size, len(tokenizer))
    # The head is a matrix of its own in this family.
    text.tie_word_embeddings = False
    # Where it was read is nobody's business.
    text._name_or_path = ""

    audio = {name: getattr(whisper, name) for name in _ENCODER_SIZES}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **audio},
        text_config=text,
        audio_token_index=tokenizer.convert_tokens_to_ids(_AUDIO),
    )
    config.tie_word_embeddings = False
    return config


# --- weights


def _weights(
    whisper: Any, language_model: Any, config: Any, num_known: int, seed: int
) -> dict[str, Tensor]:
    """The state dict of the whole.

    Args:
        whisper, language_model: the parts.
        config: of the whole.
        num_known: tokens of the tokenizer before audio tokens were added.
        seed: keys the projector.
    """
    weights: dict[str, Tensor] = {}
    for name, value in whisper.model.encoder.state_dict().items():
        weights[f"model.audio_tower.{name}"] = value
    for name, value in language_model.base_model.state_dict().items():
        weights[f"model.language_model.{name}"] = value

    names = {id(module): name for name, module in language_model.base_model.named_modules()}
    embedding = language_model.get_input_embeddings()
    head = language_model.get_output_embeddings()
    num_rows = config.text_config.vocab_size
    embedded = _grown(embedding.weight, num_known, num_rows)
    weights[f"model.language_model.{names[id(embedding)]}.weight"] = embedded
    weights["lm_head.weight"] = _grown(head.weight, num_known, num_rows)

    # The encoder ends with a norm: so the projector's output is about as large as an embedding.
    size = float(embedding.weight[:num_known].detach().float().pow(2).mean().sqrt())
    shape = (config.text_config.hidden_size, config.audio_config.d_model)
    drawn = torch.randn(shape, generator=keyed_generator("projector", seed))
    projector = "model.multi_modal_projector.linear"
    weights[f"{projector}.weight"] = (drawn * size / math.sqrt(shape[1])).to(embedded.dtype)
    weights[f"{projector}.bias"] = torch.zeros(shape[0], dtype=embedded.dtype)
    return weights


def _grown(matrix: Tensor, num_known: int, num_rows: int) -> Tensor:
    """A copy with ``num_rows`` rows; those of no known token are the mean of the others."""
    known = matrix.detach()[:num_known]
    grown = known.new_empty(num_rows, known.shape[1])
    grown[:] = known.float().mean(0).to(known.dtype)
    grown[: len(known)] = known
    return grown


# --- prompt


def _around(tokenizer: Any, chat: bool, lm: str) -> tuple[str, str]:
    """The text before and after a message of the user, in the language model's own way."""
    if not chat or not tokenizer.chat_template:
        starts = tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
        return (tokenizer.bos_token if starts else "", "\n")

    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MESSAGE}], add_generation_prompt=True, tokenize=False
        )
    except Exception as error:
        raise WeightsError(
            f"assemble: the chat template of {lm} fails ({first_line(error)}); give chat: false"
        ) from error
    before, found, after = str(text).partition(_MESSAGE)
    if not found or _MESSAGE in after:
        raise WeightsError(
            f"assemble: the chat template of {lm} does not show a message once; give chat: false"
        )
    return before, after


def _chat_template(before: str, after: str, instruction: str) -> str:
    """A template for one message of the user: audio, and a text where another instruction is asked."""
    texts = {
        "BEFORE": before,
        "AFTER": after,
        "ASKED": instruction,
        "AUDIO": f"{_BEGIN}{_AUDIO}{_END}",
    }
    # In one pass: an instruction may have braces of its own.
    return re.sub(
        r"\{([A-Z]+)\}",
        lambda found: json.dumps(texts[found[1]], ensure_ascii=False),
        _TEMPLATE,
    )


# --- what is said of it


def _card(encoder: str, lm: str, instruction: str, seed: int) -> str:
    """A model card: of which parts, and what is left to whoever publishes it."""
    bases = [source for source in (encoder, lm) if not Path(source).expanduser().is_dir()]
    listed = "".join(f"- {source}\n" for source in bases)
    base_model = f"base_model:\n{listed}" if bases else ""
    return (
        "---\nlibrary_name: transformers\npipeline_tag: automatic-speech-recognition\n"
        f"{base_model}---\n\n"
        "# A speech language model, assembled and not yet trained\n\n"
        "Made with `audiorl assemble` as a `Qwen2AudioForConditionalGeneration` of\n\n"
        f"- the encoder of `{_named(encoder)}`, pretrained,\n"
        f"- a linear projector, random (seed {seed}),\n"
        f"- `{_named(lm)}`, pretrained, with three further tokens for audio.\n\n"
        f"Prompt: its chat template, which asks {json.dumps(instruction, ensure_ascii=False)} where a message has no "
        "text.\n\n"
        "Licence: that of each part holds for it; look both up, and name them here before it is passed on.\n"
    )


def _named(source: str) -> str:
    """A hub id, or the name of a folder without where it lies."""
    path = Path(source).expanduser()
    return path.resolve().name if path.is_dir() else source


def _tell(folder: Path, model: Any, seed: int) -> None:
    inner = model.model
    sizes = {}
    for name in ("audio_tower", "multi_modal_projector", "language_model"):
        sizes[name] = sum(p.numel() for p in inner.get_submodule(name).parameters()) / 1e6
    print(
        f"assembled {folder}: encoder {sizes['audio_tower']:.1f} M, projector "
        f"{sizes['multi_modal_projector']:.2f} M (random, seed {seed}), language model "
        f"{sizes['language_model']:.1f} M and its head; train the projector first, by SFT"
    )

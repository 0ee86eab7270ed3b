"""The table of families that speak: a tiny checkpoint of each, its codec, and how its own class is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    CsmForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    NeuCodecConfig,
    NeuCodecFeatureExtractor,
    NeuCodecModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Xcodec2Config,
    Xcodec2FeatureExtractor,
    Xcodec2Model,
)

from lightning_audiorl.codecs import NeuCodecCodec, Xcodec2Codec
from lightning_audiorl.codecs.cosyvoice import CosyVoice2Codec
from lightning_audiorl.models import (
    CosyVoice2Template,
    CsmPolicy,
    Finetune,
    LlasaTemplate,
    NeuTTSTemplate,
    SpeechLMPolicy,
    TinyCsm,
)
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.models.tts.biased_head import AnyCausalLM, Qwen2WithHeadBias
from lightning_audiorl.models.tts.frames import whole_frames
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import PromptBatch, Rollout, Segment, Utterance
from tests.codecs.test_hf import SIZES
from tests.models.families import MODES, clip, duration_of
from tests.models.test_speech_templates import LLAMA_CHAT, LLAMA_CONTROL, byte_tokenizer

#: In place of the tens of thousands that the codecs have: as many as their quantisers of three levels make.
NUM_CODES = 27
_LEVELS = [3, 3, 3]
_LM = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
TEXTS = {"a": "one two", "b": "three", "c": "two two one zero"}


class ToneVoice(CosyVoice2Codec):
    """Stands for a user's codec over the package of CosyVoice 2: a code is a tone, whose pitch the prompt shifts."""

    def __init__(self, model_dir: str = "") -> None:
        super().__init__()
        self.cardinality = NUM_CODES
        self.gain = torch.nn.Parameter(torch.tensor([0.5]))
        self.freeze()

    def tokens(self, waveform: Tensor) -> Tensor:
        size = self.samples_per_code
        padded = torch.nn.functional.pad(waveform, (0, -len(waveform) % size))
        spectrum = torch.fft.rfft(padded.unflatten(0, (-1, size))).abs()
        return spectrum[:, 8 : 8 * NUM_CODES + 1 : 8].argmax(-1)

    def features(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        num = 2 * -(-len(waveform) // self.samples_per_code)
        return torch.zeros(num, 4), waveform.square().mean()[None]

    def speak(
        self, codes: Tensor, prompt_codes: Tensor, prompt_mel: Tensor, embedding: Tensor
    ) -> Tensor:
        time_s = torch.arange(self.output_samples_per_code) / self.output_sample_rate_hz
        hz = 200 * (codes[:, None] + 1) + 50 * embedding
        return (self.gain * torch.sin(2 * torch.pi * hz * time_s)).flatten()


def _keyed(make: Callable[[Any], PreTrainedModel], config: Any, name: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=keyed_generator(name))))
        return make(config)


def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _llasa_tokenizer() -> PreTrainedTokenizerFast:
    parts = ("TEXT_UNDERSTANDING", "SPEECH_GENERATION")
    control = [f"<|{part}_{end}|>" for part in parts for end in ("START", "END")]
    codes = [f"<|s_{code}|>" for code in range(NUM_CODES)]
    return byte_tokenizer([*LLAMA_CONTROL, *control, *codes], LLAMA_CHAT)


def _llasa(folder: Path) -> None:
    tokenizer = _llasa_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), **_LM)
    _save(folder, _keyed(LlamaForCausalLM, config, "llasa"), tokenizer)


def _neutts(folder: Path) -> None:
    names = ("TEXT_PROMPT_START", "TEXT_PROMPT_END", "SPEECH_GENERATION_START")
    control = [f"<|{name}|>" for name in (*names, "SPEECH_GENERATION_END")]
    codes = [f"<|speech_{code}|>" for code in range(NUM_CODES)]
    tokenizer = byte_tokenizer([*control, *codes])
    config = Qwen2Config(vocab_size=len(tokenizer), **_LM)
    _save(folder, _keyed(Qwen2ForCausalLM, config, "neutts"), tokenizer)


def _cosyvoice2(folder: Path) -> None:
    ends = ["<|eos1|>", "<|eos2|>", "<|eos3|>", "<|sos|>", "<|task_id|>"]
    codes = [f"<|s_{code}|>" for code in range(NUM_CODES)]
    tokenizer = byte_tokenizer([*codes, *ends])
    config = Qwen2Config(vocab_size=len(tokenizer), use_bias=True, **_LM)
    _save(folder, _keyed(Qwen2WithHeadBias, config, "cosyvoice2"), tokenizer)


def _csm(folder: Path) -> None:
    _save(folder, *TinyCsm().build())


def codec_folder(kind: str, folder: Path) -> str:
    """A tiny Xcodec2 or NeuCodec."""
    if kind == "xcodec2":
        model = _keyed(Xcodec2Model, Xcodec2Config(**SIZES, quantization_levels=_LEVELS), kind)
        _save(folder, model, Xcodec2FeatureExtractor())
    else:
        model = _keyed(NeuCodecModel, NeuCodecConfig(**SIZES, quantization_levels=_LEVELS), kind)
        _save(folder, model, NeuCodecFeatureExtractor())
    return str(folder)


@cache
def _codec_source(kind: str) -> str:
    return codec_folder(kind, Path(tempfile.mkdtemp(prefix=f"tiny_{kind}_")))


def _codec(kind: str) -> Any:
    """Each policy has its own: in a plan it is one without values."""
    if kind == "cosyvoice2":
        return ToneVoice()
    return {"xcodec2": Xcodec2Codec, "neucodec": NeuCodecCodec}[kind](_codec_source(kind))


def _speaks(kind: str, template: Any) -> Callable[..., SpeechLMPolicy]:
    """A maker of policies, as the classes of other families are."""

    def make(init_from: str, finetune: Finetune | None = None, **settings: Any) -> SpeechLMPolicy:
        return SpeechLMPolicy(init_from, _codec(kind), template(), finetune, **settings)

    return make


@dataclass(frozen=True)
class SpeechRecord:
    """A family of the matrix of those that speak.

    Args:
        write: a tiny checkpoint into a folder.
        policy: (init_from, finetune) -> policy.
        rate_hz: of speaker prompts.
        model: what loads an export: transformers' own class, but for a head with a bias.
        lively: how far from newborn.
    """

    write: Callable[[Path], None]
    policy: Callable[..., Any]
    rate_hz: int = 16000
    model: Any = AutoModelForCausalLM
    lively: float = 0.3


TTS_RECORDS = {
    "llasa": SpeechRecord(_llasa, _speaks("xcodec2", lambda: LlasaTemplate(" "))),
    "neutts": SpeechRecord(_neutts, _speaks("neucodec", NeuTTSTemplate)),
    "cosyvoice2": SpeechRecord(
        _cosyvoice2, _speaks("cosyvoice2", CosyVoice2Template), model=AnyCausalLM
    ),
    "csm": SpeechRecord(_csm, CsmPolicy, rate_hz=24000, model=CsmForConditionalGeneration),
}


@cache
def start_folder(family: str) -> Path:
    """The family's tiny checkpoint, written once."""
    folder = Path(tempfile.mkdtemp(prefix=f"tiny_{family}_"))
    TTS_RECORDS[family].write(folder)
    return folder


def make(
    family: str, mode: str = "all", lively: bool = True, checkpointing: bool = False
) -> CachedPromptPolicy:
    """A policy in eval mode; a lively one says different things for different prompts."""
    record = TTS_RECORDS[family]
    finetune = replace(MODES[mode], gradient_checkpointing=checkpointing)
    policy: CachedPromptPolicy = record.policy(str(start_folder(family)), finetune).eval()
    if lively:
        with torch.no_grad():
            for name, p in policy.model.named_parameters():
                if p.ndim > 1 and "lora_" not in name and "codec_model" not in name:
                    key = name.replace(".base_layer", "")
                    noise = torch.randn(p.shape, generator=keyed_generator("lively", key))
                    p.add_(record.lively * noise)
    return policy


def batch_of(family: str, names: list[str], durations_s: list[float] | None = None) -> PromptBatch:
    """One text and one speaker prompt per name, at the family's rate."""
    rate_hz = TTS_RECORDS[family].rate_hz
    durations_s = durations_s or [duration_of(name) for name in names]
    clips = [
        clip(name, seconds * rate_hz / 16000)
        for name, seconds in zip(names, durations_s, strict=True)
    ]
    rows = tuple(
        Utterance(
            name, (Segment("x.wav"),), TEXTS.get(name, "one"), 0.3, extra={"prompt_text": "two one"}
        )
        for name in names
    )
    num_samples = torch.tensor([len(wave) for wave in clips])
    return PromptBatch(pad_sequence(clips, batch_first=True), num_samples, rate_hz, rows)


def random_rollout(policy: Any, num_prompts: int, group_size: int) -> Rollout:
    """Codes at random, of random lengths."""
    generator = torch.Generator().manual_seed(1)
    shape = (num_prompts, group_size, 8)
    codes = policy.allowed.nonzero().squeeze(-1)
    tokens = codes[torch.randint(0, len(codes), shape, generator=generator)]
    keep = torch.arange(8) < torch.randint(2, 9, shape[:2], generator=generator)[..., None]
    following = None
    if policy.num_codebooks > 1:
        following = torch.randint(
            0, 16, (*shape, policy.num_codebooks - 1), generator=generator
        ).masked_fill_(~keep[..., None], 0)
    finished = torch.zeros(shape[:2], dtype=torch.bool)
    return Rollout(tokens, keep, torch.zeros(shape), finished, following=following)


# --- by the family's own class


def own_log_probs(family: str, policy: Any, batch: PromptBatch, rollout: Rollout) -> Tensor:
    """[B, G, T] of the class's own forward: every sample alone, prompt and completion at once, no cache."""
    forward = _csm_logits if family == "csm" else _lm_logits
    rows = []
    for b in range(len(batch)):
        for g in range(rollout.tokens.shape[1]):
            num = int(rollout.lengths[b, g])
            sample = rollout.select([b])
            logits = forward(policy, batch.select([b]), sample, g)[0, -num - 1 : -1]
            logits = logits.masked_fill(~policy.allowed, -torch.inf)
            tokens = rollout.tokens[b, g, :num, None]
            scored = torch.log_softmax(logits, -1).gather(-1, tokens).squeeze(-1)
            rows.append(torch.nn.functional.pad(scored, (0, rollout.tokens.shape[-1] - num)))
    return torch.stack(rows).view(rollout.tokens.shape)


def prompt_ids(policy: Any, one: PromptBatch) -> Tensor:
    """[1, P] of the published format, whose own tests are those of the templates."""
    codes, lengths = policy.codec.encode(one.waveform, one.num_samples)
    row = one.rows[0]
    said = codes[0, : int(lengths[0])].tolist()
    ids = policy.template.prompt_ids(policy.tokenizer, row.text, row.extra["prompt_text"], said)
    return torch.tensor([ids])


def _lm_logits(policy: Any, one: PromptBatch, sample: Rollout, g: int) -> Tensor:
    tokens = sample.tokens[0, g, sample.keep[0, g]]
    ids = torch.cat([prompt_ids(policy, one), tokens[None]], dim=1)
    logits: Tensor = policy.model(input_ids=ids, use_cache=False).logits
    return logits


def csm_inputs(processor: Any, one: PromptBatch) -> dict[str, Tensor]:
    """As on the model card: what has been said with its audio, then the text."""
    row = one.rows[0]
    wave = one.waveform[0, : int(one.num_samples[0])].numpy()
    said = [{"type": "text", "text": row.extra["prompt_text"]}, {"type": "audio", "path": wave}]
    turns = [
        {"role": "0", "content": said},
        {"role": "0", "content": [{"type": "text", "text": row.text}]},
    ]
    return dict(processor.apply_chat_template(turns, tokenize=True, return_dict=True))


def _csm_logits(policy: Any, one: PromptBatch, sample: Rollout, g: int) -> Tensor:
    inputs = csm_inputs(policy.processor, one)
    inputs.pop("attention_mask")
    prompt = policy.model._merge_input_ids_with_input_values(**inputs)["inputs_embeds"]
    frames = whole_frames(sample)[:, g, sample.keep[0, g]]
    spoken = policy.model.backbone_model.embed_tokens(frames)
    embeds = torch.cat([prompt, spoken], dim=1)
    logits: Tensor = policy.model(inputs_embeds=embeds, use_cache=False).logits
    return logits


def generated(family: str, policy: Any, folder: str, batch: PromptBatch, num: int) -> list[Any]:
    """What ``generate`` of an exported folder says greedily, clip by clip: tokens or frames."""
    model = TTS_RECORDS[family].model.from_pretrained(folder, attn_implementation="sdpa").eval()
    spoken = []
    for i in range(len(batch)):
        one = batch.select([i])
        if family == "csm":
            inputs = csm_inputs(AutoProcessor.from_pretrained(folder), one)
            how = {"do_sample": False, "depth_decoder_do_sample": False}
            spoken.append(model.generate(**inputs, **how, max_new_tokens=num)[0].tolist())
            continue
        ids = prompt_ids(policy, one)
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=num)
        spoken.append(out[0, ids.shape[1] :].tolist())
    return spoken

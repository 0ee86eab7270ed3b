"""Fun-ASR-Nano, the paper's own family: SAN-M encoder, adaptor, Qwen3 (arXiv 2509.18569)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from transformers import FunAsrNanoForConditionalGeneration, FunAsrNanoProcessor

from lightning_audiorl.fields import PerPrompt, Shape
from lightning_audiorl.models.decoding.cached_prompt import PrefixContext
from lightning_audiorl.models.decoding.clips import check_clips
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy, Side
from lightning_audiorl.models.decoding.shared_prefix import share_prefix
from lightning_audiorl.models.decoding.tokens import allowed_tokens, padded
from lightning_audiorl.models.finetune import Finetune, Parts, apply_finetune, merged_state_dict
from lightning_audiorl.models.loading import build, read_start, stop_token_ids
from lightning_audiorl.models.tiny import TinyFunAsrNano, build_fun_asr_nano
from lightning_audiorl.types import PromptBatch

_MIN_SAMPLES = 400
_RATE_HZ = 16_000

# The chat template around the audio.
_USUAL_TEXT_TOKENS = 20
_LANGUAGES = {"zh", "en", "ja"}


@dataclass(frozen=True)
class FunAsrContext(PrefixContext):
    """Encoder output of B clips and the tokens around them.

    Args:
        ids, durations_s: of the prompts.
        features: [B, F, E] encoder output (60 ms frames), zero-padded on the right.
        keep: [B, F] bool.
        tokens: B prompts as token ids, one placeholder per audio frame.
    """

    features: Annotated[Tensor, Shape("B F E", pad="F", lengths="num_frames")]
    keep: Annotated[Tensor, Shape("B F", pad="F", lengths="num_frames")]
    tokens: PerPrompt[list[list[int]]]

    @property
    def num_frames(self) -> Tensor:
        """[B] audio frames of each clip."""
        return self.keep.sum(-1)

    @property
    def prompt_lengths(self) -> list[int]:
        return [len(row) for row in self.tokens]


class FunAsrNanoPolicy(DecoderOnlyPolicy[FunAsrContext]):
    """`FunAsrNanoForConditionalGeneration` behind the policy interface.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; by default projector and language model.
        dtype: of the weights ("float32", "bfloat16"); trained weights want float32.
        revision: hub revision.
    """

    def __init__(
        self,
        init_from: str | TinyFunAsrNano,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.start = read_start(init_from)
        model, processor = build(
            self.start,
            (TinyFunAsrNano, build_fun_asr_nano),
            (FunAsrNanoForConditionalGeneration, FunAsrNanoProcessor),
            dtype,
            revision,
        )
        # Without it the adaptor's config has no attention implementation and its layers ignore padding.
        model.set_attn_implementation("sdpa")
        model.model.multi_modal_projector.config._attn_implementation = "sdpa"
        share_prefix(model.model.language_model)
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.stop_ids = stop_token_ids(model, self.tokenizer)
        vocab_size = model.config.text_config.vocab_size
        self.register_buffer(
            "allowed", allowed_tokens(self.tokenizer, vocab_size, self.stop_ids), persistent=False
        )
        self.finetune = finetune or Finetune()
        inner = model.model
        parts = Parts(
            [inner.audio_tower],
            [inner.multi_modal_projector],
            inner.language_model,
            inner.language_model.layers,
            [inner.language_model.norm, model.lm_head],
        )
        self.start.load_into(self, parts.backbone)
        apply_finetune(model, parts, self.finetune)

    def parts(self) -> dict[str, list[nn.Module]]:
        inner = self.model.model
        return {
            "encoder": [inner.audio_tower],
            "projector": [inner.multi_modal_projector],
            "lm": [inner.language_model, self.model.lm_head],
        }

    @property
    def backbone(self) -> nn.Module:
        return self.model.model.language_model

    @property
    def embed(self) -> nn.Module:
        return self.model.model.language_model.get_input_embeddings()

    @property
    def output(self) -> nn.Module:
        return self.model.lm_head

    @property
    def max_frames(self) -> int:
        return self.model.config.audio_config.max_position_embeddings - 1

    def encode(self, batch: PromptBatch) -> FunAsrContext:
        rate = self.processor.feature_extractor.sampling_rate
        check_clips(
            batch, "FunAsrNanoPolicy", rate, _MIN_SAMPLES, int(self.max_frames * 0.06 * rate)
        )
        audio = [
            wave[:n].cpu()
            for wave, n in zip(batch.waveform, batch.num_samples.tolist(), strict=True)
        ]
        with torch.autocast("cpu", enabled=False):  # it goes through numpy, which has no bfloat16
            features = self.processor.feature_extractor(audio, sampling_rate=batch.sample_rate_hz)
        keep = features["input_features_mask"].bool().to(batch.waveform.device)
        inputs = features["input_features"].to(batch.waveform.device)
        encoder = self.model.model.audio_tower
        with torch.set_grad_enabled(self.finetune.encoder and torch.is_grad_enabled()):
            encoded = encoder(
                input_features=inputs, input_features_mask=keep.long()
            ).last_hidden_state
        self.num_encoded += len(batch)
        frames = keep.sum(-1).tolist()
        durations = [n / batch.sample_rate_hz for n in batch.num_samples.tolist()]
        return FunAsrContext(batch.ids, durations, encoded, keep, self._prompts(batch, frames))

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> FunAsrContext:
        config = self.model.config.audio_config
        # Windows of 25 ms every 10 ms, six of them in one frame.
        num_windows = 1 + (int(seconds * _RATE_HZ) - 400) // 160
        num_frames = -(-num_windows // 6)
        if not 1 <= num_frames <= self.max_frames:
            raise ValueError(
                f"{seconds} s of audio are {num_frames} frames; the encoder takes 1 to {self.max_frames}"
            )

        keep = torch.ones(num_prompts, num_frames, dtype=torch.bool)
        inputs = torch.empty(
            num_prompts, num_frames, config.num_mel_bins * config.num_stacked_frames
        )
        encoder = self.model.model.audio_tower
        encoded = encoder(input_features=inputs, input_features_mask=keep.long()).last_hidden_state

        text = [self.stop_ids[0]] * (_USUAL_TEXT_TOKENS if text_tokens is None else text_tokens)
        tokens = [self.processor.audio_token_id] * num_frames + text
        ids = [str(number) for number in range(num_prompts)]
        return FunAsrContext(ids, [seconds] * num_prompts, encoded, keep, [tokens] * num_prompts)

    def _prompts(self, batch: PromptBatch, frames: Sequence[int]) -> list[list[int]]:
        """The checkpoint's own transcription prompt per row, its audio placeholder repeated once per frame."""
        audio_id = self.processor.audio_token_id
        by_lang: dict[str, list[int]] = {}
        out = []
        for row, num_frames in zip(batch.rows, frames, strict=True):
            if row.lang not in by_lang:
                text = self.processor.apply_transcription_request(
                    audio=torch.zeros(_MIN_SAMPLES).numpy(),
                    language=row.lang if row.lang in _LANGUAGES else None,
                    tokenize=False,
                )
                text = text if isinstance(text, str) else text[0]
                by_lang[row.lang] = self.tokenizer.encode(text, add_special_tokens=False)
            around = by_lang[row.lang]
            at = around.index(audio_id)
            out.append(around[:at] + [audio_id] * num_frames + around[at + 1 :])
        return out

    def prompt(self, context: FunAsrContext, side: Side) -> tuple[Tensor, Tensor]:
        audio = self.model.model.multi_modal_projector(context.features, context.keep.long())[
            context.keep
        ]
        ids, mask = padded(context.tokens, self.stop_ids[0], audio.device, side)
        embeds = self.embed(ids)
        places = (ids == self.processor.audio_token_id)[..., None].expand_as(embeds)
        return embeds.masked_scatter(places, audio.to(embeds.dtype)), mask

    def export(self, folder: str) -> None:
        self.model.generation_config.suppress_tokens = (
            (~self.allowed).nonzero().squeeze(-1).tolist()
        )
        self.model.save_pretrained(
            folder, state_dict=merged_state_dict(self.model), safe_serialization=True
        )
        self.processor.save_pretrained(folder)

"""Whisper (arXiv 2212.04356): encoder-decoder, every clip padded to one length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lightning_audiorl.models.decoding.clips import check_clips
from lightning_audiorl.models.decoding.encoder_decoder import EncodedContext, EncoderDecoderPolicy
from lightning_audiorl.models.decoding.shared_prefix import share_prefix
from lightning_audiorl.models.decoding.tokens import allowed_tokens
from lightning_audiorl.models.finetune import Finetune, Parts, apply_finetune, merged_state_dict
from lightning_audiorl.models.loading import build, read_start, stop_token_ids
from lightning_audiorl.models.tiny import TinyWhisper, build_whisper
from lightning_audiorl.types import PromptBatch, Rollout, Utterance


class WhisperPolicy(EncoderDecoderPolicy):
    """`WhisperForConditionalGeneration` behind the policy interface: transcription without timestamps.

    The tokens that the checkpoint's generation config suppresses stay forbidden. Those that it suppresses at the
    beginning (the stop token among them) do not: the answer to a clip without speech is the empty text.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; Whisper has no projector, its cross-attention belongs to the decoder ("lm"). LoRA
            wants Whisper's names: ``lora_targets: [q_proj, k_proj, v_proj, out_proj, fc1, fc2]``.
        dtype: of the weights ("float32", "bfloat16"); trained weights want float32.
        revision: hub revision.
    """

    def __init__(
        self,
        init_from: str | TinyWhisper,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.start = read_start(init_from)
        model, processor = build(
            self.start,
            (TinyWhisper, build_whisper),
            (WhisperForConditionalGeneration, WhisperProcessor),
            dtype,
            revision,
        )
        share_prefix(model.model.decoder)
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.stop_ids = stop_token_ids(model, self.tokenizer)
        self.register_buffer("allowed", self._allowed(), persistent=False)
        self.finetune = finetune or Finetune()
        encoder, decoder = model.model.encoder, model.model.decoder
        parts = Parts([encoder], [], decoder, decoder.layers, [decoder.layer_norm, model.proj_out])
        self.start.load_into(self, parts.backbone)
        apply_finetune(model, parts, self.finetune)
        encoder.embed_positions.requires_grad_(False)

    def _allowed(self) -> Tensor:
        config = self.model.generation_config
        allowed = allowed_tokens(self.tokenizer, self.model.config.vocab_size, self.stop_ids)
        no_timestamps = getattr(config, "no_timestamps_token_id", None)
        if no_timestamps is not None:
            allowed[no_timestamps + 1 :] = False
        allowed[list(config.suppress_tokens or [])] = False
        allowed[self.stop_ids] = True
        return allowed

    def parts(self) -> dict[str, list[nn.Module]]:
        return {"encoder": [self.model.model.encoder], "lm": [self.backbone, self.output]}

    @property
    def backbone(self) -> nn.Module:
        return self.model.model.decoder

    @property
    def output(self) -> nn.Module:
        return self.model.proj_out

    @property
    def max_positions(self) -> int:
        return self.model.config.max_target_positions

    def encode(self, batch: PromptBatch) -> EncodedContext:
        extractor = self.processor.feature_extractor
        check_clips(batch, "WhisperPolicy", extractor.sampling_rate, 1, extractor.n_samples)
        device = batch.waveform.device
        lengths = batch.num_samples.tolist()
        tokens = torch.tensor([self._prompt(row) for row in batch.rows], device=device)
        audio = [wave[:n].cpu().numpy() for wave, n in zip(batch.waveform, lengths, strict=True)]
        with torch.autocast("cpu", enabled=False):
            features = extractor(audio, sampling_rate=batch.sample_rate_hz, return_tensors="pt")[
                "input_features"
            ]
        encoder = self.model.model.encoder
        with torch.set_grad_enabled(self.finetune.encoder and torch.is_grad_enabled()):
            encoded = encoder(features.to(device, encoder.conv1.weight.dtype)).last_hidden_state
        self.num_encoded += len(batch)
        return EncodedContext(
            batch.ids, [n / batch.sample_rate_hz for n in lengths], encoded, tokens
        )

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> EncodedContext:
        config = self.model.config
        encoder = self.model.model.encoder
        # Every clip is padded to the same length; the prompt is start, language, task, no timestamps.
        inputs = torch.empty(num_prompts, config.num_mel_bins, 2 * config.max_source_positions)
        encoded = encoder(inputs.to(encoder.conv1.weight.dtype)).last_hidden_state
        tokens = torch.zeros(num_prompts, 4, dtype=torch.long)
        ids = [str(number) for number in range(num_prompts)]
        return EncodedContext(ids, [seconds] * num_prompts, encoded, tokens)

    def _prompt(self, row: Utterance) -> list[int]:
        """Start, language, task, no timestamps; an English-only model has neither language nor task."""
        config = self.model.generation_config
        tokens = [config.decoder_start_token_id]
        languages = getattr(config, "lang_to_id", None)
        if languages:
            if f"<|{row.lang}|>" not in languages:
                known = sorted(name.strip("<|>") for name in languages)
                raise ValueError(
                    f"row {row.id!r}: lang {row.lang!r} is not one of this model's: {known}"
                )
            tokens += [languages[f"<|{row.lang}|>"], config.task_to_id["transcribe"]]
        no_timestamps = getattr(config, "no_timestamps_token_id", None)
        return tokens if no_timestamps is None else [*tokens, no_timestamps]

    def targets(self, context: EncodedContext, texts: Sequence[str]) -> Rollout:
        # Whisper's transcripts begin with a space.
        return super().targets(context, [f" {text}" if text else "" for text in texts])

    def export(self, folder: str) -> None:
        config = self.model.generation_config
        config.suppress_tokens = (~self.allowed).nonzero().squeeze(-1).tolist()
        config.begin_suppress_tokens = None
        self.model.save_pretrained(
            folder, state_dict=merged_state_dict(self.model), safe_serialization=True
        )
        self.processor.save_pretrained(folder)

"""Whisper (arXiv 2212.04356): encoder-decoder, every clip padded to one length."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from lightning_audiorl.languages import language_of
from lightning_audiorl.models.decoding.clips import check_clips, clips_of, durations_of
from lightning_audiorl.models.decoding.encoder_decoder import (
    EncodedContext,
    EncoderDecoderPolicy,
    PromptedContext,
)
from lightning_audiorl.models.decoding.hotwords import (
    CutHotwords,
    checked_words,
    first_words,
    refusal,
    refuse_hotwords,
)
from lightning_audiorl.models.decoding.tokens import padded
from lightning_audiorl.models.encoder_cache import EncoderCache, plain_settings
from lightning_audiorl.models.export import Adapter
from lightning_audiorl.models.finetune import Finetune, Parts
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import DIGIT_WORDS, TinySpec, keyed_weights, word_tokenizer
from lightning_audiorl.types import PromptBatch, Rollout, Utterance
from lightning_audiorl.weights.tensors import WeightsError

_RATE_HZ = 16_000

# Whisper's transcripts begin with a space, but for languages that are written without any: its tokenizer cuts those
# into characters where it cuts others into words.
_UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my"})

# Of the configuration, beside those that begin with encoder_.
_ENCODER_SETTINGS = (
    "d_model",
    "activation_function",
    "num_mel_bins",
    "max_source_positions",
    "scale_embedding",
)

_NO_TIMESTAMPS = "<|notimestamps|>"
# Before a text that was said earlier, in whose spelling Whisper goes on.
_PREVIOUS = "<|startofprev|>"


@dataclass(frozen=True)
class TinyWhisper(TinySpec):
    """Sizes of a tiny `WhisperForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and decoder.
        encoder_layers, decoder_layers: numbers of layers.
        chunk_length_s: length that every clip is padded to, in whole seconds (Whisper's own is 30).
        num_mel_bins: of the features.
        max_target_positions: most decoder tokens, prompt included.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    chunk_length_s: int = 8
    num_mel_bins: int = 40
    max_target_positions: int = 128
    seed: int = 0

    def build(self) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
        # Behind the words, as in Whisper's own vocabulary: ids after <|notimestamps|> count as timestamps.
        control = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", _NO_TIMESTAMPS]
        tokenizer = word_tokenizer(self.words, control)
        start, english, transcribe, no_timestamps = (
            tokenizer.get_vocab()[token] for token in control
        )
        ends = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "decoder_start_token_id": start,
        }

        with keyed_weights(self):
            model = WhisperForConditionalGeneration(self._config(len(tokenizer), ends))
        model.generation_config = GenerationConfig(
            **ends,
            is_multilingual=True,
            lang_to_id={"<|en|>": english},
            task_to_id={"transcribe": transcribe},
            no_timestamps_token_id=no_timestamps,
            max_length=self.max_target_positions,
            # As Whisper's own: no special token but the one that ends.
            suppress_tokens=sorted(set(tokenizer.all_special_ids) - {tokenizer.eos_token_id}),
        )

        extractor = WhisperFeatureExtractor(
            feature_size=self.num_mel_bins, chunk_length=self.chunk_length_s
        )
        return model, WhisperProcessor(extractor, tokenizer)

    def _config(self, vocab_size: int, ends: dict[str, Any]) -> WhisperConfig:
        return WhisperConfig(
            vocab_size=vocab_size,
            num_mel_bins=self.num_mel_bins,
            d_model=self.width,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            # Usual proportions, and 20 ms for each position of the encoder.
            encoder_ffn_dim=4 * self.width,
            decoder_ffn_dim=4 * self.width,
            max_source_positions=50 * self.chunk_length_s,
            max_target_positions=self.max_target_positions,
            dropout=0.0,
            begin_suppress_tokens=None,
            **ends,
        )


class WhisperPolicy(EncoderDecoderPolicy):
    """`WhisperForConditionalGeneration` behind the policy interface: transcription without timestamps.

    The tokens that the checkpoint's generation config suppresses (``:``, ``(``, ``"`` and more) are never sampled, here
    or by the export. Supervised training learns from texts with them all the same; edit ``suppress_tokens`` in the
    start's generation_config.json to have them written, too. Those that are suppressed at the beginning (the stop token
    among them) are not: the answer to a clip without speech is the empty text.

    Hotwords of a row stand where Whisper reads what was said before, and take at most half of the decoder's positions
    less one: of a longer list the first words are taken, and how many are left out is counted and said.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; Whisper has no projector, its cross-attention belongs to the decoder ("lm"). LoRA without
            ``lora_targets`` goes to both attentions and the feed-forward layers of the decoder.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
        long_form: evaluation sets may hold clips beyond the window (30 s): they are decoded greedily by transformers'
            own way, window by window with timestamps, as an export does it. Training takes no such clips.
    """

    family = Family(TinyWhisper, WhisperForConditionalGeneration, WhisperProcessor)
    default_lora_targets = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    _writable: Tensor

    def __init__(
        self,
        init_from: str | TinyWhisper,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        encoder_cache: EncoderCache | None = None,
        long_form: bool = False,
    ) -> None:
        super().__init__()
        self.hotwords_cut = CutHotwords()
        self.long_form = long_form
        self._load(init_from, dtype, revision)
        self._check_processor()
        self._make_ready(finetune, encoder_cache)
        # Sinusoids: they stay as they are, also where the encoder trains.
        self.model.model.encoder.embed_positions.requires_grad_(False)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that it is known where a prompt begins."""
        if isinstance(self.processor, TokenizerOutline):
            return
        config = self.model.config
        extractor = self.processor.feature_extractor
        require_features(
            self.start.source,
            sampling_rate=(extractor.sampling_rate, _RATE_HZ),
            feature_size=(extractor.feature_size, config.num_mel_bins),
            # Two windows of 10 ms for each position of the encoder.
            nb_max_frames=(extractor.nb_max_frames, 2 * config.max_source_positions),
        )
        if self.model.generation_config.decoder_start_token_id is None:
            raise WeightsError(
                f"{self.start.source}: its generation_config.json does not say where a prompt begins "
                "(decoder_start_token_id); copy it from the model that this one was made of"
            )
        self._check_languages()
        if self.long_form and not self._has_timestamps:
            raise ValueError(
                f"WhisperPolicy.long_form: the vocabulary of {self.start.source} has no timestamps, by which long "
                "audio is cut; leave long_form out, and long clips with on_too_long: skip"
            )

    @property
    def _has_timestamps(self) -> bool:
        """Whether tokens stand behind "no timestamps"."""
        no_timestamps = getattr(self.model.generation_config, "no_timestamps_token_id", None)
        return no_timestamps is not None and no_timestamps + 1 < self.model.config.vocab_size

    def _check_languages(self) -> None:
        """See that a model of several languages says which tokens ask for them."""
        config = self.model.generation_config
        if getattr(config, "is_multilingual", False):
            for name in ("lang_to_id", "task_to_id"):
                if not getattr(config, name, None):
                    raise WeightsError(
                        f"{self.start.source}: its generation_config.json is of several languages (is_multilingual) "
                        f"and has no {name}, as early ones have none; copy generation_config.json from the checkpoint "
                        "that it was made of, as it is today"
                    )

    def _vocabulary(self) -> tuple[list[int], Tensor]:
        stop_ids, allowed = super()._vocabulary()
        # Every token behind "no timestamps" is a timestamp.
        config = self.model.generation_config
        no_timestamps = getattr(config, "no_timestamps_token_id", None)
        known = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        if no_timestamps is None and _NO_TIMESTAMPS in known:
            raise ValueError(
                f"WhisperPolicy: the generation config of {self.start.source} does not say how to ask for a transcript "
                "without timestamps (no_timestamps_token_id); copy generation_config.json from the checkpoint that it "
                "was made of"
            )
        if no_timestamps is not None:
            allowed[no_timestamps + 1 :] = False
        self.register_buffer("_writable", allowed.clone(), persistent=False)

        suppressed = config.suppress_tokens or []
        allowed[[token for token in suppressed if 0 <= token < len(allowed)]] = False
        # Last: a checkpoint may suppress its stop token.
        allowed[stop_ids] = True
        return stop_ids, allowed

    @property
    def writable(self) -> Tensor:
        return self._writable

    @property
    def roles(self) -> Parts:
        inner = self.model.model
        return Parts(
            encoder=[inner.encoder],
            projector=[],
            backbone=inner.decoder,
            layers=inner.decoder.layers,
            final=[inner.decoder.layer_norm, self.model.proj_out],
        )

    @property
    def output(self) -> nn.Module:
        return self.model.proj_out

    @property
    def max_positions(self) -> int:
        return self.model.config.max_target_positions

    @property
    def clip_span_s(self) -> tuple[float, float]:
        """One sample to one window of the feature extractor, 30 s."""
        extractor = self.processor.feature_extractor
        return 1 / extractor.sampling_rate, extractor.n_samples / extractor.sampling_rate

    def padded_s(self, duration_s: float) -> float:
        """Whole windows of the feature extractor."""
        window_s = self.clip_span_s[1]
        return max(1, math.ceil(duration_s / window_s)) * window_s

    def encode(self, batch: PromptBatch) -> EncodedContext:
        extractor = self.processor.feature_extractor
        check_clips(batch, "WhisperPolicy", extractor.sampling_rate, 1, extractor.n_samples)
        device = batch.waveform.device
        prompts = [self._prompt(row) for row in batch.rows]
        tokens, _ = padded(prompts, self.stop_ids[0], device, "right")

        if self.encoder_cache is None:
            encoded = self._encoder_output(clips_of(batch), device)
        else:
            kept = self._kept_outputs(
                batch, lambda clips: list(self._encoder_output(clips, device))
            )
            encoded = torch.stack(kept)
        lengths = [len(prompt) for prompt in prompts]
        return PromptedContext(batch.ids, durations_of(batch), encoded, tokens, lengths)

    def _encoder_output(self, clips: Sequence[Tensor], device: torch.device) -> Tensor:
        """[B, F, E] of B clips, computed together."""
        extractor = self.processor.feature_extractor
        # The extractor pads every clip to one length, on the CPU, in numpy, which has no bfloat16.
        audio = [clip.numpy() for clip in clips]
        with torch.autocast("cpu", enabled=False):
            features = extractor(audio, sampling_rate=extractor.sampling_rate, return_tensors="pt")[
                "input_features"
            ]

        encoder = self.model.model.encoder
        with torch.set_grad_enabled(self.finetune.encoder and torch.is_grad_enabled()):
            encoded: Tensor = encoder(
                features.to(device, encoder.conv1.weight.dtype)
            ).last_hidden_state
        self.num_encoded += len(clips)
        return encoded

    @torch.no_grad()
    def transcribe_long(self, batch: PromptBatch) -> list[tuple[str, int]]:
        refuse_hotwords(
            batch.rows,
            "WhisperPolicy.long_form",
            "each window's prompt is the text before it; leave them out of clips beyond one window",
        )
        encoder = self.model.model.encoder
        if encoder.conv1.weight.numel() == 0 or isinstance(encoder.conv1.weight, DTensor):
            raise ValueError(
                "WhisperPolicy.long_form: clips beyond one window need encoder and decoder whole and at the same time; "
                "take a strategy that neither parks nor shards them, or leave such clips out with max_duration_s and "
                "on_too_long: skip"
            )

        extractor = self.processor.feature_extractor
        audio = [clip.numpy() for clip in clips_of(batch)]
        with torch.autocast("cpu", enabled=False):
            features = extractor(
                audio,
                sampling_rate=batch.sample_rate_hz,
                return_tensors="pt",
                return_attention_mask=True,
                padding="longest",
                truncation=False,
            )

        config = self.generation_config()
        config.do_sample = False
        config.num_beams = 1

        asks: dict[str, Any] = {}
        languages = getattr(config, "lang_to_id", None)
        if languages:
            by_token = {token: name for name, token in languages.items()}
            asks["language"] = [by_token[self._request(row)[1]] for row in batch.rows]
            asks["task"] = "transcribe"

        device = batch.waveform.device
        with self.evaluating():
            tokens = self.model.generate(
                features["input_features"].to(device, encoder.conv1.weight.dtype),
                attention_mask=features["attention_mask"].to(device),
                generation_config=config,
                return_timestamps=True,
                **asks,
            )
        self.num_encoded += len(batch)

        # Of the tokens those of the text: no timestamps, and no padding.
        texts = []
        for row in tokens.tolist():
            kept = [token for token in row if self._writable[token] and token not in self.stop_ids]
            text = str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()
            texts.append((text, len(kept)))
        return texts

    def encoder_settings(self) -> dict[str, Any]:
        config = self.model.config.to_dict()
        # The decoder's settings may change, in an export for one, and the encoder is the same.
        settings = {}
        for name, value in config.items():
            if name in _ENCODER_SETTINGS or name.startswith("encoder_"):
                settings[name] = value
        features = plain_settings(self.processor.feature_extractor.to_dict())
        return {"encoder": settings, "features": features}

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
        """`_request`, and before it the row's hotwords as the text that Whisper takes for what was said before."""
        request = self._request(row)
        words = checked_words(row, self.tokenizer)
        if not words:
            return request

        before = self.tokenizer.convert_tokens_to_ids(_PREVIOUS)
        if not isinstance(before, int) or before == self.tokenizer.unk_token_id:
            why = f"the vocabulary of {self.start.source} has no {_PREVIOUS}; leave them out"
            raise refusal(row, "WhisperPolicy", why)

        # As Whisper itself cuts the text before a window.
        room = self.max_positions // 2 - 1
        tokens, num_words = first_words(self.tokenizer, words, room)
        self.hotwords_cut.add(row, len(words) - num_words, room)
        self.num_hotwords_cut += len(words) - num_words
        return [before, *tokens, *request]

    def _request(self, row: Utterance) -> list[int]:
        """Start, language, task, no timestamps; an English-only model has neither language nor task."""
        config = self.model.generation_config
        tokens = [config.decoder_start_token_id]
        languages = getattr(config, "lang_to_id", None)
        if languages:
            # By any code or name that the row has; Whisper's own is an old one for some, such as jw.
            by_code = {language_of(name.strip("<|>")): name for name in languages}
            name = by_code.get(language_of(row.lang))
            if name is None:
                known = sorted(name.strip("<|>") for name in languages)
                raise ValueError(
                    f"row {row.id!r}: lang {row.lang!r} is not one of this model's: {known}"
                )
            tokens += [languages[name], config.task_to_id["transcribe"]]

        no_timestamps = getattr(config, "no_timestamps_token_id", None)
        if no_timestamps is not None:
            tokens.append(no_timestamps)
        return tokens

    def targets(self, context: EncodedContext, texts: Sequence[str]) -> Rollout:
        languages = self._languages(context)
        written = []
        for text, language in zip(texts, languages, strict=True):
            begins = "" if language in _UNSPACED or not text else " "
            written.append(f"{begins}{text}")
        return super().targets(context, written)

    def _languages(self, context: EncodedContext) -> list[str]:
        """That of each prompt, as the token behind its start says; "en" where the model knows no other."""
        languages = getattr(self.model.generation_config, "lang_to_id", None)
        if not languages:
            return ["en"] * len(context)
        by_token = {token: name.strip("<|>") for name, token in languages.items()}
        start = self.model.generation_config.decoder_start_token_id
        rows = context.tokens.tolist()
        return [by_token[row[row.index(start) + 1]] for row in rows]

    def _write(self, folder: str, adapter: Adapter | None = None) -> None:
        super()._write(folder, adapter)
        # transformers reads the same in processor_config.json. The converter of CTranslate2 copies this file, and
        # faster-whisper takes 80 mel bins where it is missing.
        self.processor.feature_extractor.save_pretrained(folder)

    def generation_config(self) -> GenerationConfig:
        # Its own: timestamps and audio beyond one window need tokens that training did not draw from. But for the stop
        # token, which is the answer to a clip without speech.
        config = copy.deepcopy(self.model.generation_config)
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            suppressed = getattr(config, name) or []
            if set(self.stop_ids) & set(suppressed):
                others = [token for token in suppressed if token not in self.stop_ids]
                setattr(config, name, others or None)
        return config

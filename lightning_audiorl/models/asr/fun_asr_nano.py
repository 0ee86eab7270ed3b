"""Fun-ASR-Nano, the paper's own family: SAN-M encoder, adaptor, Qwen3 (arXiv 2509.18569)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    FunAsrNanoConfig,
    FunAsrNanoFeatureExtractor,
    FunAsrNanoForConditionalGeneration,
    FunAsrNanoProcessor,
    PreTrainedTokenizerFast,
)

from lightning_audiorl.fields import PerPrompt, Shape
from lightning_audiorl.languages import language_of
from lightning_audiorl.models.decoding.cached_prompt import PrefixContext
from lightning_audiorl.models.decoding.clips import check_clips, clips_of, durations_of
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy, Side
from lightning_audiorl.models.decoding.hotwords import (
    check_reached,
    check_room,
    checked_words,
    prompt_text,
)
from lightning_audiorl.models.decoding.tokens import padded
from lightning_audiorl.models.encoder_cache import EncoderCache, plain_settings
from lightning_audiorl.models.finetune import Finetune, Parts
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import (
    AUDIO_TOKEN,
    DIGIT_WORDS,
    TinySpec,
    keyed_weights,
    word_tokenizer,
)
from lightning_audiorl.types import PromptBatch, Utterance
from lightning_audiorl.weights.families import first_line
from lightning_audiorl.weights.tensors import WeightsError

_MIN_SAMPLES = 400
_RATE_HZ = 16_000

# The chat template around the audio.
_USUAL_TEXT_TOKENS = 20
_LANGUAGES = {"zh", "en", "ja"}

# Of the tiny model.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'keywords' %} {{ part['keywords'] | join(' ') }} {% endif %}"
    "{% if part['type'] == 'audio' %}<|object_ref_start|>{% endif %}{% endfor %}<|im_start|>{% endfor %}"
)


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


@dataclass(frozen=True)
class TinyFunAsrNano(TinySpec):
    """Sizes of a tiny `FunAsrNanoForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each; Chinese ones are single characters.
        width: hidden size of encoder and language model.
        encoder_layers, lm_layers: numbers of layers.
        max_frames: longest input in 60 ms frames.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 4
    lm_layers: int = 3
    heads: int = 4
    max_frames: int = 1024
    seed: int = 0

    def build(self) -> tuple[FunAsrNanoForConditionalGeneration, FunAsrNanoProcessor]:
        tokenizer = word_tokenizer(self.words)
        config = FunAsrNanoConfig(
            audio_config=self._audio_config(),
            adaptor_config=self._adaptor_config(),
            text_config=self._text_config(tokenizer),
            audio_token_id=tokenizer.get_vocab()[AUDIO_TOKEN],
        )
        with keyed_weights(self):
            model = FunAsrNanoForConditionalGeneration(config)

        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        processor = FunAsrNanoProcessor(
            FunAsrNanoFeatureExtractor(), tokenizer, chat_template=_CHAT_TEMPLATE
        )
        return model, processor

    def _audio_config(self) -> dict[str, Any]:
        return {
            "model_type": "fun_asr_nano_encoder",
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.encoder_layers,
            # By default 20 of the layers, more than there are.
            "num_timestamp_prediction_layers": 0,
            # By default 0.1, and then tokens of the rollout fall outside the clip before the first update.
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "max_position_embeddings": self.max_frames + 1,
        }

    def _adaptor_config(self) -> dict[str, Any]:
        return {
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": self.width // 4,
            "num_hidden_layers": 1,
            "projector_hidden_size": 2 * self.width,
        }

    def _text_config(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        return {
            "model_type": "qwen3",
            "vocab_size": len(tokenizer),
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.lm_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.width // self.heads,
            # Room for the frames, the prompt around them and the completion.
            "max_position_embeddings": 4 * self.max_frames,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


class FunAsrNanoPolicy(DecoderOnlyPolicy[FunAsrContext]):
    """`FunAsrNanoForConditionalGeneration` behind the policy interface.

    Hotwords of a row are the keywords of its processor's request.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; by default projector and language model.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
    """

    family = Family(TinyFunAsrNano, FunAsrNanoForConditionalGeneration, FunAsrNanoProcessor)
    # Without it the adaptor's layers ignore padding, in the export as here.
    load_arguments: ClassVar[Mapping[str, str]] = {"attn_implementation": "sdpa"}

    def __init__(
        self,
        init_from: str | TinyFunAsrNano,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        encoder_cache: EncoderCache | None = None,
    ) -> None:
        super().__init__()
        self._load(init_from, dtype, revision)
        self._check_processor()
        # Without it the adaptor's config has no attention implementation and its layers ignore padding.
        self.model.set_attn_implementation("sdpa")
        self.model.model.multi_modal_projector.config._attn_implementation = "sdpa"
        self._make_ready(finetune, encoder_cache)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that its template asks for a transcript."""
        if isinstance(self.processor, TokenizerOutline):
            return
        config = self.model.config.audio_config
        extractor = self.processor.feature_extractor
        source = self.start.source
        require_features(
            source,
            sampling_rate=(extractor.sampling_rate, _RATE_HZ),
            feature_size=(extractor.feature_size, config.num_mel_bins),
            num_frames_lfr=(extractor.num_frames_lfr, config.num_stacked_frames),
        )

        try:
            request = self._request("")
        except Exception as error:
            raise WeightsError(
                f"{source}: its chat template is missing or broken ({first_line(error)}); copy chat_template.jinja "
                "from the model that this one was made of"
            ) from error
        if request.count(self.processor.audio_token_id) != 1:
            raise WeightsError(
                f"{source}: its chat template has not one place for the audio; copy chat_template.jinja from the model "
                "that this one was made of"
            )

    @property
    def roles(self) -> Parts:
        inner = self.model.model
        return Parts(
            encoder=[inner.audio_tower],
            projector=[inner.multi_modal_projector],
            backbone=inner.language_model,
            layers=inner.language_model.layers,
            final=[inner.language_model.norm, self.model.lm_head],
        )

    @property
    def embed(self) -> nn.Module:
        return self.model.model.language_model.get_input_embeddings()

    @property
    def output(self) -> nn.Module:
        return self.model.lm_head

    @property
    def max_frames(self) -> int:
        """Most audio frames that the encoder has positions for."""
        return self.model.config.audio_config.max_position_embeddings - 1

    @property
    def _max_samples(self) -> int:
        """Longest clip; a frame of the encoder covers 60 ms."""
        return int(self.max_frames * 0.06 * self.processor.feature_extractor.sampling_rate)

    @property
    def clip_span_s(self) -> tuple[float, float]:
        """One window of the feature extractor to all positions of the encoder."""
        rate = self.processor.feature_extractor.sampling_rate
        return _MIN_SAMPLES / rate, self._max_samples / rate

    def encode(self, batch: PromptBatch) -> FunAsrContext:
        rate = self.processor.feature_extractor.sampling_rate
        check_clips(batch, "FunAsrNanoPolicy", rate, _MIN_SAMPLES, self._max_samples)

        device = batch.waveform.device
        if self.encoder_cache is None:
            encoded, keep = self._encoder_output(clips_of(batch), device)
        else:
            kept = self._kept_outputs(batch, lambda clips: self._clip_outputs(clips, device))
            encoded = pad_sequence(kept, batch_first=True)
            num_frames = torch.tensor([len(output) for output in kept], device=device)
            keep = torch.arange(encoded.shape[1], device=device) < num_frames[:, None]

        prompts = self._prompts(batch, keep.sum(-1).tolist())
        return FunAsrContext(batch.ids, durations_of(batch), encoded, keep, prompts)

    def _encoder_output(
        self, clips: Sequence[Tensor], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """[B, F, E] of B clips, computed together, and their keep mask [B, F]."""
        extractor = self.processor.feature_extractor
        with torch.autocast("cpu", enabled=False):  # it goes through numpy, which has no bfloat16
            features = extractor(clips, sampling_rate=extractor.sampling_rate)
        keep = features["input_features_mask"].bool().to(device)
        inputs = features["input_features"].to(device)

        encoder = self.model.model.audio_tower
        with torch.set_grad_enabled(self.finetune.encoder and torch.is_grad_enabled()):
            encoded = encoder(
                input_features=inputs, input_features_mask=keep.long()
            ).last_hidden_state
        self.num_encoded += len(clips)
        return encoded, keep

    def _clip_outputs(self, clips: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """[F, E] of each of some clips, computed together, without padding."""
        encoded, keep = self._encoder_output(clips, device)
        return [output[kept] for output, kept in zip(encoded, keep, strict=True)]

    def encoder_settings(self) -> dict[str, Any]:
        return {
            "encoder": plain_settings(self.model.config.audio_config.to_dict()),
            "features": plain_settings(self.processor.feature_extractor.to_dict()),
        }

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
            lang = language_of(row.lang)
            if row.hotwords:
                around = self._hotword_request(row, lang)
            else:
                if lang not in by_lang:
                    by_lang[lang] = self._request(lang)
                around = by_lang[lang]

            at = around.index(audio_id)
            frames_of_row = [audio_id] * num_frames
            before = around[:at]
            after = around[at + 1 :]
            out.append([*before, *frames_of_row, *after])
        return out

    def _request(self, lang: str) -> list[int]:
        """The prompt for a language by its code, with one audio placeholder; of one it has no name for, without one."""
        return self.tokenizer.encode(self._asked(lang), add_special_tokens=False)

    def _asked(self, lang: str, words: list[str] | None = None) -> str:
        text = self.processor.apply_transcription_request(
            # The processor wants a clip; how long it is does not show in the text.
            audio=torch.zeros(_MIN_SAMPLES).numpy(),
            language=lang if lang in _LANGUAGES else None,
            keywords=words,
            tokenize=False,
        )
        return text if isinstance(text, str) else text[0]

    def _hotword_request(self, row: Utterance, lang: str) -> list[int]:
        """`_request` with a row's hotwords."""
        words = checked_words(row, self.tokenizer)
        text = self._asked(lang, words)
        check_reached(row, words, text, self.start.source)

        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        positions = self.model.config.text_config.max_position_embeddings
        check_room(row, len(words), len(tokens), positions // 4)
        return tokens

    def prompt_texts(self, context: FunAsrContext) -> list[str]:
        audio_id = self.processor.audio_token_id
        return [prompt_text(self.tokenizer, row, audio_id) for row in context.tokens]

    def prompt(self, context: FunAsrContext, side: Side) -> tuple[Tensor, Tensor]:
        # The projector may train: it runs here, behind the encoder's output that all passes share.
        audio = self.model.model.multi_modal_projector(context.features, context.keep.long())[
            context.keep
        ]

        ids, mask = padded(context.tokens, self.stop_ids[0], audio.device, side)
        embeds = self.embed(ids)
        places = (ids == self.processor.audio_token_id)[..., None].expand_as(embeds)
        return embeds.masked_scatter(places, audio.to(embeds.dtype)), mask

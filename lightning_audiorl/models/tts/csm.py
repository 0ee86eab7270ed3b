"""CSM: a language model speaks the first code of each frame of Mimi, and a depth decoder the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CsmConfig,
    CsmForConditionalGeneration,
    CsmProcessor,
    EncodecFeatureExtractor,
    GenerationConfig,
)

from lightning_audiorl.checks import check_number
from lightning_audiorl.fields import PerPrompt
from lightning_audiorl.models.decoding import sampling
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy, Side
from lightning_audiorl.models.decoding.tokens import padded
from lightning_audiorl.models.finetune import Finetune, Parts
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.models.tiny_base import (
    DIGIT_WORDS,
    TinySpec,
    character_tokenizer,
    keyed_weights,
)
from lightning_audiorl.models.tts.context import TextContext
from lightning_audiorl.models.tts.frames import (
    Frame,
    FrameState,
    decode_frames,
    encode_frames,
    targets_of_frames,
    whole_frames,
)
from lightning_audiorl.models.tts.limits import SpeechLimits
from lightning_audiorl.models.tts.templates import text_ids
from lightning_audiorl.types import Decoding, PromptBatch, Rollout, Speech, Utterance

_AUDIO = "<|AUDIO|>"
_AUDIO_END = "<|audio_eos|>"

# Of the tiny model: each turn is a speaker's number and text, and the audio of what has been said.
_CHAT = (
    "{% for turn in messages %}{{ bos_token }}[{{ turn['role'] }}]"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ eos_token }}"
    "{% for part in turn['content'] if part['type'] == 'audio' %}<|AUDIO|><|audio_eos|>{% endfor %}{% endfor %}"
)

# Of a prompt in a plan: tokens of its text, seconds of the speaker's voice, and how fast the text is read.
_USUAL_TEXT_TOKENS = 50
_USUAL_PROMPT_S = 3.0
_USUAL_CHARACTERS_PER_SECOND = 15.0


@dataclass(frozen=True)
class TinyCsm(TinySpec):
    """Sizes of a tiny `CsmForConditionalGeneration` with its Mimi; the same seed gives the same weights.

    Mimi keeps its rates, 24 kHz and 12.5 frames a second, since the processor counts by them.

    Args:
        words: whose characters are the text vocabulary, beside digits, brackets and the space.
        width: hidden size of the backbone; the depth decoder has half of it.
        layers: of the backbone; the depth decoder has one.
        num_codebooks: C.
        num_codes: of each codebook.
        max_positions: most tokens and frames, prompt included.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 32
    layers: int = 2
    heads: int = 2
    num_codebooks: int = 4
    num_codes: int = 16
    max_positions: int = 256
    seed: int = 0

    def build(self) -> tuple[CsmForConditionalGeneration, CsmProcessor]:
        characters = "".join(sorted({*"".join(self.words), *"0123456789[] "}))
        tokenizer = character_tokenizer(characters, [_AUDIO, _AUDIO_END])
        audio, audio_end = (tokenizer.get_vocab()[name] for name in (_AUDIO, _AUDIO_END))

        # As published: three ids more than the codec has codes, and the first code's id ends speech, too.
        vocab_size = self.num_codes + 3
        config = CsmConfig(
            vocab_size=vocab_size,
            text_vocab_size=len(tokenizer),
            num_codebooks=self.num_codebooks,
            **self._backbone_sizes(),
            codebook_eos_token_id=0,
            codebook_pad_token_id=vocab_size - 1,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # Of the text; what stands in their places are frames.
            audio_token_id=audio,
            audio_eos_token_id=audio_end,
            depth_decoder_config=self._depth_config(vocab_size),
            codec_config=self._codec_config(),
        )
        with keyed_weights(self):
            model = CsmForConditionalGeneration(config)
        extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=24000)
        return model, CsmProcessor(extractor, tokenizer, chat_template=_CHAT)

    def _backbone_sizes(self) -> dict[str, Any]:
        return {
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": self.max_positions,
        }

    def _depth_config(self, vocab_size: int) -> dict[str, Any]:
        return {
            "model_type": "csm_depth_decoder_model",
            "num_codebooks": self.num_codebooks,
            "backbone_hidden_size": self.width,
            "vocab_size": vocab_size,
            "hidden_size": self.width // 2,
            "intermediate_size": self.width,
            "num_hidden_layers": 1,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": self.num_codebooks + 1,
        }

    def _codec_config(self) -> dict[str, Any]:
        return {
            "model_type": "mimi",
            "num_filters": 2,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 16,
            "upsample_groups": 16,
            "codebook_size": self.num_codes,
            "codebook_dim": 8,
            "vector_quantization_hidden_dimension": 8,
            "num_quantizers": self.num_codebooks,
        }


@dataclass(frozen=True)
class CsmContext(TextContext):
    """B prompts of text and a speaker's recording.

    Args:
        ids: of the rows.
        durations_s: expected lengths of the speech, in seconds.
        tokens: B prompts as ids of text tokens, with a placeholder for each frame.
        frames: B lists of what stands in the placeholders' places.
        text_lengths: characters of each text to be spoken.
        target_frames: B recordings of the texts; empty where a row has none.
    """

    frames: PerPrompt[list[list[Frame]]]
    text_lengths: PerPrompt[list[int]]
    target_frames: PerPrompt[list[list[Frame]]]


class CsmPolicy(DecoderOnlyPolicy[CsmContext]):
    """`CsmForConditionalGeneration` behind the policy interface: speech in several codes at once.

    The backbone draws the first code of a frame, the depth decoder the others, given the first and the backbone's
    state; the sum of their embeddings is what the backbone reads next. What learns is the backbone: log-probabilities
    are of first codes alone. The depth decoder and the embedding of codes, one matrix with its own, stay as they are,
    and so does the codec, the checkpoint's own Mimi. `Rollout.following` keeps the other codes of a sample, since
    update and reference read whole frames.

    The text to speak is ``row.text``; the batch's audio are speaker prompts, ``row.extra["prompt_text"]`` is what they
    say, ``row.extra["speaker_id"]`` the number of the voice in the prompt, by default 0. ``num_encoded`` counts the
    clips that the codec encoded.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains of the backbone; encoder and projector there are none.
        limits: of lengths and speaker prompts.
        depth_temperature: of the codes that follow the first; 0 is greedy, None that of the first.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.

    Example:
        >>> policy = CsmPolicy(TinyCsm())
        >>> policy.num_codebooks, policy.learning_codebooks
        (4, (0,))
    """

    family = Family(TinyCsm, CsmForConditionalGeneration, CsmProcessor)
    speaks = True
    learning_codebooks = (0,)

    def __init__(
        self,
        init_from: str | TinyCsm,
        finetune: Finetune | None = None,
        limits: SpeechLimits | None = None,
        depth_temperature: float | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        if depth_temperature is not None:
            check_number("CsmPolicy.depth_temperature", depth_temperature, at_least=0)
        self._load(init_from, dtype, revision)
        self.limits = limits or SpeechLimits()
        self.depth_temperature = depth_temperature
        self.num_codebooks = self.model.config.num_codebooks
        self._check_features()
        self._make_ready(finetune)
        self._hold_depth()

    def _check_features(self) -> None:
        if isinstance(self.processor, TokenizerOutline):
            return
        rate_hz = self.codec.config.sampling_rate
        require_features(
            self.start.source,
            sampling_rate=(self.processor.feature_extractor.sampling_rate, rate_hz),
        )

    def _hold_depth(self) -> None:
        """What follows stays as it is; of the rest, the texts' embedding trains with the whole backbone alone."""
        self.model.embed_text_tokens.requires_grad_(self.finetune.lm == "all")
        # With it the backbone's embedding of codes, where the two are one matrix.
        self.model.depth_decoder.requires_grad_(False)

    def _vocabulary(self) -> tuple[list[int], Tensor]:
        config = self.model.config
        allowed = torch.zeros(config.vocab_size, dtype=torch.bool)
        allowed[: self.codec.config.codebook_size] = True
        allowed[config.codebook_eos_token_id] = True
        return [config.codebook_eos_token_id], allowed

    def generation_config(self) -> GenerationConfig:
        config = super().generation_config()
        # As its class lays them down: those of the depth decoder beside the others.
        of_depth = self.model.depth_decoder.generation_config.to_diff_dict()
        of_depth.pop("transformers_version", None)
        # Said to be the model's own, settings are read without those of the depth decoder.
        config._from_model_config = False
        of_depth.pop("_from_model_config", None)
        of_depth["suppress_tokens"] = config.suppress_tokens
        for name, value in of_depth.items():
            setattr(config, f"depth_decoder_{name}", value)
        return config

    # --- its modules

    @property
    def roles(self) -> Parts:
        backbone = self.model.backbone_model
        final = [backbone.norm, self.output]
        return Parts(
            encoder=[], projector=[], backbone=backbone, layers=backbone.layers, final=final
        )

    def parts(self) -> dict[str, list[nn.Module]]:
        parts = super().parts()
        parts["lm"] += [self.model.embed_text_tokens, self.model.depth_decoder]
        return {**parts, "codec": [self.codec]}

    @property
    def codec(self) -> Any:
        """The checkpoint's own Mimi, frozen."""
        return self.model.codec_model

    @property
    def embed(self) -> nn.Module:
        """Frames [B, T, C] -> [B, T, D], the sum of their codes' embeddings."""
        return self.model.backbone_model.embed_tokens

    @property
    def output(self) -> nn.Module:
        return self.model.lm_head

    # --- from text and speaker prompt to tokens and frames

    def encode(self, batch: PromptBatch) -> CsmContext:
        self.limits.check_prompts(batch, self.codec.config.sampling_rate)
        prompt_frames = self._frames(batch.waveform, batch.num_samples)
        target_frames: list[list[Frame]] = [[] for _ in batch.rows]
        if batch.target_waveform is not None and batch.target_num_samples is not None:
            target_frames = self._frames(batch.target_waveform, batch.target_num_samples)

        tokens = [
            self._prompt_ids(row, len(frames))
            for row, frames in zip(batch.rows, prompt_frames, strict=True)
        ]
        # The recording ends as speech does.
        frames = [[*row, self._end_frame] if row else [] for row in prompt_frames]
        return CsmContext(
            ids=batch.ids,
            durations_s=[row.duration_s for row in batch.rows],
            tokens=tokens,
            frames=frames,
            text_lengths=[len(row.text) for row in batch.rows],
            target_frames=target_frames,
        )

    def _frames(self, waveform: Tensor, num_samples: Tensor) -> list[list[Frame]]:
        """The frames of each clip, counted."""
        self.num_encoded += int((num_samples > 0).sum())
        return encode_frames(self.codec, waveform, num_samples, self.num_codebooks)

    @property
    def _end_frame(self) -> Frame:
        """What ends speech."""
        return [self.stop_ids[0]] * self.num_codebooks

    def _prompt_ids(self, row: Utterance, num_frames: int) -> list[int]:
        """A prompt in the checkpoint's own chat format, its audio as placeholders."""
        role = str(row.extra.get("speaker_id", 0))
        prompt_text = str(row.extra.get("prompt_text") or "")
        if num_frames and not prompt_text.strip():
            raise ValueError(
                f"row {row.id!r}: a speaker prompt without its text; give what it says as 'prompt_text'"
            )

        turns = []
        if num_frames:
            said = {"type": "text", "text": prompt_text}
            turns.append({"role": role, "content": [said, {"type": "audio"}]})
        turns.append({"role": role, "content": [{"type": "text", "text": row.text}]})

        try:
            # Neither text may hold a control token, nor what the tokenizer does not know.
            for text in (row.text, *([prompt_text] if num_frames else [])):
                text_ids(self.tokenizer, text)
            rendered = str(self.processor.apply_chat_template(turns, tokenize=False))
        except ValueError as error:
            raise ValueError(f"row {row.id!r}: {error}") from error

        ids: list[int] = []
        for token in self.tokenizer.encode(rendered, add_special_tokens=False):
            is_audio = token == self.model.config.audio_token_id
            ids += [token] * (num_frames if is_audio else 1)
        if len(ids) >= self.max_positions:
            raise ValueError(
                f"row {row.id!r}: text and speaker prompt are {len(ids)} tokens; the model reads {self.max_positions}, "
                "speech included. Shorten them (limits.max_prompt_s)"
            )
        return ids

    @property
    def max_positions(self) -> int:
        """Most tokens that the model reads, prompt and speech together."""
        return int(self.model.config.max_position_embeddings)

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> CsmContext:
        """Prompts for ``seconds`` of speech each; a frame of the speaker prompt counts as a token."""
        if text_tokens is None:
            frame_rate_hz = self.codec.config.frame_rate
            text_tokens = _USUAL_TEXT_TOKENS + round(_USUAL_PROMPT_S * frame_rate_hz)
        return CsmContext(
            ids=[str(number) for number in range(num_prompts)],
            durations_s=[seconds] * num_prompts,
            tokens=[[self._fill] * text_tokens] * num_prompts,
            frames=[[]] * num_prompts,
            text_lengths=[round(_USUAL_CHARACTERS_PER_SECOND * seconds)] * num_prompts,
            target_frames=[[]] * num_prompts,
        )

    @property
    def _placeholders(self) -> list[int]:
        """Tokens in whose places frames stand."""
        config = self.model.config
        return [config.audio_token_id, config.audio_eos_token_id]

    @property
    def _fill(self) -> int:
        """Any token that is no placeholder, for padding."""
        return next(token for token in range(3) if token not in self._placeholders)

    def prompt(self, context: CsmContext, side: Side) -> tuple[Tensor, Tensor]:
        device = self.allowed.device
        ids, mask = padded(context.tokens, self._fill, device, side)
        embeds = self.model.embed_text_tokens(ids)
        frames = [frame for row in context.frames for frame in row]
        if not frames:
            return embeds, mask

        is_frame = torch.isin(ids, torch.tensor(self._placeholders, device=device))
        heard = self.embed(torch.tensor(frames, device=device)[None])[0]
        return embeds.masked_scatter(is_frame[..., None], heard.to(embeds.dtype)), mask

    # --- rollout and update

    @property
    def usual_tokens_per_second(self) -> float:  # type: ignore[override]
        """Speech may take twice the time that the rows give before it is cut."""
        return 2 * float(self.codec.config.frame_rate)

    def caps(self, context: CsmContext, decoding: Decoding) -> list[int]:
        caps = super().caps(context, decoding)
        lengths = context.prompt_lengths
        return self.limits.capped(caps, context.text_lengths, lengths, self.max_positions)

    def prefill(self, context: CsmContext) -> FrameState:  # type: ignore[override]
        prefix = super().prefill(context)
        return FrameState(prefix, self.model.depth_decoder, self.allowed, self.stop_ids[0])

    @torch.no_grad()
    def sample(
        self, context: CsmContext, group_size: int, decoding: Decoding, key: SampleKey
    ) -> Rollout:
        caps = self.caps(context, decoding)
        with self.evaluating():
            state = self.prefill(context)
            state.expand(group_size)
            state.decoding = self._of_depth(decoding)
            state.uniforms = self._uniforms(context.ids, group_size, caps, key)

            ids = context.ids
            rollout = sampling.sample(
                state, self.head, self.stop_ids, ids, group_size, caps, decoding, key, state.ends
            )
        return replace(rollout, following=state.following(rollout.keep))

    def _of_depth(self, decoding: Decoding) -> Decoding:
        """How the codes that follow are drawn."""
        if self.depth_temperature is None:
            return decoding
        return replace(decoding, temperature=self.depth_temperature)

    def _uniforms(
        self, ids: Sequence[str], group_size: int, caps: Sequence[int], key: SampleKey
    ) -> Tensor:
        """[B*G, most frames, C - 1] draws of the codes that follow, keyed as those of the first."""
        num_following = self.num_codebooks - 1
        most = [cap * num_following for cap in caps]
        of_depth = replace(key, purpose=f"{key.purpose}/depth")
        draws = sampling.keyed_uniforms(ids, group_size, most, of_depth)
        return draws.unflatten(1, (-1, num_following)).to(self.allowed.device)

    def hidden(self, context: CsmContext, rollout: Rollout) -> Tensor:
        # The last frame predicts nothing.
        layout, inputs = self.packed(context, whole_frames(rollout)[:, :, :-1])
        return self._predicting(layout, inputs)

    # --- from frames to speech

    def targets(self, context: CsmContext, texts: Sequence[str]) -> Rollout:
        """The recordings that `encode` found, as a rollout of G=1; ``texts`` are in the prompts already.

        Raises:
            ValueError: for a row without a recording.
        """
        for name, frames in zip(context.ids, context.target_frames, strict=True):
            if not frames:
                raise ValueError(
                    f"row {name!r}: no recording of its text to learn from; supervised training wants one "
                    "('target' in the manifest)"
                )

        rows = [[*frames, self._end_frame] for frames in context.target_frames]
        return targets_of_frames(rows, self.allowed.device)

    @torch.no_grad()
    def decode(self, rollout: Rollout, context: CsmContext) -> list[list[Speech]]:  # type: ignore[override]
        """Speech of each sample; an empty waveform where the model gave no frame. Its codes are the first ones."""
        group_size = rollout.tokens.shape[1]
        # The frame that ends speech is none to be heard.
        lengths = (rollout.lengths - rollout.finished.long()).flatten().tolist()
        frames = whole_frames(rollout).flatten(0, 1).tolist()
        rows = [row[:length] for row, length in zip(frames, lengths, strict=True)]

        device = self.allowed.device
        speech = decode_frames(self.codec, rows, device, self.limits.codec_batch_size)
        return [speech[i : i + group_size] for i in range(0, len(speech), group_size)]

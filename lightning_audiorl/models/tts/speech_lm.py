"""Text to speech: a causal language model speaks in the codes of a codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torchaudio.functional import resample
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_audiorl.codecs.base import Codec, SpeakerCondition
from lightning_audiorl.fields import Checked, Shape
from lightning_audiorl.models.decoding.tokens import padded, targets_of
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family, TokenizerOutline
from lightning_audiorl.models.policy import SampleKey, SpeechPolicy
from lightning_audiorl.models.tiny_base import character_tokenizer, word_tokenizer
from lightning_audiorl.models.tts.biased_head import AnyCausalLM
from lightning_audiorl.models.tts.causal_lm import CausalLMPolicy
from lightning_audiorl.models.tts.codes import decode_rows, encode_clips
from lightning_audiorl.models.tts.context import SpeechContext
from lightning_audiorl.models.tts.limits import SpeechLimits
from lightning_audiorl.models.tts.templates import PlainTemplate, SpeechTemplate
from lightning_audiorl.models.tts.text_lm import TinyCausalLM
from lightning_audiorl.types import Decoding, PromptBatch, Rollout, Speech, Utterance

# Of a prompt in a plan: tokens of its text, seconds of the speaker's voice, and how fast the text is read.
_USUAL_TEXT_TOKENS = 50
_USUAL_PROMPT_S = 3.0
_USUAL_CHARACTERS_PER_SECOND = 15.0


@dataclass(frozen=True)
class TinySpeechLM(TinyCausalLM):
    """Sizes of a tiny `LlamaForCausalLM` that speaks; the same seed gives the same weights.

    Args:
        words: the text vocabulary, one token each; not read where there are ``characters``.
        width: hidden size.
        layers: number of layers.
        max_positions: most tokens, prompt included.
        seed: keys the initial weights.
        num_codes: the codec's cardinality.
        characters: the text vocabulary as characters, one token each, the space among them where texts have any.
    """

    layers: int = 4
    max_positions: int = 1024
    num_codes: int = 512
    characters: str = ""

    def build(self) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
        """A random model, and its tokenizer for `PlainTemplate`."""
        codes = [PlainTemplate.speech_token.format(code) for code in range(self.num_codes)]
        more_special = [PlainTemplate.speech_start, *codes]
        if self.characters:
            tokenizer = character_tokenizer(self.characters, more_special)
        else:
            tokenizer = word_tokenizer(self.words, more_special)
        return self._llama(tokenizer, "tiny_speech"), tokenizer


@dataclass(frozen=True)
class SpeakerPrompt(Checked):
    """A recording of the voice to speak with.

    Example:
        >>> speaker = SpeakerPrompt(torch.zeros(16000), 16000, text="one two")

    Args:
        waveform: [S] float32.
        sample_rate_hz: of the waveform.
        text: its transcript.
    """

    waveform: Annotated[Tensor, Shape("S")]
    sample_rate_hz: int
    text: str


class SpeechLMPolicy(CausalLMPolicy[SpeechContext], SpeechPolicy[SpeechContext]):
    """A causal language model over text and speech tokens, and the codec that its tokens belong to.

    The text to speak is ``row.text``; the batch's audio are speaker prompts, ``row.extra["prompt_text"]`` is what they
    say. ``num_encoded`` counts the clips that the codec encoded.

    The codec is frozen. Checkpoints and exports do not hold it; its content is part of what the start's hash is taken
    of, so that a run cannot go on with another one.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        codec: with one codebook, of as many codes as the language model has speech tokens.
        template: the prompt format; default that of the tiny system.
        finetune: what trains; encoder and projector there are none.
        limits: of lengths and speaker prompts.
        dtype: of the language model's weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any;
            a fit refuses other trained weights in less.
        revision: hub revision of the language model.
    """

    family = Family(TinySpeechLM, AnyCausalLM, AutoTokenizer)

    def __init__(
        self,
        init_from: str | TinySpeechLM,
        codec: Codec,
        template: SpeechTemplate | None = None,
        finetune: Finetune | None = None,
        limits: SpeechLimits | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        codec.require_one_codebook()
        self._load(init_from, dtype, revision)
        self.template = template or PlainTemplate()
        self.limits = limits or SpeechLimits()
        # Behind the model, and before the start's checkpoints: its content is part of what their hash is of.
        self.codec = codec.freeze()
        self._make_ready(finetune)

    def _vocabulary(self) -> tuple[list[int], Tensor]:
        cardinality = self.codec.cardinality
        vocab_size = self.model.config.vocab_size
        if isinstance(self.tokenizer, TokenizerOutline):
            speech = self.template.outline(cardinality, vocab_size)
        else:
            speech = self.template.speech_tokens(self.tokenizer, cardinality, vocab_size)

        self.register_buffer("code_to_token", speech.code_to_token, persistent=False)
        self.register_buffer("token_to_code", speech.token_to_code, persistent=False)
        # An export ends where this policy ends, not where the text does.
        self.model.generation_config.eos_token_id = speech.stop_ids
        return speech.stop_ids, speech.allowed

    def parts(self) -> dict[str, list[nn.Module]]:
        return {**super().parts(), "codec": [self.codec]}

    # --- from text and speaker prompt to token ids

    def encode(self, batch: PromptBatch) -> SpeechContext:
        self.limits.check_prompts(batch, self.codec.sample_rate_hz)
        prompt_codes = self._codes(batch.waveform, batch.num_samples)
        target_codes: list[list[int]] = [[] for _ in batch.rows]
        if batch.target_waveform is not None and batch.target_num_samples is not None:
            target_codes = self._codes(batch.target_waveform, batch.target_num_samples)

        # The audio goes to host memory: the decoder of a codec may want it, nothing else does.
        return SpeechContext(
            batch.ids,
            [row.duration_s for row in batch.rows],
            [
                self._prompt_ids(row, codes)
                for row, codes in zip(batch.rows, prompt_codes, strict=True)
            ],
            [len(row.text) for row in batch.rows],
            prompt_codes,
            target_codes,
            batch.waveform.float().cpu(),
            batch.num_samples.cpu(),
        )

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> SpeechContext:
        """Prompts for ``seconds`` of speech each, as `encode` makes them; the speaker prompts' audio is left out."""
        if text_tokens is None:
            text_tokens = _USUAL_TEXT_TOKENS + round(_USUAL_PROMPT_S * self.codec.frame_rate_hz)
        return SpeechContext(
            ids=[str(number) for number in range(num_prompts)],
            durations_s=[seconds] * num_prompts,
            tokens=[[self.stop_ids[0]] * text_tokens] * num_prompts,
            text_lengths=[round(_USUAL_CHARACTERS_PER_SECOND * seconds)] * num_prompts,
            prompt_codes=[[]] * num_prompts,
            target_codes=[[]] * num_prompts,
            prompt_waveform=torch.zeros(num_prompts, 0),
            prompt_num_samples=torch.zeros(num_prompts, dtype=torch.long),
        )

    def _prompt_ids(self, row: Utterance, prompt_codes: list[int]) -> list[int]:
        prompt_text = row.extra.get("prompt_text") or ""
        # Named only where there is one: a template of one's own may know none.
        how = {"instruction": str(row.extra["instruction"])} if row.extra.get("instruction") else {}
        try:
            ids = self.template.prompt_ids(
                self.tokenizer,
                row.text,
                str(prompt_text) if prompt_codes else "",
                prompt_codes,
                **how,
            )
        except ValueError as error:
            raise ValueError(f"row {row.id!r}: {error}") from error

        if len(ids) >= self.max_positions:
            raise ValueError(
                f"row {row.id!r}: text and speaker prompt are {len(ids)} tokens; the model reads {self.max_positions}, "
                "speech included. Shorten them (limits.max_prompt_s)"
            )
        return ids

    @property
    def max_positions(self) -> int:
        """Most tokens that the model reads, prompt and speech together."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 2**31)

    def _codes(self, waveform: Tensor, num_samples: Tensor) -> list[list[int]]:
        """The codes of each clip, counted."""
        self.num_encoded += int((num_samples > 0).sum())
        return encode_clips(self.codec, waveform, num_samples, self.limits.codec_batch_size)

    @property
    def usual_tokens_per_second(self) -> float:  # type: ignore[override]
        """Speech may take twice the time that the rows give before it is cut."""
        return 2 * self.codec.frame_rate_hz

    def caps(self, context: SpeechContext, decoding: Decoding) -> list[int]:
        caps = super().caps(context, decoding)
        lengths = context.prompt_lengths
        return self.limits.capped(caps, context.text_lengths, lengths, self.max_positions)

    # --- from tokens to speech

    def targets(self, context: SpeechContext, texts: Sequence[str]) -> Rollout:
        """The recordings that `encode` found, as a rollout of G=1; ``texts`` are in the prompts already.

        Raises:
            ValueError: for a row without a recording.
        """
        for name, codes in zip(context.ids, context.target_codes, strict=True):
            if not codes:
                raise ValueError(
                    f"row {name!r}: no recording of its text to learn from; supervised training wants one "
                    "('target' in the manifest)"
                )

        stop_id = self.stop_ids[0]
        rows = [[*self.code_to_token[codes].tolist(), stop_id] for codes in context.target_codes]
        return targets_of(rows, stop_id, self.allowed.device)

    @torch.no_grad()
    def decode(self, rollout: Rollout, context: SpeechContext) -> list[list[Speech]]:  # type: ignore[override]
        """Speech of each sample; an empty waveform where the model gave no code."""
        group_size = rollout.tokens.shape[1]
        # -1 where there is no code: behind the end, and the stop token itself.
        spoken = torch.where(rollout.keep, self.token_to_code[rollout.tokens], -1).flatten(0, 1)
        rows = [_codes_of(row) for row in spoken.tolist()]

        condition = self._condition(context, group_size)
        speech = decode_rows(
            self.codec, rows, condition, spoken.device, self.limits.codec_batch_size
        )
        return [speech[i : i + group_size] for i in range(0, len(speech), group_size)]

    def _condition(self, context: SpeechContext, group_size: int) -> SpeakerCondition | None:
        """The speaker prompts for the codec's decoder, one per sample; None where no row has one."""
        if not any(context.prompt_codes):
            return None

        codes, keep = padded(context.prompt_codes, 0, torch.device("cpu"), "right")
        condition = SpeakerCondition(
            context.prompt_waveform,
            context.prompt_num_samples,
            self.codec.sample_rate_hz,
            codes,
            keep.sum(-1),
        )
        # The G samples of a prompt are neighbours.
        return condition.select([row // group_size for row in range(len(context) * group_size)])

    def synthesize(
        self,
        text: str,
        speaker: SpeakerPrompt | None = None,
        decoding: Decoding | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Say one text, for notebooks.

        Args:
            text: to be spoken.
            speaker: the voice; None leaves it to the model.
            decoding: default temperature 0.8, up to 2,048 tokens and the policy's own limits.
            seed: keys the draws, together with the text.

        Returns:
            Waveform [S] float32 on the CPU at ``codec.output_sample_rate_hz``.
        """
        decoding = decoding or Decoding(temperature=0.8, max_new_tokens=2048, min_cap=2048)

        rate_hz = self.codec.sample_rate_hz
        waveform = torch.zeros(1, 0)
        extra = {}
        if speaker is not None:
            waveform = resample(speaker.waveform.float(), speaker.sample_rate_hz, rate_hz)[None]
            extra = {"prompt_text": speaker.text}
        row = Utterance(text, (), text, 0.0, extra=extra)
        batch = PromptBatch(waveform, torch.tensor([waveform.shape[1]]), rate_hz, (row,)).to(
            self.allowed.device
        )

        context = self.encode(batch)
        rollout = self.sample(context, 1, decoding, SampleKey(seed, 0, "synthesize"))
        return self.decode(rollout, context)[0][0].waveform


def _codes_of(row: list[int]) -> list[int]:
    """The codes in a row, without its -1."""
    return [code for code in row if code >= 0]

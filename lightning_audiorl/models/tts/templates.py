"""How text, a speaker prompt and speech codes become token ids: one small class per published format."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl.fields import Checked, Shape

_CONTROL_TOKEN = re.compile(r"<\|[^<>|]+\|>")


@dataclass(frozen=True)
class SpeechTokens(Checked):
    """The speech vocabulary of a language model with V tokens, for a codec with N codes.

    Example: V=6, N=2, speech tokens 3 and 4, stop token 5.
        >>> speech = PlainTemplate().outline(cardinality=2, vocab_size=6)
        >>> speech.code_to_token
        tensor([3, 4])
        >>> speech.token_to_code
        tensor([-1, -1, -1,  0,  1, -1])
        >>> speech.allowed.int()
        tensor([0, 0, 0, 1, 1, 1], dtype=torch.int32)

    Args:
        code_to_token: [N] int64 token of each code.
        token_to_code: [V] int64 code of each token, -1 where it is none.
        stop_ids: tokens that end speech; the first one ends training targets.
        allowed: [V] bool, the tokens that may be sampled: speech and stop.
    """

    code_to_token: Annotated[Tensor, Shape("N")]
    token_to_code: Annotated[Tensor, Shape("V")]
    stop_ids: list[int]
    allowed: Annotated[Tensor, Shape("V")]


class SpeechTemplate(ABC):
    """One prompt format.

    Attributes:
        speech_token: name of a code's token, the code in place of ``{}``.
        stop_tokens: that end speech, by name.
    """

    speech_token: str = "<|s_{}|>"
    stop_tokens: tuple[str, ...] = ("<|SPEECH_GENERATION_END|>",)

    def prompt_ids(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        prompt_text: str = "",
        prompt_codes: Sequence[int] = (),
        instruction: str = "",
    ) -> list[int]:
        """Token ids up to the place where speech begins.

        Args:
            tokenizer: of the language model.
            text: to be spoken.
            prompt_text: transcript of the speaker prompt.
            prompt_codes: the speaker prompt in codes; without any the model chooses the voice.
            instruction: how to speak, for templates that know such; "" gives none.

        Raises:
            ValueError: for text that is empty, outside the vocabulary or with control tokens in it; for a speaker
                prompt with codes but no text, or the other way round.
        """
        if len(prompt_codes) and not prompt_text.strip():
            raise ValueError(
                "the speaker prompt has audio but no text; give what it says as 'prompt_text'"
            )
        if prompt_text.strip() and not len(prompt_codes):
            raise ValueError(f"the speaker prompt has a text ({prompt_text!r}) but no audio")
        ids = self._prompt_ids(
            tokenizer, text, prompt_text, self._code_ids(tokenizer, prompt_codes)
        )
        return self._instructed(tokenizer, ids, instruction) if instruction.strip() else ids

    def _instructed(
        self, tokenizer: PreTrainedTokenizerBase, ids: list[int], instruction: str
    ) -> list[int]:
        """``ids`` with an instruction; ValueError where the format has no place for one."""
        raise ValueError(
            f"{type(self).__name__} has no place for an instruction; take the field `instruction` out of the row"
        )

    @abstractmethod
    def _prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, text: str, prompt_text: str, prompt_ids: list[int]
    ) -> list[int]:
        """Token ids up to where speech begins, the speaker prompt's codes given as tokens; without a speaker prompt
        ``prompt_text`` and ``prompt_ids`` are empty."""

    def _code_ids(self, tokenizer: PreTrainedTokenizerBase, codes: Sequence[int]) -> list[int]:
        return [token_id(tokenizer, self.speech_token.format(code)) for code in codes]

    def speech_tokens(
        self, tokenizer: PreTrainedTokenizerBase, cardinality: int, vocab_size: int
    ) -> SpeechTokens:
        """The speech vocabulary.

        Args:
            tokenizer: of the language model.
            cardinality: N, codes of the codec.
            vocab_size: V, rows of the model's embedding.

        Raises:
            ValueError: where the tokenizer has another number of speech tokens than the codec has codes, where the
                model has no row for one of them, or where a stop token is missing.
        """
        # Counted by name, so that a tokenizer made for another codec is noticed.
        vocabulary = tokenizer.get_vocab()
        ids: list[int] = []
        while (token := vocabulary.get(self.speech_token.format(len(ids)))) is not None:
            ids.append(token)
        if len(ids) != cardinality:
            raise ValueError(
                f"{type(self).__name__}: the codec has {cardinality} codes, the language model's tokenizer "
                f"{len(ids)} speech tokens ({self.speech_token.format(0)}, ...); give the codec that the language "
                "model was trained with, or the template of its family"
            )

        stop_ids = [token_id(tokenizer, name) for name in self.stop_tokens]
        if max(*ids, *stop_ids) >= vocab_size:
            raise ValueError(
                f"{type(self).__name__}: speech and stop tokens have ids up to {max(*ids, *stop_ids)}, the language "
                f"model only {vocab_size} tokens; resize its embedding to the tokenizer"
            )
        return _speech_tokens(ids, stop_ids, vocab_size)

    def outline(self, cardinality: int, vocab_size: int) -> SpeechTokens:
        """A speech vocabulary of the right size, where there is no tokenizer: the ids are taken from the end.

        Raises:
            ValueError: where the model has fewer tokens than that takes.
        """
        num_stops = len(self.stop_tokens)
        start = vocab_size - cardinality - num_stops
        if start < 0:
            raise ValueError(
                f"{type(self).__name__}: the codec has {cardinality} codes, the language model only {vocab_size} "
                "tokens; give the codec that the language model was trained with"
            )
        ids = list(range(start, start + cardinality))
        stop_ids = list(range(start + cardinality, vocab_size))
        return _speech_tokens(ids, stop_ids, vocab_size)


def _speech_tokens(ids: list[int], stop_ids: list[int], vocab_size: int) -> SpeechTokens:
    """The speech vocabulary whose codes have the tokens ``ids``."""
    token_to_code = torch.full((vocab_size,), -1)
    token_to_code[ids] = torch.arange(len(ids))
    allowed = token_to_code >= 0
    allowed[stop_ids] = True
    return SpeechTokens(torch.tensor(ids), token_to_code, stop_ids, allowed)


def token_id(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """The id of one token by its name; ValueError where the tokenizer has none."""
    found: Any = tokenizer.convert_tokens_to_ids(name)
    if found is None or (found == tokenizer.unk_token_id and name != tokenizer.unk_token):
        raise ValueError(
            f"the tokenizer has no token {name!r}: the template belongs to another family of models"
        )
    return int(found)


def checked_text(text: str) -> str:
    """``text``; ValueError where it is empty, or where control tokens in it would break the format."""
    if not text.strip():
        raise ValueError("the text is empty; nothing can be spoken")
    control = _CONTROL_TOKEN.search(text)
    if control:
        raise ValueError(
            f"text {text!r} contains {control[0]!r}, which would be read as a control token; remove it"
        )
    return text


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of plain text; ValueError where a part of it is outside the vocabulary."""
    encoded = tokenizer(
        checked_text(text), add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast
    )
    ids: list[int] = list(encoded["input_ids"])

    # Only a fast tokenizer knows which part of the text a token is of.
    unknown = [i for i, token in enumerate(ids) if token == tokenizer.unk_token_id]
    if unknown or not ids:
        spans = encoded["offset_mapping"] if tokenizer.is_fast else []
        pieces = sorted({text[slice(*spans[i])] for i in unknown if spans})
        raise ValueError(
            f"text {text!r} is outside the tokenizer's vocabulary{f' ({pieces})' if pieces else ''}; normalise the "
            "text, or take a model that knows it"
        )
    return ids


class PlainTemplate(SpeechTemplate):
    """The format of the tiny system: the speaker prompt as a finished example, then the text to speak.

    ``<|im_start|> prompt text <|speech_start|> prompt codes <|im_end|> text <|speech_start|>``, and then the model's
    codes up to ``<|im_end|>``. The text stands right before its speech, however long the speaker prompt is.

    Example:
        >>> from lightning_audiorl.models import TinySpeechLM
        >>> _, tokenizer = TinySpeechLM(words=("one", "two"), width=8, layers=1, heads=1, num_codes=4).build()
        >>> ids = PlainTemplate().prompt_ids(tokenizer, "two", prompt_text="one", prompt_codes=[3, 0])
        >>> tokenizer.convert_ids_to_tokens(ids)[1:7]
        ['one', '<|speech_start|>', '<|s_3|>', '<|s_0|>', '<|im_end|>', 'two']
    """

    stop_tokens = ("<|im_end|>",)
    speech_start = "<|speech_start|>"

    def _prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, text: str, prompt_text: str, prompt_ids: list[int]
    ) -> list[int]:
        start = token_id(tokenizer, "<|im_start|>")
        speech = token_id(tokenizer, self.speech_start)
        stop = token_id(tokenizer, "<|im_end|>")
        example: list[int] = []
        if prompt_ids:
            example = [*text_ids(tokenizer, prompt_text), speech, *prompt_ids, stop]
        return [start, *example, *text_ids(tokenizer, text), speech]


class LlasaTemplate(SpeechTemplate):
    """Llasa (1B, 3B, 8B) with Xcodec2: the chat format of the tokenizer, texts and codes of both parts joined.

    User: ``Convert the text to speech:<|TEXT_UNDERSTANDING_START|>prompt text + text<|TEXT_UNDERSTANDING_END|>``;
    assistant, to be continued: ``<|SPEECH_GENERATION_START|><|s_..|>...``.
    Source: model cards HKUSTAudio/Llasa-1B, Llasa-3B, Llasa-8B (arXiv 2502.04128).

    Args:
        joiner: between prompt text and text; the card has none, its demo a space.
        date: that the Llama 3 chat format writes into its system part; today's date would make every day's prompts
            differ.
    """

    def __init__(self, joiner: str = "", date: str = "26 Jul 2024") -> None:
        self.joiner = joiner
        self.date = date

    def _prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, text: str, prompt_text: str, prompt_ids: list[int]
    ) -> list[int]:
        spoken = checked_text(text)
        if prompt_ids:
            spoken = checked_text(prompt_text) + self.joiner + spoken
        user = f"Convert the text to speech:<|TEXT_UNDERSTANDING_START|>{spoken}<|TEXT_UNDERSTANDING_END|>"
        chat = [
            {"role": "user", "content": user},
            {"role": "assistant", "content": "<|SPEECH_GENERATION_START|>"},
        ]
        rendered = tokenizer.apply_chat_template(
            chat, tokenize=False, continue_final_message=True, date_string=self.date
        )
        return [*text_ids_of_rendered(tokenizer, str(rendered)), *prompt_ids]


def text_ids_of_rendered(tokenizer: PreTrainedTokenizerBase, rendered: str) -> list[int]:
    """Token ids of a rendered chat, its control tokens read as such; no further start token."""
    return list(tokenizer.encode(rendered, add_special_tokens=False))


class NeuTTSTemplate(SpeechTemplate):
    """NeuTTS Air with NeuCodec: phonemes of prompt text and text, then the prompt's codes.

    ``user: Convert the text to speech:<|TEXT_PROMPT_START|>phonemes<|TEXT_PROMPT_END|>\\nassistant:``
    ``<|SPEECH_GENERATION_START|><|speech_..|>...``.
    Source: model card neuphonic/neutts-air and its reference implementation (repository neuphonic/neutts-air).

    Args:
        phonemise: turns a text into IPA with stress and punctuation, as espeak's ``en-us`` voice does; None where the
            manifest's texts are phonemes already, whose rows then have ``spoken_text``: what judges are to hear.
    """

    speech_token = "<|speech_{}|>"

    def __init__(self, phonemise: Callable[[str], str] | None = None) -> None:
        self.phonemise = phonemise

    def _phonemes(self, text: str) -> str:
        phonemes = self.phonemise(text) if self.phonemise else text
        return " ".join(phonemes.split())

    def _prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, text: str, prompt_text: str, prompt_ids: list[int]
    ) -> list[int]:
        parts = [prompt_text, text] if prompt_ids else [text]
        phonemes = " ".join(self._phonemes(checked_text(part)) for part in parts)
        return [
            *text_ids(tokenizer, "user: Convert the text to speech:"),
            token_id(tokenizer, "<|TEXT_PROMPT_START|>"),
            *text_ids(tokenizer, phonemes),
            token_id(tokenizer, "<|TEXT_PROMPT_END|>"),
            *text_ids(tokenizer, "\nassistant:"),
            token_id(tokenizer, "<|SPEECH_GENERATION_START|>"),
            *prompt_ids,
        ]


class CosyVoice2Template(SpeechTemplate):
    """The language model of CosyVoice 2 converted to Hugging Face layout, its speech vocabulary appended to Qwen2's.

    ``<|sos|>prompt text, text<|task_id|><|s_..|>...``; any of three tokens ends speech, the first one in training.
    Prompt text and text are tokenised apart, as the model's own inference does. An instruction stands before them, as
    ``<|sos|>instruction<|endofprompt|>prompt text, text...``.
    Source: the conversion in repository FunAudioLLM/CosyVoice (examples/grpo/cosyvoice2), arXiv 2412.10117.
    """

    stop_tokens = ("<|eos1|>", "<|eos2|>", "<|eos3|>")

    def _prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, text: str, prompt_text: str, prompt_ids: list[int]
    ) -> list[int]:
        spoken = text_ids(tokenizer, text)
        if prompt_ids:
            spoken = [*text_ids(tokenizer, prompt_text), *spoken]
        return [
            token_id(tokenizer, "<|sos|>"),
            *spoken,
            token_id(tokenizer, "<|task_id|>"),
            *prompt_ids,
        ]

    def _instructed(
        self, tokenizer: PreTrainedTokenizerBase, ids: list[int], instruction: str
    ) -> list[int]:
        start, *others = ids
        end = token_id(tokenizer, "<|endofprompt|>")
        return [start, *text_ids(tokenizer, instruction), end, *others]

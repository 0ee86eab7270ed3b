"""Hotwords on their way into a prompt: checked, cut to the room there is, refused where there is no place for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TypeVar

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl.languages import english_name
from lightning_audiorl.types import Utterance

_log = logging.getLogger(__name__)

#: Between two words of a list, where a family's chat template does not write them itself.
SEPARATOR = ", "


def refuse_hotwords(rows: Iterable[Utterance], family: str, why: str) -> None:
    """See that no row has hotwords, of a family whose prompt has no place for them.

    Args:
        rows: of a batch.
        family: class of the policy.
        why: it takes none, and what to do.

    Raises:
        ValueError: naming the first row that has some.

    Example:
        >>> row = Utterance("a", (), "call anna", 1.0, extra={"hotwords": ["anna"]})
        >>> refuse_hotwords([row], "CanaryPolicy", "its prompt is control tokens alone")
        Traceback (most recent call last):
            ...
        ValueError: row 'a' has 1 hotwords, and CanaryPolicy takes none: its prompt is control tokens alone
    """
    for row in rows:
        if row.hotwords:
            raise refusal(row, family, why)


def refusal(row: Utterance, family: str, why: str) -> ValueError:
    """The error of a row whose hotwords a family cannot take; arguments as those of `refuse_hotwords`."""
    return ValueError(
        f"row {row.id!r} has {len(row.hotwords)} hotwords, and {family} takes none: {why}"
    )


def checked_words(row: Utterance, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The row's hotwords, each once.

    Raises:
        ValueError: for one that says nothing, that the tokenizer has no tokens for, or in which it finds a control
            token: a list shall not end the prompt.

    Example:
        >>> from lightning_audiorl.models.tiny import word_tokenizer
        >>> row = Utterance("a", (), "yes", 1.0, extra={"hotwords": ["yes", "no", "yes"]})
        >>> checked_words(row, word_tokenizer(["yes", "no"]))
        ['yes', 'no']
    """
    words = list(dict.fromkeys(row.hotwords))
    if not words:
        return []

    # Those that are not said to be special, too: <asr_text> of Qwen3-ASR is one.
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    tokens_of = tokenizer(words, add_special_tokens=False)["input_ids"]
    for word, tokens in zip(words, tokens_of, strict=True):
        if not word.strip() or not tokens or control & set(tokens):
            raise ValueError(
                f"row {row.id!r}: hotword {word[:60]!r} is empty, holds a control token, or is outside the tokenizer's "
                "vocabulary; remove it from the list"
            )
    return words


_PLACE = "{hotwords}"
_Asked = TypeVar("_Asked", str, "str | None")


def checked_instruction(family: str, instruction: _Asked) -> _Asked:
    """The setting itself, which has a place for the words.

    Raises:
        ValueError: where it has none.

    Example:
        >>> checked_instruction("GlmAsrPolicy", "Transcribe. Keywords: {hotwords}")
        'Transcribe. Keywords: {hotwords}'
    """
    if instruction is not None and _PLACE not in instruction:
        raise ValueError(
            f"{family}.hotwords: want an instruction with {_PLACE} in the place of the words, got {instruction!r}"
        )
    return instruction


def instruction_with(instruction: str | None, lang: str, words: Sequence[str]) -> str:
    """What is asked of a clip with hotwords.

    Args:
        instruction: the policy's setting.
        lang: code of the row's language.
        words: of the list.

    Raises:
        ValueError: where the setting is None.

    Example:
        >>> instruction_with("Transcribe {language}. Keywords: {hotwords}", "en", ["anna", "victor"])
        'Transcribe English. Keywords: anna, victor'
    """
    if instruction is None:
        raise ValueError(
            "its model card has no form for them; set the policy's hotwords to an instruction with {hotwords} in it, "
            "or leave `hotwords` out of the data"
        )
    asked = instruction.replace("{language}", english_name(lang))
    return asked.replace(_PLACE, SEPARATOR.join(words))


def check_reached(row: Utterance, words: Sequence[str], prompt: str, source: object) -> None:
    """See that every word stands in the text of a prompt.

    Args:
        row: whose prompt it is.
        words: of the list.
        prompt: that a chat template made.
        source: of the template.

    Raises:
        ValueError: naming the first word that the template left out.
    """
    for word in words:
        if word not in prompt:
            raise ValueError(
                f"row {row.id!r}: hotword {word!r} is not in the prompt that the chat template of {source} makes; copy "
                "chat_template.jinja from a model whose template has a place for hotwords, or leave them out"
            )


def check_room(row: Utterance, num_words: int, num_tokens: int, room: int) -> None:
    """See that a prompt with hotwords leaves positions for the clip and its transcript.

    Args:
        row: whose prompt it is.
        num_words: in its list.
        num_tokens: of the prompt's text.
        room: most tokens that it may have.

    Raises:
        ValueError: saying how many there are, and may be.
    """
    if num_words and num_tokens > room:
        raise ValueError(
            f"row {row.id!r}: {num_words} hotwords make a prompt of {num_tokens} tokens beside the clip, and {room}, a "
            "quarter of the language model's positions, are for them; give the row fewer (smaller sizes)"
        )


def first_words(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str], room: int
) -> tuple[list[int], int]:
    """Tokens of the words that fit, from the first on, and how many words that are.

    Example:
        >>> from lightning_audiorl.models.tiny import word_tokenizer
        >>> first_words(word_tokenizer(["yes,", "yes", "no,", "no"]), ["yes", "no", "yes"], room=2)
        ([5, 8], 2)
    """

    def tokens_of(num: int) -> list[int]:
        # Whisper's own text begins with a space.
        text = f" {SEPARATOR.join(words[:num])}" if num else ""
        return list(tokenizer.encode(text, add_special_tokens=False))

    tokens = tokens_of(len(words))
    if len(tokens) <= room:
        return tokens, len(words)

    # By halves: longer lists have more tokens.
    fits = 0
    too_many = len(words)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if len(tokens_of(middle)) <= room:
            fits = middle
        else:
            too_many = middle
    return tokens_of(fits), fits


class CutHotwords:
    """Counts hotwords that prompts had no room for, and says so: the first time, and each time that the count doubles.

    Attributes:
        words: left out so far.
        rows: that they were left out of.

    Example:
        >>> cut = CutHotwords()
        >>> cut.add(Utterance("a", (), "call anna", 1.0), num_words=3, room=223)
        >>> cut.words, cut.rows
        (3, 1)
    """

    def __init__(self) -> None:
        self.words = 0
        self.rows = 0
        self._say_from = 1

    def add(self, row: Utterance, num_words: int, room: int) -> None:
        """Count what a row's prompt leaves out; nothing where that is 0."""
        if not num_words:
            return
        self.words += num_words
        self.rows += 1
        if self.rows >= self._say_from:
            self._say_from = 2 * self.rows
            _log.warning(
                "hotwords: row %r leaves out %d, %d in %d rows so far: its prompt has room for %d tokens of them; give "
                "rows fewer to have all of them read",
                row.id,
                num_words,
                self.words,
                self.rows,
                room,
            )


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], placeholder: int | None = None
) -> str:
    """A prompt as text, control tokens and all; the places of a clip's frames are written once.

    Example:
        >>> from lightning_audiorl.models.tiny import word_tokenizer
        >>> prompt_text(word_tokenizer(["yes"]), [1, 3, 3, 3, 5, 1], placeholder=3)
        '<|im_start|> <|object_ref_start|> yes <|im_start|>'
    """
    kept: list[int] = []
    for token, run in groupby(tokens):
        kept += [token] if token == placeholder else list(run)
    # A placeholder may have no token of its own.
    known = [token for token in kept if token < len(tokenizer)]
    return str(tokenizer.decode(known, skip_special_tokens=False))

"""Rows of speech synthesis: a text to be spoken, the speaker prompt to speak it like, and a recording of it or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from lightning_audiorl.data.audio.effects import refuse_effects, source_ids
from lightning_audiorl.data.manifest.files import IndexedManifest
from lightning_audiorl.data.manifest.source import RowSource, check_index, joined_origin
from lightning_audiorl.data.manifest.targets import PROMPT_TEXT, TARGET, target_field
from lightning_audiorl.ops.randomness import keyed_uniform
from lightning_audiorl.types import Segment, Utterance

_NAMED_SPEAKERS = 20


def speech_row(
    row: Utterance,
    row_id: str,
    prompt: Utterance | None,
    duration_s: float,
    target: Sequence[Segment] = (),
) -> Utterance:
    """The text of ``row``, to be spoken in the voice of ``prompt``.

    Args:
        row: text, language, keywords and other fields are taken from it, its audio is not.
        row_id: id of the new row.
        prompt: a recording with its text; None for a row without speaker prompt. Fields that ``row`` lacks, such as
            the voice's gender or emotion, are the prompt's.
        duration_s: expected length of the speech to be made, in seconds.
        target: a recording of the text.

    Example:
        >>> text = Utterance(id="t1", segments=(), text="good morning", duration_s=0.9)
        >>> prompt = Utterance("p1", (Segment("/clips/ann.wav", 2.0),), "hello there", 2.0, speaker="ann")
        >>> row = speech_row(text, "t1+p1", prompt, duration_s=0.9)
        >>> row.text, row.speaker, row.segments[0].audio_filepath, row.extra
        ('good morning', 'ann', '/clips/ann.wav', {'prompt_text': 'hello there'})
    """
    fields = {**_fields_of_voice(prompt), **row.extra}
    # A target or prompt text that row or prompt already had belongs to what they were made of.
    extra = {key: value for key, value in fields.items() if key not in (TARGET, PROMPT_TEXT)}
    if prompt is not None:
        extra[PROMPT_TEXT] = prompt.text
    if target:
        extra[TARGET] = target_field(target)

    return Utterance(
        id=row_id,
        segments=() if prompt is None else prompt.segments,
        text=row.text,
        duration_s=round(duration_s, 4),
        lang=row.lang,
        speaker=row.speaker if prompt is None else prompt.speaker,
        keywords=row.keywords,
        effects=() if prompt is None else prompt.effects,
        extra=extra,
        origin=joined_origin(row, prompt),
    )


def _fields_of_voice(prompt: Utterance | None) -> dict[str, Any]:
    """Further fields of a prompt, which tell of its speaker; its sources are those of the prompt alone."""
    if prompt is None:
        return {}
    return {key: value for key, value in prompt.extra.items() if key != "sources"}


def with_sources(made: Utterance, *rows: Utterance) -> Utterance:
    """``made``, naming the rows that it is made of.

    Example:
        >>> text = Utterance(id="t1", segments=(), text="hello", duration_s=1.0)
        >>> with_sources(text, text).extra
        {'sources': ['t1']}
    """
    extra = {**made.extra, "sources": source_ids(*rows)}
    return replace(made, extra=extra)


def known_speaker(speaker: str, of_speaker: Mapping[str, list[int]], where: str) -> list[int]:
    """The numbers of a speaker's prompts.

    Raises:
        ValueError: no speaker is named, or there is no such speaker; begins with ``where``.

    Example:
        >>> known_speaker("ann", {"ann": [0, 2], "bob": [1]}, "row 't1'")
        [0, 2]
    """
    if speaker and speaker in of_speaker:
        return of_speaker[speaker]

    # A corpus may have thousands of speakers: the message names the first few.
    names = sorted(name for name in of_speaker if name)[:_NAMED_SPEAKERS]
    known = ", ".join(names) or "none with a name"
    problem = f"unknown speaker {speaker!r}" if speaker else "names no speaker"
    raise ValueError(
        f"{where}: {problem}; the prompts have {known}. Name one of them, or add a prompt of that speaker"
    )


class PromptedSpeech(RowSource):
    """Recordings with their texts as rows of speech synthesis: each prompted by another recording of its speaker.

    Args:
        recordings: rows with text and speaker, or the path of a JSONL manifest of such.
        prompts: where prompts are taken from, rows or a manifest; None takes ``recordings``.
        with_target: whether rows have the recording of their text (SFT); ``duration_s`` is its length either way.
        min_prompt_s: shortest prompt, in seconds.
        max_prompt_s: longest prompt.
        seed: another seed gives other prompts.

    Raises:
        ValueError: when a row is asked for: it has no speaker, one whom the prompts do not have, or one without another
            recording of such a length; with target: it has effects.
    """

    def __init__(
        self,
        recordings: RowSource | str,
        prompts: RowSource | str | None = None,
        with_target: bool = True,
        min_prompt_s: float = 1.0,
        max_prompt_s: float = 15.0,
        seed: int = 0,
    ) -> None:
        if not 0 < min_prompt_s <= max_prompt_s:
            raise ValueError(
                f"PromptedSpeech: want 0 < min_prompt_s <= max_prompt_s, got {min_prompt_s}, {max_prompt_s}"
            )

        self.recordings = IndexedManifest(recordings) if isinstance(recordings, str) else recordings
        others = IndexedManifest(prompts) if isinstance(prompts, str) else prompts
        self.prompts = self.recordings if others is None else others
        self.with_target = with_target
        self.min_prompt_s = min_prompt_s
        self.max_prompt_s = max_prompt_s
        self.seed = seed

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.recordings[check_index(index, len(self), self)]
        prompt = self._prompt(row)

        # Effects act on a row's audio, which is now the prompt's: the recording would be the target without them.
        target = refuse_effects(row, self).segments if self.with_target else ()
        made = speech_row(
            row,
            row_id=f"{row.id}+prompt-s{self.seed}",
            prompt=prompt,
            duration_s=row.duration_s,
            target=target,
        )
        return with_sources(made, row, prompt)

    @cached_property
    def _of_speaker(self) -> dict[str, list[int]]:
        """Row numbers of the prompts of each speaker that are neither too short nor too long."""
        found: dict[str, list[int]] = {}
        for number, prompt in enumerate(self.prompts):
            numbers = found.setdefault(prompt.speaker, [])
            if self.min_prompt_s <= prompt.duration_s <= self.max_prompt_s:
                numbers.append(number)
        return found

    def _prompt(self, row: Utterance) -> Utterance:
        """A drawn recording of the row's speaker, or the next one after it that is not the row itself."""
        where = f"PromptedSpeech: row {row.id!r}"
        numbers = known_speaker(row.speaker, self._of_speaker, where)

        share = float(keyed_uniform(1, "prompt", self.seed, row.id))
        start = int(len(numbers) * share)
        rotated = [*numbers[start:], *numbers[:start]]
        for number in rotated:
            prompt = self.prompts[number]
            if prompt.id != row.id:
                return prompt

        raise ValueError(
            f"{where}: speaker {row.speaker!r} has no other recording of {self.min_prompt_s} to "
            f"{self.max_prompt_s} s for a prompt; widen these limits, give more recordings, or remove the row"
        )

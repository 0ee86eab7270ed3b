"""A speech corpus that needs no download: sentences of small grammars, spoken by espeak-ng in many voices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from lightning_audiorl.data.corpora.espeak_chinese import CHINESE
from lightning_audiorl.data.corpora.espeak_speech import (
    SAMPLE_RATE_HZ,
    SILENCE,
    SpokenRows,
    default_cache_dir,
    speak_to_file,
)
from lightning_audiorl.data.corpora.grammar import Grammar, Part, sentence_part
from lightning_audiorl.data.draws import check_span, seconds, settings_name, whole
from lightning_audiorl.data.transforms.concatenate import join_texts
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Segment, Utterance

__all__ = [
    "CHINESE",
    "ENGLISH",
    "GRAMMARS",
    "NAMES",
    "PEOPLE",
    "PLACES",
    "SAMPLE_RATE_HZ",
    "SILENCE",
    "SLOTS",
    "TEMPLATES",
    "VOICES",
    "WORDS",
    "EspeakCorpus",
    "Lang",
    "Part",
    "default_cache_dir",
    "draw_sentence",
    "sentence_part",
    "slot_words",
    "speak_to_file",
]

Lang = Literal["en", "zh"]

PEOPLE = (
    "anna",
    "victor",
    "maria",
    "oscar",
    "helen",
    "peter",
    "julia",
    "simon",
    "clara",
    "martin",
    "emma",
    "lucas",
)
PLACES = (
    "paris",
    "london",
    "berlin",
    "madrid",
    "tokyo",
    "boston",
    "dublin",
    "vienna",
    "cairo",
    "lima",
)
NAMES = PEOPLE + PLACES
"""The words of special value: what ``keywords`` of a row is taken from."""

SLOTS: dict[str, tuple[str, ...]] = {
    "PERSON": PEOPLE,
    "PLACE": PLACES,
    "DAY": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "NUMBER": (
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ),
    "COLOUR": ("red", "blue", "green", "white", "black", "yellow"),
    "THING": ("book", "letter", "lamp", "key", "box", "phone", "map", "ticket", "table", "chair"),
    "ROOM": ("kitchen", "garden", "office", "hall"),
    "WHEN": ("now", "today", "tomorrow", "tonight"),
}
TEMPLATES = (
    # Three and four words.
    "call PERSON WHEN",
    "find PERSON WHEN",
    "leave PLACE WHEN",
    "go to PLACE WHEN",
    "meet PERSON in PLACE",
    "close room NUMBER WHEN",
    "bring the COLOUR THING",
    # Five.
    "PERSON is in PLACE WHEN",
    "tell PERSON to call PERSON",
    "bring the THING to PERSON",
    "meet PERSON at NUMBER WHEN",
    # Six.
    "call PERSON in PLACE at NUMBER",
    "send the COLOUR THING to PERSON",
    "is PERSON in PLACE on DAY",
    "give PERSON the THING from PLACE",
    "PERSON and PERSON are in PLACE",
    # Seven.
    "close the COLOUR window in room NUMBER",
    "wait for PERSON at the PLACE station",
    "the COLOUR THING is in room NUMBER",
    "put the COLOUR THING in the ROOM",
    "take the train from PLACE to PLACE",
    "ask PERSON for the COLOUR THING WHEN",
    "please open the COLOUR door on DAY",
    "turn off the COLOUR light in room NUMBER",
    # Eight.
    "please meet PERSON in PLACE at NUMBER WHEN",
    "show PERSON the COLOUR THING in the ROOM",
    "take the train to PLACE with PERSON WHEN",
    "send NUMBER or NUMBER tickets to PERSON WHEN",
)
"""Sentences with slots in capitals; each slot is filled by one word, so a template's length is its sentences'."""


VOICES: dict[Part, tuple[str, ...]] = {
    "train": (
        *("en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f2"),
        *(
            "en-gb",
            "en-gb+m2",
            "en-gb+m3",
            "en-gb+f1",
            "en-gb+f3",
            "en-gb-x-rp+m1",
            "en-gb-x-rp+f2",
            "en-us-nyc+m7",
        ),
    ),
    "dev": ("en-us+m4", "en-gb+f4", "en-gb-x-rp+m4", "en-us+f4"),
    "test": ("en-us+m5", "en-gb+m6", "en-us+f5", "en-gb+f5", "en-gb-scotland+m6"),
}
"""Default voices of each part: no voice and no variant is in two parts, and the Scottish accent is in test alone."""


ENGLISH = Grammar("en", TEMPLATES, SLOTS, NAMES, VOICES)
GRAMMARS: dict[Lang, Grammar] = {"en": ENGLISH, "zh": CHINESE}

WORDS = ENGLISH.words
"""Every word of the English sentences, in order of the alphabet."""


def slot_words(place: str) -> tuple[str, ...]:
    """The words that may stand at a place of an English template: those of a slot, or the word itself.

    Example:
        >>> slot_words("ROOM"), slot_words("call")
        (('kitchen', 'garden', 'office', 'hall'), ('call',))
    """
    return ENGLISH.choices(place)


def draw_sentence(
    generator: torch.Generator, part: Part, num_words: tuple[int, int], lang: Lang = "en"
) -> str:
    """A sentence of ``part`` with ``num_words`` (lowest, highest) words; no name twice.

    Raises:
        ValueError: the grammar has no such sentence.

    Example:
        >>> draw_sentence(torch.Generator().manual_seed(0), "train", (3, 4))
        'bring the yellow map'
        >>> draw_sentence(torch.Generator().manual_seed(0), "train", (3, 4), "zh")
        '打开六号房间'
    """
    return GRAMMARS[lang].draw(generator, part, num_words)


class EspeakCorpus(SpokenRows):
    """Rows of synthetic speech in English or Mandarin, each built when it is first asked for.

    Row i depends on its index and on every argument but ``num_rows`` and ``cache_dir``. Parts share no voice (by
    default) and no sentence. Short rows: the defaults. Medium: ``num_sentences=(2, 4)``. Long: also
    ``min_duration_s=20``. ``keywords`` are the names of people and places in the text; ``speaker`` is the voice.

    Args:
        part: whose sentences and default voices to use.
        num_rows: how many rows.
        num_sentences: (lowest, highest) sentences in a row, all by one voice.
        num_words: (lowest, highest) words in a sentence; the grammars have 3 to 8. A Chinese word has one to three
            characters.
        min_duration_s: sentences are added beyond the drawn number until the row is this long, in seconds.
        seed: another seed gives other rows, from the same sentences of that part.
        voices: espeak-ng voices to draw from, such as ``en-us+f2``; None means those of the language's grammar.
        rate_wpm: (lowest, highest) speed in words per minute, one draw for each row.
        pitch: (lowest, highest) pitch, 0 to 99, one draw for each row.
        gap_s: (lowest, highest) silence between sentences in seconds, in steps of 0.01.
        edge_s: (lowest, highest) silence added before the first and after the last sentence, in seconds.
        cache_dir: where sentences are kept as FLAC files; None means ``default_cache_dir()``.
        lang: en or zh.

    Raises:
        ImportError: the extra ``synth`` is not installed.
        ValueError: unknown language, part or voice, an empty range, or a number of words that the grammar lacks.
    """

    def __init__(
        self,
        part: Part = "train",
        num_rows: int = 1000,
        num_sentences: tuple[int, int] = (1, 1),
        num_words: tuple[int, int] = (3, 8),
        min_duration_s: float = 0.0,
        seed: int = 0,
        voices: Sequence[str] | None = None,
        rate_wpm: tuple[int, int] = (140, 190),
        pitch: tuple[int, int] = (35, 65),
        gap_s: tuple[float, float] = (0.1, 0.4),
        edge_s: tuple[float, float] = (0.0, 0.2),
        cache_dir: str | None = None,
        lang: Lang = "en",
    ) -> None:
        if lang not in GRAMMARS:
            raise ValueError(f"EspeakCorpus.lang: use one of {', '.join(GRAMMARS)}, got {lang!r}")
        if part not in VOICES:
            raise ValueError(f"EspeakCorpus: part must be one of {', '.join(VOICES)}, got {part!r}")

        super().__init__(
            num_rows=num_rows,
            voices=GRAMMARS[lang].voices[part] if voices is None else voices,
            rate_wpm=rate_wpm,
            pitch=pitch,
            gap_s=gap_s,
            edge_s=edge_s,
            cache_dir=cache_dir,
        )

        self.lang: Lang = lang
        self.part: Part = part
        self.num_sentences = check_span("EspeakCorpus.num_sentences", num_sentences, 1)
        self.num_words = check_span("EspeakCorpus.num_words", num_words, 1)
        # 20 and 20.0 are the same setting, so they have to make the same rows.
        self.min_duration_s = float(min_duration_s)
        # One sentence at once: a length that the grammar lacks is an error here, and not at the first row.
        draw_sentence(keyed_generator("probe"), part, self.num_words, lang)

        spans = (
            self.num_sentences,
            self.num_words,
            self.rate_wpm,
            self.pitch,
            self.gap_s,
            self.edge_s,
        )
        name = settings_name(seed, spans, self.min_duration_s, self.voices)
        # English was the first, and its rows keep their names.
        in_language = "" if lang == "en" else f"{lang}-"
        self._name = f"espeak-{in_language}{part}-{name}"

    def _build(self, row_id: str) -> Utterance:
        delivery = self._delivery(row_id)
        wanted = whole(self.num_sentences, delivery.u_length)
        generator = keyed_generator(row_id, "sentences")

        sentences: list[str] = []
        segments: list[Segment] = []
        while (
            len(sentences) < wanted
            or _length_s([*segments, *delivery.ending]) < self.min_duration_s
        ):
            if sentences:
                share = float(torch.rand(1, generator=generator))
                gap_s = seconds(self.gap_s, share)
            else:
                gap_s = delivery.start_s
            sentence = draw_sentence(generator, self.part, self.num_words, self.lang)
            segments.append(self._spoken(sentence, delivery, gap_s))
            sentences.append(sentence)
        segments += delivery.ending

        text = join_texts(sentences, self.lang)
        return Utterance(
            id=row_id,
            segments=tuple(segments),
            text=text,
            duration_s=_length_s(segments),
            lang=self.lang,
            speaker=delivery.voice,
            keywords=GRAMMARS[self.lang].names_in(text),
            extra=delivery.extra,
        )


def _length_s(segments: Sequence[Segment]) -> float:
    """Exact for whole samples at ``SAMPLE_RATE_HZ``."""
    lengths_s = [segment.gap_s + (segment.duration_s or 0.0) for segment in segments]
    return sum(round(length_s * SAMPLE_RATE_HZ) for length_s in lengths_s) / SAMPLE_RATE_HZ

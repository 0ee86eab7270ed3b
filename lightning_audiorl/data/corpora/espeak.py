"""A speech corpus that needs no download: sentences of a small grammar, spoken by espeak-ng in many voices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from lightning_audiorl.data.corpora.espeak_speech import (
    SAMPLE_RATE_HZ,
    SILENCE,
    SpokenRows,
    default_cache_dir,
    speak_to_file,
)
from lightning_audiorl.data.draws import check_span, pick, seconds, settings_name, whole
from lightning_audiorl.ops.randomness import key_to_seed, keyed_generator
from lightning_audiorl.types import Segment, Utterance

__all__ = [
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
    "Part",
    "default_cache_dir",
    "draw_sentence",
    "sentence_part",
    "slot_words",
    "speak_to_file",
]

Part = Literal["train", "dev", "test"]

#: Draws before the grammar is said to have no sentence of the wanted length and part.
_MAX_DRAWS = 10_000

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


def slot_words(place: str) -> tuple[str, ...]:
    """The words that may stand at a place of a template: those of a slot, or the word itself.

    Example:
        >>> slot_words("ROOM"), slot_words("call")
        (('kitchen', 'garden', 'office', 'hall'), ('call',))
    """
    return SLOTS.get(place, (place,))


def _grammar_words() -> tuple[str, ...]:
    words: set[str] = set()
    for template in TEMPLATES:
        for place in template.split():
            words.update(slot_words(place))
    return tuple(sorted(words))


WORDS = _grammar_words()
"""Every word of the grammar's sentences, in order of the alphabet."""

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


def sentence_part(sentence: str) -> Part:
    """The one part whose rows may hold this sentence, whatever the seed: 80 % train, 10 % dev, 10 % test.

    Example:
        >>> sentence_part("call anna now"), sentence_part("bring the red book")
        ('train', 'dev')
    """
    bucket = key_to_seed("espeak sentence", sentence) % 10
    if bucket < 8:
        return "train"
    return "dev" if bucket == 8 else "test"


def draw_sentence(generator: torch.Generator, part: Part, num_words: tuple[int, int]) -> str:
    """A sentence of ``part`` with ``num_words`` (lowest, highest) words; no name twice.

    Raises:
        ValueError: the grammar has no such sentence.

    Example:
        >>> draw_sentence(torch.Generator().manual_seed(0), "train", (3, 4))
        'bring the yellow map'
    """
    low, high = num_words
    templates = [template.split() for template in TEMPLATES]
    fitting = [template for template in templates if low <= len(template) <= high]

    for _ in range(_MAX_DRAWS if fitting else 0):
        # Always as many draws, so that what follows from this generator does not depend on the template.
        draws = torch.rand(16, generator=generator, dtype=torch.float64)
        u_template, *shares = draws.tolist()
        template = pick(fitting, u_template)
        words = [
            pick(slot_words(place), share) for place, share in zip(template, shares, strict=False)
        ]
        sentence = " ".join(words)

        filled = [word for word, place in zip(words, template, strict=True) if place in SLOTS]
        unique = len(set(filled)) == len(filled)
        if unique and sentence_part(sentence) == part:
            return sentence

    lengths = sorted({len(template) for template in templates})
    shortest = lengths[0]
    longest = lengths[-1]
    raise ValueError(
        f"espeak grammar: no {part} sentence has {num_words} words; it has {shortest} to {longest}"
    )


class EspeakCorpus(SpokenRows):
    """Rows of synthetic English speech, each built when it is first asked for.

    Row i depends on its index and on every argument but ``num_rows`` and ``cache_dir``. Parts share no voice (by
    default) and no sentence. Short rows: the defaults. Medium: ``num_sentences=(2, 4)``. Long: also
    ``min_duration_s=20``. ``keywords`` are the ``NAMES`` in the text; ``speaker`` is the voice.

    Args:
        part: whose sentences and default voices to use.
        num_rows: how many rows.
        num_sentences: (lowest, highest) sentences in a row, all by one voice.
        num_words: (lowest, highest) words in a sentence; the grammar has 3 to 8.
        min_duration_s: sentences are added beyond the drawn number until the row is this long, in seconds.
        seed: another seed gives other rows, from the same sentences of that part.
        voices: espeak-ng voices to draw from, such as ``en-us+f2``; None means ``VOICES[part]``.
        rate_wpm: (lowest, highest) speed in words per minute, one draw for each row.
        pitch: (lowest, highest) pitch, 0 to 99, one draw for each row.
        gap_s: (lowest, highest) silence between sentences in seconds, in steps of 0.01.
        edge_s: (lowest, highest) silence added before the first and after the last sentence, in seconds.
        cache_dir: where sentences are kept as FLAC files; None means ``default_cache_dir()``.

    Raises:
        ImportError: the extra ``synth`` is not installed.
        ValueError: unknown part or voice, an empty range, or a number of words that the grammar lacks.
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
    ) -> None:
        if part not in VOICES:
            raise ValueError(f"EspeakCorpus: part must be one of {', '.join(VOICES)}, got {part!r}")

        super().__init__(
            num_rows=num_rows,
            voices=VOICES[part] if voices is None else voices,
            rate_wpm=rate_wpm,
            pitch=pitch,
            gap_s=gap_s,
            edge_s=edge_s,
            cache_dir=cache_dir,
        )

        self.part: Part = part
        self.num_sentences = check_span("EspeakCorpus.num_sentences", num_sentences, 1)
        self.num_words = check_span("EspeakCorpus.num_words", num_words, 1)
        # 20 and 20.0 are the same setting, so they have to make the same rows.
        self.min_duration_s = float(min_duration_s)
        # One sentence at once: a length that the grammar lacks is an error here, and not at the first row.
        draw_sentence(keyed_generator("probe"), part, self.num_words)

        spans = (
            self.num_sentences,
            self.num_words,
            self.rate_wpm,
            self.pitch,
            self.gap_s,
            self.edge_s,
        )
        name = settings_name(seed, spans, self.min_duration_s, self.voices)
        self._name = f"espeak-{part}-{name}"

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
            sentence = draw_sentence(generator, self.part, self.num_words)
            segments.append(self._spoken(sentence, delivery, gap_s))
            sentences.append(sentence)
        segments += delivery.ending

        text = " ".join(sentences)
        names = [word for word in text.split() if word in NAMES]
        return Utterance(
            id=row_id,
            segments=tuple(segments),
            text=text,
            duration_s=_length_s(segments),
            speaker=delivery.voice,
            keywords=tuple(dict.fromkeys(names)),
            extra=delivery.extra,
        )


def _length_s(segments: Sequence[Segment]) -> float:
    """Exact for whole samples at ``SAMPLE_RATE_HZ``."""
    lengths_s = [segment.gap_s + (segment.duration_s or 0.0) for segment in segments]
    return sum(round(length_s * SAMPLE_RATE_HZ) for length_s in lengths_s) / SAMPLE_RATE_HZ

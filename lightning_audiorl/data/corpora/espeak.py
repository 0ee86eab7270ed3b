"""A speech corpus that needs no download: sentences of a small grammar, spoken by espeak-ng in many voices."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeVar

import soundfile
import torch
import torchaudio

from lightning_audiorl.data.corpora.espeak_engine import SAMPLE_RATE_HZ as ENGINE_RATE_HZ
from lightning_audiorl.data.corpora.espeak_engine import resolve_voice, synthesise
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.ops.randomness import key_to_seed, keyed_generator, keyed_uniform
from lightning_audiorl.types import Segment, Utterance

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)
Part = Literal["train", "dev", "test"]

SAMPLE_RATE_HZ = 16000
SILENCE = f"{PREFIX}silence"
PEOPLE = ("anna", "victor", "maria", "oscar", "helen", "peter", "julia", "simon", "clara", "martin", "emma", "lucas")
PLACES = ("paris", "london", "berlin", "madrid", "tokyo", "boston", "dublin", "vienna", "cairo", "lima")
NAMES = PEOPLE + PLACES
"""The words of special value: what ``keywords`` of a row is taken from."""

SLOTS: dict[str, tuple[str, ...]] = {
    "PERSON": PEOPLE,
    "PLACE": PLACES,
    "DAY": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "NUMBER": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    "COLOUR": ("red", "blue", "green", "white", "black", "yellow"),
    "THING": ("book", "letter", "lamp", "key", "box", "phone", "map", "ticket", "table", "chair"),
    "ROOM": ("kitchen", "garden", "office", "hall"),
    "WHEN": ("now", "today", "tomorrow", "tonight"),
}
TEMPLATES = (
    "call PERSON WHEN",
    "find PERSON WHEN",
    "leave PLACE WHEN",
    "go to PLACE WHEN",
    "meet PERSON in PLACE",
    "close room NUMBER WHEN",
    "bring the COLOUR THING",
    "PERSON is in PLACE WHEN",
    "tell PERSON to call PERSON",
    "bring the THING to PERSON",
    "meet PERSON at NUMBER WHEN",
    "call PERSON in PLACE at NUMBER",
    "send the COLOUR THING to PERSON",
    "is PERSON in PLACE on DAY",
    "give PERSON the THING from PLACE",
    "PERSON and PERSON are in PLACE",
    "close the COLOUR window in room NUMBER",
    "wait for PERSON at the PLACE station",
    "the COLOUR THING is in room NUMBER",
    "put the COLOUR THING in the ROOM",
    "take the train from PLACE to PLACE",
    "ask PERSON for the COLOUR THING WHEN",
    "please open the COLOUR door on DAY",
    "turn off the COLOUR light in room NUMBER",
    "please meet PERSON in PLACE at NUMBER WHEN",
    "show PERSON the COLOUR THING in the ROOM",
    "take the train to PLACE with PERSON WHEN",
    "send NUMBER or NUMBER tickets to PERSON WHEN",
)
"""Sentences with slots in capitals; each slot is filled by one word, so a template's length is its sentences'."""

WORDS = tuple(sorted({word for t in TEMPLATES for part in t.split() for word in SLOTS.get(part, (part,))}))
"""Every word that the grammar can say."""

VOICES: dict[Part, tuple[str, ...]] = {
    "train": (
        *("en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f2"),
        *("en-gb", "en-gb+m2", "en-gb+m3", "en-gb+f1", "en-gb+f3", "en-gb-x-rp+m1", "en-gb-x-rp+f2", "en-us-nyc+m7"),
    ),
    "dev": ("en-us+m4", "en-gb+f4", "en-gb-x-rp+m4", "en-us+f4"),
    "test": ("en-us+m5", "en-gb+m6", "en-us+f5", "en-gb+f5", "en-gb-scotland+m6"),
}
"""Default voices of each part: no voice and no variant is in two parts, and the Scottish accent is in test alone."""


def sentence_part(sentence: str) -> Part:
    """The one part whose rows may hold this sentence, whatever the seed: 80 % train, 10 % dev, 10 % test."""
    bucket = key_to_seed("espeak sentence", sentence) % 10
    return "train" if bucket < 8 else "dev" if bucket == 8 else "test"


def draw_sentence(generator: torch.Generator, part: Part, num_words: tuple[int, int]) -> str:
    """A sentence of ``part`` with ``num_words`` (lowest, highest) words; no name twice.

    Raises:
        ValueError: the grammar has no such sentence.
    """
    templates = [t.split() for t in TEMPLATES if num_words[0] <= len(t.split()) <= num_words[1]]
    for _ in range(10_000 if templates else 0):
        draws = torch.rand(16, generator=generator, dtype=torch.float64).tolist()
        template = _pick(templates, draws[0])
        words = [_pick(SLOTS[w], u) if w in SLOTS else w for w, u in zip(template, draws[1:], strict=False)]
        slots = [w for w, slot in zip(words, template, strict=True) if slot in SLOTS]
        if len(set(slots)) == len(slots) and sentence_part(" ".join(words)) == part:
            return " ".join(words)
    lengths = sorted({len(t.split()) for t in TEMPLATES})
    raise ValueError(f"espeak grammar: no {part} sentence has {num_words} words; it has {lengths[0]} to {lengths[-1]}")


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/lightning_audiorl/espeak``, under ``~/.cache`` where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_audiorl" / "espeak"


def speak_to_file(cache_dir: Path, sentence: str, voice: str, rate_wpm: int, pitch: int) -> Path:
    """The 16 kHz mono FLAC file of a sentence, rendered when it is not there yet. Safe between processes."""
    version = metadata.version("espeakng-loader")
    key = hashlib.blake2b(repr((version, sentence, voice, rate_wpm, pitch)).encode(), digest_size=16).hexdigest()
    path = cache_dir / key[:2] / f"{key}.flac"
    if path.exists():
        return path
    samples = torch.from_numpy(synthesise(sentence, voice, rate_wpm, pitch))
    samples = torchaudio.functional.resample(samples, ENGINE_RATE_HZ, SAMPLE_RATE_HZ)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            soundfile.write(file, samples.clamp(-1, 1).numpy(), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path


class EspeakCorpus(RowSource):
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
        if num_rows < 1:
            raise ValueError(f"EspeakCorpus: want num_rows >= 1, got {num_rows}")
        self.part: Part = part
        self.num_rows = num_rows
        self.num_sentences = _span("num_sentences", num_sentences, 1)
        self.num_words = _span("num_words", num_words, 1)
        self.rate_wpm = _span("rate_wpm", rate_wpm, 80)
        self.pitch = _span("pitch", pitch, 0)
        self.gap_s, self.edge_s = _span("gap_s", gap_s, 0.0), _span("edge_s", edge_s, 0.0)
        self.min_duration_s = float(min_duration_s)  # 20 and 20.0 are the same rows
        self.voices = tuple(VOICES[part] if voices is None else voices)
        if not self.voices:
            raise ValueError("EspeakCorpus.voices: want at least one voice, got none")
        for voice in self.voices:
            resolve_voice(voice)
        draw_sentence(keyed_generator("probe"), part, self.num_words)
        self.cache_dir = Path(cache_dir or default_cache_dir()).expanduser().absolute()
        spans = (self.num_sentences, self.num_words, self.rate_wpm, self.pitch, self.gap_s, self.edge_s)
        settings = repr((seed, spans, self.min_duration_s, self.voices))
        name = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
        self._name = f"espeak-{part}-{name}"
        self._rows: dict[int, Utterance] = {}

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, self.num_rows, self)
        if index not in self._rows:
            self._rows[index] = self._build(index)
        return self._rows[index]

    def _build(self, index: int) -> Utterance:
        row_id = f"{self._name}-{index:06d}"
        draws = keyed_uniform(6, row_id, "row").tolist()
        voice = _pick(self.voices, draws[0])
        rate_wpm, pitch = _whole(self.rate_wpm, draws[1]), _whole(self.pitch, draws[2])
        wanted = _whole(self.num_sentences, draws[3])
        start_s, end_s = _between(self.edge_s, draws[4]), _between(self.edge_s, draws[5])
        generator = keyed_generator(row_id, "sentences")
        sentences: list[str] = []
        segments = [Segment(SILENCE, end_s)] if end_s > 0 else []
        while len(sentences) < wanted or _length_s(segments) < self.min_duration_s:
            gap_s = start_s if not sentences else _between(self.gap_s, float(torch.rand(1, generator=generator)))
            sentence = draw_sentence(generator, self.part, self.num_words)
            path = str(speak_to_file(self.cache_dir, sentence, voice, rate_wpm, pitch))
            segment = Segment(path, soundfile.info(path).frames / SAMPLE_RATE_HZ, gap_s=gap_s)
            segments.insert(len(sentences), segment)
            sentences.append(sentence)
        return Utterance(
            id=row_id,
            segments=tuple(segments),
            text=" ".join(sentences),
            duration_s=_length_s(segments),
            speaker=voice,
            keywords=tuple(dict.fromkeys(word for word in " ".join(sentences).split() if word in NAMES)),
            extra={"rate_wpm": rate_wpm, "pitch": pitch},
        )


def _length_s(segments: Sequence[Segment]) -> float:
    """Exact for whole samples at ``SAMPLE_RATE_HZ``."""
    return sum(round((s.gap_s + (s.duration_s or 0.0)) * SAMPLE_RATE_HZ) for s in segments) / SAMPLE_RATE_HZ


def _span(name: str, span: tuple[_N, _N], lowest: _N) -> tuple[_N, _N]:
    if not lowest <= span[0] <= span[1]:
        raise ValueError(f"EspeakCorpus.{name}: want (low, high) with {lowest} <= low <= high, got {span}")
    return span[0], span[1]


def _pick(items: Sequence[_T], share: float) -> _T:
    return items[int(share * len(items))]


def _whole(limits: tuple[int, int], share: float) -> int:
    return limits[0] + int(share * (limits[1] - limits[0] + 1))


def _between(span: tuple[float, float], share: float) -> float:
    return round(span[0] + share * (span[1] - span[0]), 2)

"""Connected digits spoken by espeak-ng in English or Mandarin: evaluation sets away from the recordings of `fsdd`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import soundfile

from lightning_audiorl.data.corpora.espeak import SAMPLE_RATE_HZ, SILENCE, VOICES, default_cache_dir, speak_to_file
from lightning_audiorl.data.corpora.espeak_engine import resolve_voice
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.transforms.concatenate import join_texts
from lightning_audiorl.data.transforms.draws import check_span, pick, seconds, settings_name, whole
from lightning_audiorl.ops.randomness import keyed_uniform
from lightning_audiorl.types import Segment, Utterance

Lang = Literal["en", "zh"]

#: How a recogniser writes 0 to 9.
DIGITS: dict[Lang, tuple[str, ...]] = {"en": DIGIT_WORDS, "zh": tuple("零一二三四五六七八九")}
#: Voices used where none are named; the English ones are those that `EspeakCorpus` keeps for its test part.
DIGIT_VOICES: dict[Lang, tuple[str, ...]] = {"en": VOICES["test"], "zh": ("cmn", "cmn+m5", "cmn+m6", "cmn+f5")}


class EspeakDigits(RowSource):
    """Utterances of digits: phrases of a few digits by one voice, with short silences between.

    Each phrase is one espeak sentence, as a telephone number is said in groups: its digits run together and it has
    one melody. Digits said one by one would each have the falling end of a sentence, and a long row in one sentence no
    pause for breath. Text: "three seven one" in English, "三七一" in Mandarin, scored in characters.

    Row i depends on its index and on every argument but ``num_rows`` and ``cache_dir``. Meant for evaluation: there are
    no parts, so two seeds may share a phrase.

    Args:
        lang: en or zh.
        voices: espeak-ng voices to draw from; None means ``DIGIT_VOICES[lang]``.
        num_words: (fewest, most) digits of a row.
        num_rows: how many rows.
        seed: another seed gives other rows.
        rate_wpm: (lowest, highest) speed in words per minute, one draw for each row.
        pitch: (lowest, highest) pitch, 0 to 99, one draw for each row.
        words_per_phrase: (fewest, most) digits of a phrase; the last one of a row may be shorter.
        gap_s: (lowest, highest) silence between phrases in seconds, in steps of 0.01.
        edge_s: (lowest, highest) silence added before the first and after the last phrase, in seconds.
        cache_dir: where phrases are kept as FLAC files; None means ``default_cache_dir()``.

    Raises:
        ImportError: the extra ``synth`` is not installed.
        ValueError: unknown language or voice, or an empty range.
    """

    def __init__(
        self,
        lang: Lang = "en",
        voices: Sequence[str] | None = None,
        num_words: tuple[int, int] = (1, 7),
        num_rows: int = 200,
        seed: int = 0,
        rate_wpm: tuple[int, int] = (140, 190),
        pitch: tuple[int, int] = (35, 65),
        words_per_phrase: tuple[int, int] = (3, 4),
        gap_s: tuple[float, float] = (0.1, 0.4),
        edge_s: tuple[float, float] = (0.0, 0.2),
        cache_dir: str | None = None,
    ) -> None:
        if lang not in DIGITS:
            raise ValueError(f"EspeakDigits.lang: use one of {', '.join(DIGITS)}, got {lang!r}")
        if num_rows < 1:
            raise ValueError(f"EspeakDigits: want num_rows >= 1, got {num_rows}")
        self.lang: Lang = lang
        self.num_rows = num_rows
        self.num_words = check_span("EspeakDigits.num_words", num_words, 1)
        self.rate_wpm = check_span("EspeakDigits.rate_wpm", rate_wpm, 80)
        self.pitch = check_span("EspeakDigits.pitch", pitch, 0)
        self.words_per_phrase = check_span("EspeakDigits.words_per_phrase", words_per_phrase, 1)
        self.gap_s = check_span("EspeakDigits.gap_s", gap_s, 0.0)
        self.edge_s = check_span("EspeakDigits.edge_s", edge_s, 0.0)
        self.voices = tuple(DIGIT_VOICES[lang] if voices is None else voices)
        if not self.voices:
            raise ValueError("EspeakDigits.voices: want at least one voice, got none")
        for voice in self.voices:
            resolve_voice(voice)
        self.cache_dir = Path(cache_dir or default_cache_dir()).expanduser().absolute()
        spans = (self.num_words, self.rate_wpm, self.pitch, self.words_per_phrase, self.gap_s, self.edge_s)
        self._name = f"espeak-digits-{lang}-{settings_name(seed, spans, self.voices)}"
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
        voice = pick(self.voices, draws[0])
        rate_wpm, pitch = whole(self.rate_wpm, draws[1]), whole(self.pitch, draws[2])
        phrases = self._phrases(row_id, whole(self.num_words, draws[3]))
        gaps_s = [seconds(self.gap_s, u) for u in keyed_uniform(len(phrases), row_id, "gaps").tolist()]
        gaps_s[0] = seconds(self.edge_s, draws[4])
        segments = [self._say(text, voice, rate_wpm, pitch, gap) for text, gap in zip(phrases, gaps_s, strict=True)]
        end_s = seconds(self.edge_s, draws[5])
        if end_s > 0:
            segments.append(Segment(SILENCE, end_s))
        return Utterance(
            id=row_id,
            segments=tuple(segments),
            text=join_texts(phrases, self.lang),
            duration_s=round(sum(segment.gap_s + (segment.duration_s or 0.0) for segment in segments), 9),
            lang=self.lang,
            speaker=voice,
            extra={"rate_wpm": rate_wpm, "pitch": pitch},
        )

    def _phrases(self, row_id: str, num_words: int) -> list[str]:
        """``num_words`` digits, in phrases."""
        digits = [pick(DIGITS[self.lang], u) for u in keyed_uniform(num_words, row_id, "digits").tolist()]
        shares = keyed_uniform(num_words, row_id, "phrases").tolist()
        phrases: list[str] = []
        first = 0
        while first < num_words:
            end = first + whole(self.words_per_phrase, shares[len(phrases)])
            phrases.append(join_texts(digits[first:end], self.lang))
            first = end
        return phrases

    def _say(self, phrase: str, voice: str, rate_wpm: int, pitch: int, gap_s: float) -> Segment:
        path = str(speak_to_file(self.cache_dir, phrase, voice, rate_wpm, pitch))
        return Segment(path, soundfile.info(path).frames / SAMPLE_RATE_HZ, gap_s=gap_s)

"""Connected digits spoken by espeak-ng in English or Mandarin: evaluation sets away from the recordings of `fsdd`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lightning_audiorl.data.corpora.espeak import VOICES
from lightning_audiorl.data.corpora.espeak_speech import SpokenRows
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.data.draws import check_span, pick, seconds, settings_name, whole
from lightning_audiorl.data.transforms.concatenate import join_texts
from lightning_audiorl.ops.randomness import keyed_uniform
from lightning_audiorl.types import Segment, Utterance

Lang = Literal["en", "zh"]

#: How a recogniser writes 0 to 9.
DIGITS: dict[Lang, tuple[str, ...]] = {
    "en": DIGIT_WORDS,
    "zh": tuple("零一二三四五六七八九"),
}
#: Voices used where none are named; the English ones are those that `EspeakCorpus` keeps for its test part.
DIGIT_VOICES: dict[Lang, tuple[str, ...]] = {
    "en": VOICES["test"],
    "zh": ("cmn", "cmn+m5", "cmn+m6", "cmn+f5"),
}


class EspeakDigits(SpokenRows):
    """Utterances of digits: phrases of a few digits by one voice, with short silences between.

    Each phrase is one espeak sentence, as a telephone number is said in groups: its digits run together and it has
    one melody. Digits spoken one by one would each have the falling end of a sentence, and a long row in one sentence
    no pause for breath. Text: "three seven one" in English, "三七一" in Mandarin, scored in characters.

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

        super().__init__(
            num_rows=num_rows,
            voices=DIGIT_VOICES[lang] if voices is None else voices,
            rate_wpm=rate_wpm,
            pitch=pitch,
            gap_s=gap_s,
            edge_s=edge_s,
            cache_dir=cache_dir,
        )

        self.lang: Lang = lang
        self.num_words = check_span("EspeakDigits.num_words", num_words, 1)
        self.words_per_phrase = check_span("EspeakDigits.words_per_phrase", words_per_phrase, 1)

        spans = (
            self.num_words,
            self.rate_wpm,
            self.pitch,
            self.words_per_phrase,
            self.gap_s,
            self.edge_s,
        )
        name = settings_name(seed, spans, self.voices)
        self._name = f"espeak-digits-{lang}-{name}"

    def _build(self, row_id: str) -> Utterance:
        delivery = self._delivery(row_id)
        num_words = whole(self.num_words, delivery.u_length)
        phrases = self._phrases(row_id, num_words)

        shares = keyed_uniform(len(phrases), row_id, "gaps").tolist()
        gaps_s = [seconds(self.gap_s, share) for share in shares]
        gaps_s[0] = delivery.start_s

        segments: list[Segment] = []
        for phrase, gap_s in zip(phrases, gaps_s, strict=True):
            segments.append(self._spoken(phrase, delivery, gap_s))
        segments += delivery.ending

        lengths_s = [segment.gap_s + (segment.duration_s or 0.0) for segment in segments]
        return Utterance(
            id=row_id,
            segments=tuple(segments),
            text=join_texts(phrases, self.lang),
            duration_s=round(sum(lengths_s), 9),
            lang=self.lang,
            speaker=delivery.voice,
            extra=delivery.extra,
        )

    def _phrases(self, row_id: str, num_words: int) -> list[str]:
        """``num_words`` digits, in phrases."""
        digit_shares = keyed_uniform(num_words, row_id, "digits").tolist()
        digits = [pick(DIGITS[self.lang], share) for share in digit_shares]

        # One draw a phrase; there are at most as many phrases as digits.
        shares = keyed_uniform(num_words, row_id, "phrases").tolist()

        phrases: list[str] = []
        first = 0
        while first < num_words:
            share = shares[len(phrases)]
            end = first + whole(self.words_per_phrase, share)
            phrase = join_texts(digits[first:end], self.lang)
            phrases.append(phrase)
            first = end
        return phrases

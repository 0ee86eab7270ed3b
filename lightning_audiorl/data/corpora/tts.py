"""Rows of speech synthesis from the corpora at hand: connected digits of FSDD, and sentences spoken by espeak-ng."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import soundfile

from lightning_audiorl.data.corpora.espeak import SAMPLE_RATE_HZ, EspeakCorpus, draw_sentence, speak_to_file
from lightning_audiorl.data.corpora.espeak import Part as EspeakPart
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS, FsddDigits, Part, Recordings, join_takes
from lightning_audiorl.data.corpora.speaker_prompts import speech_row
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.manifest.targets import length_s
from lightning_audiorl.data.transforms.draws import check_span, pick, seconds, whole
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform
from lightning_audiorl.types import Segment, Utterance

#: Sentences drawn beyond those wanted before a prompt is given up.
_MAX_DRAWS = 1000


class FsddSpeech(RowSource):
    """Connected digits to be spoken by a speaker of the Free Spoken Digit Dataset.

    Row i has text, speaker and recording of row i of `FsddDigits` with the same settings. Its speaker prompt is another
    utterance of that speaker and part, joined from recordings that the row's own recording does not hold.

    Args:
        root: the data set's folder; None takes the environment's ``FSDD_ROOT``.
        part: train, dev or test.
        num_words: fewest and most digits of a text.
        num_rows: number of rows.
        seed: another seed gives other rows.
        exclude_speakers: speakers never used.
        prompt_words: fewest and most digits of a prompt; None gives rows without prompt.
        with_target: whether rows have the recording of their text (SFT). Without it ``duration_s`` is what the speaker
            needs on average for these digits and silences.
        recordings: all, or those of odd or even index alone (see `FsddDigits`), for prompts and targets alike.
        only_speakers: use these alone; None uses all that are not excluded.
        gap_s: range of the silence between digits, in seconds.
        edge_s: range of the silence before the first and after the last digit, in seconds.

    Raises:
        ValueError, FileNotFoundError, AudioError: see `FsddDigits`, such as an unknown speaker; when a row is asked
            for: its recording leaves none for the prompt.
    """

    def __init__(
        self,
        root: str | None = None,
        part: Part = "train",
        num_words: tuple[int, int] = (1, 7),
        num_rows: int = 1000,
        seed: int = 0,
        exclude_speakers: Sequence[str] = (),
        prompt_words: tuple[int, int] | None = (3, 5),
        with_target: bool = True,
        recordings: Recordings = "all",
        only_speakers: Sequence[str] | None = None,
        gap_s: tuple[float, float] = (0.05, 0.25),
        edge_s: tuple[float, float] = (0.05, 0.25),
    ) -> None:
        self.digits = FsddDigits(
            root, part, num_words, num_rows, seed, exclude_speakers, only_speakers, gap_s, edge_s, recordings
        )
        self.prompt_words = None if prompt_words is None else check_span("FsddSpeech.prompt_words", prompt_words, 1)
        self.with_target = with_target
        self._mean_s = {
            speaker: [sum(take.duration_s for take in takes) / len(takes) for takes in self.digits.takes(speaker)]
            for speaker in self.digits.speakers
        }

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.digits[check_index(index, len(self), self)]
        prompt = self._prompt(row)
        if self.with_target:
            return speech_row(row, f"tts-{row.id}", prompt, row.duration_s, row.segments)
        return speech_row(row, f"tts-{row.id}", prompt, self._expected_s(row))

    def _prompt(self, row: Utterance) -> Utterance | None:
        if self.prompt_words is None:
            return None
        low, high = self.prompt_words
        used = {segment.audio_filepath for segment in row.segments}
        digits = [[t for t in takes if t.audio_filepath not in used] for takes in self.digits.takes(row.speaker)]
        digits = [takes for takes in digits if takes]
        if not digits:
            raise ValueError(
                f"FsddSpeech: row {row.id!r} uses every recording of speaker {row.speaker!r}, none is left for its "
                "prompt; lower num_words, or use all recordings"
            )
        u_words, u_end, *draws = keyed_uniform(2 + 3 * high, "fsdd prompt", low, high, row.id).tolist()
        num_words = whole(self.prompt_words, u_words)
        takes = [pick(pick(digits, u), v) for u, v in zip(draws[0::3], draws[1::3], strict=True)][:num_words]
        spans = [self.digits.edge_s] + [self.digits.gap_s] * (num_words - 1)
        gaps_s = [seconds(span, u) for span, u in zip(spans, draws[2::3], strict=False)]
        segments = join_takes(takes, gaps_s, seconds(self.digits.edge_s, u_end))
        text = " ".join(DIGIT_WORDS[take.digit] for take in takes)
        return Utterance(f"{row.id}-prompt", segments, text, length_s(segments), speaker=row.speaker)

    def _expected_s(self, row: Utterance) -> float:
        words = row.text.split()
        spoken_s = sum(self._mean_s[row.speaker][DIGIT_WORDS.index(word)] for word in words)
        return spoken_s + sum(self.digits.edge_s) + (len(words) - 1) * sum(self.digits.gap_s) / 2


class EspeakSpeech(RowSource):
    """Sentences of the espeak grammar to be spoken by an espeak voice.

    Row i has text, voice, recording and length of row i of `EspeakCorpus` with the same settings. Its speaker prompt is
    other sentences of that part by the same voice at the same speed and pitch.

    Args:
        part: whose sentences and default voices to use.
        num_rows: how many rows.
        num_sentences: (lowest, highest) sentences in a text.
        num_words: (lowest, highest) words in a sentence; the grammar has 3 to 8.
        seed: another seed gives other rows.
        voices: espeak-ng voices to draw from; None means ``VOICES[part]``.
        prompt_sentences: (lowest, highest) sentences in a prompt; None gives rows without prompt.
        with_target: whether rows have the recording of their text (SFT).
        rate_wpm: (lowest, highest) speed in words per minute, one draw for each row.
        pitch: (lowest, highest) pitch, 0 to 99, one draw for each row.
        gap_s: (lowest, highest) silence between sentences in seconds.
        edge_s: (lowest, highest) silence added before the first and after the last sentence of a recording, in seconds.
        cache_dir: where sentences are kept as FLAC files; None means ``default_cache_dir()``.

    Raises:
        ImportError, ValueError: see `EspeakCorpus`.
    """

    def __init__(
        self,
        part: EspeakPart = "train",
        num_rows: int = 1000,
        num_sentences: tuple[int, int] = (1, 1),
        num_words: tuple[int, int] = (3, 8),
        seed: int = 0,
        voices: Sequence[str] | None = None,
        prompt_sentences: tuple[int, int] | None = (1, 1),
        with_target: bool = True,
        rate_wpm: tuple[int, int] = (140, 190),
        pitch: tuple[int, int] = (35, 65),
        gap_s: tuple[float, float] = (0.1, 0.4),
        edge_s: tuple[float, float] = (0.0, 0.2),
        cache_dir: str | None = None,
    ) -> None:
        self.corpus = EspeakCorpus(
            part, num_rows, num_sentences, num_words, 0.0, seed, voices, rate_wpm, pitch, gap_s, edge_s, cache_dir
        )
        self.prompt_sentences = (
            None if prompt_sentences is None else check_span("EspeakSpeech.prompt_sentences", prompt_sentences, 1)
        )
        self.with_target = with_target

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.corpus[check_index(index, len(self), self)]
        target = row.segments if self.with_target else ()
        return speech_row(row, f"tts-{row.id}", self._prompt(row), row.duration_s, target)

    def _prompt(self, row: Utterance) -> Utterance | None:
        if self.prompt_sentences is None:
            return None
        key = ("espeak prompt", *self.prompt_sentences, row.id)
        wanted, generator = whole(self.prompt_sentences, float(keyed_uniform(1, *key))), keyed_generator(*key, "draws")
        drawn = (draw_sentence(generator, self.corpus.part, self.corpus.num_words) for _ in range(wanted + _MAX_DRAWS))
        sentences = list(islice((sentence for sentence in drawn if sentence not in row.text), wanted))
        if len(sentences) < wanted:
            raise ValueError(
                f"EspeakSpeech: row {row.id!r} holds every sentence of {self.corpus.num_words} words, none is left for "
                "its prompt; lower num_sentences, or widen num_words"
            )
        gaps_s = [0.0] + [seconds(self.corpus.gap_s, u) for u in keyed_uniform(len(sentences), *key, "gaps").tolist()]
        rate_wpm, pitch = row.extra["rate_wpm"], row.extra["pitch"]
        segments = []
        for sentence, gap_s in zip(sentences, gaps_s, strict=False):
            path = str(speak_to_file(self.corpus.cache_dir, sentence, row.speaker, rate_wpm, pitch))
            segments.append(Segment(path, soundfile.info(path).frames / SAMPLE_RATE_HZ, gap_s=gap_s))
        text = " ".join(sentences)
        return Utterance(f"{row.id}-prompt", tuple(segments), text, length_s(segments), speaker=row.speaker)

"""Rows of speech synthesis from the corpora at hand: connected digits of FSDD, and sentences spoken by espeak-ng."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_audiorl.data.corpora.espeak import EspeakCorpus, Lang, draw_sentence
from lightning_audiorl.data.corpora.espeak import Part as EspeakPart
from lightning_audiorl.data.corpora.espeak_speech import spoken_segment
from lightning_audiorl.data.corpora.fsdd import (
    DIGIT_WORDS,
    FsddDigits,
    Part,
    Recording,
    Recordings,
    join_takes,
)
from lightning_audiorl.data.corpora.speaker_prompts import speech_row
from lightning_audiorl.data.draws import check_span, pick, seconds, whole
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.manifest.targets import length_s
from lightning_audiorl.data.transforms.concatenate import join_texts
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
        # Texts, speakers and recordings are those of the digits; a prompt is added to each.
        self.digits = FsddDigits(
            root=root,
            part=part,
            num_words=num_words,
            num_rows=num_rows,
            seed=seed,
            exclude_speakers=exclude_speakers,
            only_speakers=only_speakers,
            gap_s=gap_s,
            edge_s=edge_s,
            recordings=recordings,
        )

        self.prompt_words: tuple[int, int] | None = None
        if prompt_words is not None:
            self.prompt_words = check_span("FsddSpeech.prompt_words", prompt_words, 1)
        self.with_target = with_target

        #: Mean length of each digit, by speaker.
        self._mean_s = {speaker: self._mean_lengths_s(speaker) for speaker in self.digits.speakers}

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.digits[check_index(index, len(self), self)]
        prompt = self._prompt(row)
        row_id = f"tts-{row.id}"
        if self.with_target:
            return speech_row(row, row_id, prompt, row.duration_s, target=row.segments)
        return speech_row(row, row_id, prompt, self._expected_s(row))

    def _mean_lengths_s(self, speaker: str) -> list[float]:
        means_s = []
        for takes in self.digits.takes(speaker):
            total_s = sum(take.duration_s for take in takes)
            means_s.append(total_s / len(takes))
        return means_s

    def _prompt(self, row: Utterance) -> Utterance | None:
        if self.prompt_words is None:
            return None

        low, high = self.prompt_words
        digits = self._unused_takes(row)
        # As many draws as the longest prompt needs: how many words this one has is among them.
        num_draws = 2 + 3 * high
        u_words, u_end, *draws = keyed_uniform(num_draws, "fsdd prompt", low, high, row.id).tolist()
        num_words = whole(self.prompt_words, u_words)

        words: list[Recording] = []
        gaps_s: list[float] = []
        for word in range(num_words):
            first = 3 * word
            u_digit, u_recording, u_gap = draws[first : first + 3]
            takes = pick(digits, u_digit)
            words.append(pick(takes, u_recording))
            span = self.digits.edge_s if word == 0 else self.digits.gap_s
            gaps_s.append(seconds(span, u_gap))

        end_s = seconds(self.digits.edge_s, u_end)
        segments = join_takes(words, gaps_s, end_s)
        return Utterance(
            id=f"{row.id}-prompt",
            segments=segments,
            text=" ".join(DIGIT_WORDS[take.digit] for take in words),
            duration_s=length_s(segments),
            speaker=row.speaker,
        )

    def _unused_takes(self, row: Utterance) -> list[list[Recording]]:
        """The recordings of the row's speaker that the row does not hold, by digit; digits without any are left out."""
        used = {segment.audio_filepath for segment in row.segments}
        digits: list[list[Recording]] = []
        for takes in self.digits.takes(row.speaker):
            unused = [take for take in takes if take.audio_filepath not in used]
            if unused:
                digits.append(unused)

        if not digits:
            raise ValueError(
                f"FsddSpeech: row {row.id!r} uses every recording of speaker {row.speaker!r}, none is left for its "
                "prompt; lower num_words, or use all recordings"
            )
        return digits

    def _expected_s(self, row: Utterance) -> float:
        """What the row's speaker needs on average for its digits, with silences of mean length."""
        words = row.text.split()
        means_s = self._mean_s[row.speaker]
        spoken_s = sum(means_s[DIGIT_WORDS.index(word)] for word in words)

        # The mean of a range is half the sum of its limits; there are two edges, and a gap between any two words.
        edges_s = sum(self.digits.edge_s)
        gaps_s = (len(words) - 1) * sum(self.digits.gap_s) / 2
        return spoken_s + edges_s + gaps_s


class EspeakSpeech(RowSource):
    """Sentences of an espeak grammar to be spoken by an espeak voice.

    Row i has text, voice, recording and length of row i of `EspeakCorpus` with the same settings. Its speaker prompt is
    other sentences of that part by the same voice at the same speed and pitch.

    Args:
        part: whose sentences and default voices to use.
        num_rows: how many rows.
        num_sentences: (lowest, highest) sentences in a text.
        num_words: (lowest, highest) words in a sentence; the grammars have 3 to 8.
        seed: another seed gives other rows.
        voices: espeak-ng voices to draw from; None means those of the language's grammar.
        prompt_sentences: (lowest, highest) sentences in a prompt; None gives rows without prompt.
        with_target: whether rows have the recording of their text (SFT).
        rate_wpm: (lowest, highest) speed in words per minute, one draw for each row.
        pitch: (lowest, highest) pitch, 0 to 99, one draw for each row.
        gap_s: (lowest, highest) silence between sentences in seconds.
        edge_s: (lowest, highest) silence added before the first and after the last sentence of a recording, in seconds.
        cache_dir: where sentences are kept as FLAC files; None means ``default_cache_dir()``.
        lang: en or zh.

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
        lang: Lang = "en",
    ) -> None:
        # Texts, voices and recordings are those of the corpus; a prompt is added to each.
        self.corpus = EspeakCorpus(
            part=part,
            num_rows=num_rows,
            num_sentences=num_sentences,
            num_words=num_words,
            min_duration_s=0.0,
            seed=seed,
            voices=voices,
            rate_wpm=rate_wpm,
            pitch=pitch,
            gap_s=gap_s,
            edge_s=edge_s,
            cache_dir=cache_dir,
            lang=lang,
        )

        self.prompt_sentences: tuple[int, int] | None = None
        if prompt_sentences is not None:
            self.prompt_sentences = check_span("EspeakSpeech.prompt_sentences", prompt_sentences, 1)
        self.with_target = with_target

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.corpus[check_index(index, len(self), self)]
        target = row.segments if self.with_target else ()
        return speech_row(
            row,
            row_id=f"tts-{row.id}",
            prompt=self._prompt(row),
            duration_s=row.duration_s,
            target=target,
        )

    def _prompt(self, row: Utterance) -> Utterance | None:
        if self.prompt_sentences is None:
            return None

        key = ("espeak prompt", *self.prompt_sentences, row.id)
        wanted = whole(self.prompt_sentences, float(keyed_uniform(1, *key)))
        sentences = self._other_sentences(row, wanted, keyed_generator(*key, "draws"))

        shares = keyed_uniform(wanted, *key, "gaps").tolist()
        between_s = [seconds(self.corpus.gap_s, share) for share in shares[: wanted - 1]]
        segments: list[Segment] = []
        for sentence, gap_s in zip(sentences, [0.0, *between_s], strict=True):
            segment = spoken_segment(
                self.corpus.cache_dir,
                sentence,
                voice=row.speaker,
                rate_wpm=row.extra["rate_wpm"],
                pitch=row.extra["pitch"],
                gap_s=gap_s,
            )
            segments.append(segment)

        return Utterance(
            id=f"{row.id}-prompt",
            segments=tuple(segments),
            text=join_texts(sentences, row.lang),
            duration_s=length_s(segments),
            lang=row.lang,
            speaker=row.speaker,
        )

    def _other_sentences(
        self, row: Utterance, wanted: int, generator: torch.Generator
    ) -> list[str]:
        """Sentences of the corpus's part that the row does not hold; ValueError where too few are found."""
        corpus = self.corpus
        sentences: list[str] = []
        for _ in range(wanted + _MAX_DRAWS):
            sentence = draw_sentence(generator, corpus.part, corpus.num_words, corpus.lang)
            if sentence not in row.text:
                sentences.append(sentence)
            if len(sentences) == wanted:
                return sentences

        raise ValueError(
            f"EspeakSpeech: row {row.id!r} holds every sentence of {corpus.num_words} words, none is left for "
            "its prompt; lower num_sentences, or widen num_words"
        )

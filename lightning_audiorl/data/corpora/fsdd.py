"""Connected digits from the Free Spoken Digit Dataset: real recordings of single digits, joined.

Published layout: ``<root>/recordings/{digit}_{speaker}_{index}.wav`` (github.com/Jakobovski/free-spoken-digit-dataset,
CC BY-SA 4.0). The data set's own rule: index 0-4 is the test part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import soundfile

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.audio.reading import AudioError
from lightning_audiorl.data.draws import between, pick, whole
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.manifest.targets import length_s
from lightning_audiorl.ops.randomness import keyed_uniform
from lightning_audiorl.types import Segment, Utterance

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Recording numbers of a part: [first, end). Dev is cut from the data set's training recordings.
PART_INDEX: dict[str, tuple[int, int]] = {
    "test": (0, 5),
    "dev": (5, 9),
    "train": (9, 1_000_000),
}
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")

Part = Literal["train", "dev", "test"]
Recordings = Literal["all", "odd", "even"]
#: Recording numbers modulo 2: two models can be trained on recordings of the same part that they do not share.
_REMAINDERS: dict[str, tuple[int, ...]] = {
    "all": (0, 1),
    "odd": (1,),
    "even": (0,),
}


@dataclass(frozen=True)
class Recording:
    """One spoken digit.

    Args:
        audio_filepath: absolute path of the wav file.
        digit: 0 to 9.
        speaker: name of the speaker.
        index: number of the recording among those of this speaker and digit.
        duration_s: length in seconds.
    """

    audio_filepath: str
    digit: int
    speaker: str
    index: int
    duration_s: float


@lru_cache(maxsize=8)
def scan_fsdd(root: str) -> tuple[Recording, ...]:
    """Every recording under ``root``, in the order of file names; durations come from the wav headers.

    Raises:
        FileNotFoundError: if ``<root>/recordings`` is missing or holds no wav file.
        ValueError: for a wav file whose name is not ``{digit}_{speaker}_{index}.wav``.
        AudioError: for a file that cannot be read or has no samples.
    """
    folder = Path(root).expanduser().absolute() / "recordings"
    files = sorted(folder.glob("*.wav")) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(
            f"{folder}: no recordings found; root must be a checkout of the Free Spoken Digit Dataset, "
            "which has recordings/{digit}_{speaker}_{index}.wav"
        )
    return tuple(_recording(path) for path in files)


def _recording(path: Path) -> Recording:
    """What name and header of a wav file say."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(
            f"{path}: expected a name like 7_jackson_32.wav ({{digit}}_{{speaker}}_{{index}}.wav)"
        )

    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path}: not readable as audio ({error}); restore or delete the file"
        ) from error
    if info.frames == 0:
        raise AudioError(f"{path}: holds no samples; restore or delete the file")

    return Recording(
        audio_filepath=str(path),
        digit=int(match["digit"]),
        speaker=match["speaker"],
        index=int(match["index"]),
        duration_s=info.frames / info.samplerate,
    )


def _silence_s(span: tuple[float, float], share: float) -> float:
    """Seconds of silence, in steps of 0.1 ms."""
    return round(between(span, share), 4)


def _root(root: str | None) -> str:
    root = root or os.environ.get("FSDD_ROOT")
    if not root:
        raise ValueError(
            "FsddDigits: no root given; pass root or set FSDD_ROOT to a checkout of the Free Spoken Digit Dataset"
        )
    return root


def join_takes(
    takes: Sequence[Recording], gaps_s: Sequence[float], end_s: float
) -> tuple[Segment, ...]:
    """Takes in order, ``gaps_s[i]`` of silence before take i, and ``end_s`` after the last one.

    Example:
        >>> seven = Recording("/fsdd/7_theo_0.wav", digit=7, speaker="theo", index=0, duration_s=0.4)
        >>> segments = join_takes([seven, seven], gaps_s=[0.05, 0.2], end_s=0.1)
        >>> [(segment.audio_filepath, segment.gap_s) for segment in segments]
        [('/fsdd/7_theo_0.wav', 0.05), ('/fsdd/7_theo_0.wav', 0.2), ('synthetic:silence', 0.0)]
    """
    segments: list[Segment] = []
    for take, gap_s in zip(takes, gaps_s, strict=True):
        segments.append(Segment(take.audio_filepath, take.duration_s, gap_s=gap_s))

    # Silence of no length is no audio, which readers refuse.
    if end_s > 0:
        segments.append(Segment("synthetic:silence", end_s))
    return tuple(segments)


class FsddDigits(RowSource):
    """Connected-digit utterances: recordings of one speaker, joined with short silences.

    Row i depends on (seed, part, num_words, i) and the recordings alone. Parts share no recording: index 0-4 is
    test, 5-8 dev, the rest train. ``FsddDigits(root, "test", num_words=(20, 40))`` gives long utterances of 10 to 25 s
    whose text reads "three seven one ...".

    Args:
        root: the data set's folder (it holds ``recordings/``); None takes the environment's ``FSDD_ROOT``.
        part: train, dev or test.
        num_words: fewest and most digits of a row.
        num_rows: number of rows.
        seed: another seed gives other rows.
        exclude_speakers: speakers never used.
        only_speakers: use these alone; None uses all that are not excluded.
        gap_s: range of the silence between digits, in seconds.
        edge_s: range of the silence before the first and after the last digit, in seconds.
        recordings: all, or those of odd or even index alone: sources of the two share no recording.

    Raises:
        FileNotFoundError, ValueError, AudioError: see `scan_fsdd`; also for an unknown speaker or part, or a speaker
            who lacks a digit in this part.
    """

    def __init__(
        self,
        root: str | None = None,
        part: Part = "train",
        num_words: tuple[int, int] = (1, 7),
        num_rows: int = 1000,
        seed: int = 0,
        exclude_speakers: Sequence[str] = (),
        only_speakers: Sequence[str] | None = None,
        gap_s: tuple[float, float] = (0.05, 0.25),
        edge_s: tuple[float, float] = (0.05, 0.25),
        recordings: Recordings = "all",
    ) -> None:
        if part not in PART_INDEX:
            raise ValueError(
                f"FsddDigits: part must be one of {', '.join(PART_INDEX)}, got {part!r}"
            )

        # Settings are checked before the folder is read.
        if recordings not in _REMAINDERS:
            raise ValueError(
                f"FsddDigits: recordings must be one of {', '.join(_REMAINDERS)}, got {recordings!r}"
            )
        if not 1 <= num_words[0] <= num_words[1] or num_rows < 1:
            raise ValueError(
                f"FsddDigits: want 1 <= low <= high words, num_rows >= 1; got {num_words}, {num_rows}"
            )

        for name, span in (("gap_s", gap_s), ("edge_s", edge_s)):
            check_number(f"FsddDigits.{name}", span[1])
            if not 0 <= span[0] <= span[1]:
                raise ValueError(
                    f"FsddDigits: {name} must be (low, high) with 0 <= low <= high, got {span}"
                )

        self.part = part
        self.num_words = (num_words[0], num_words[1])
        self.num_rows = num_rows
        self.seed = seed
        self.gap_s = gap_s
        self.edge_s = edge_s

        takes = scan_fsdd(_root(root))
        self.speakers = _pick_speakers(takes, exclude_speakers, only_speakers)
        #: Takes by digit, by speaker.
        self._by_speaker: dict[str, list[list[Recording]]] = {}
        for speaker in self.speakers:
            self._by_speaker[speaker] = _by_digit(takes, speaker, part, recordings)

        low, high = self.num_words
        self._name = f"fsdd-{part}-w{low}to{high}-s{seed}"
        if recordings != "all":
            self._name += f"-{recordings}"

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, self.num_rows, self)
        low, high = self.num_words
        # As many draws as the longest row needs: how many words this one has is among them.
        num_draws = 4 + 3 * high
        draws = keyed_uniform(num_draws, "fsdd", self.seed, self.part, low, high, index).tolist()
        u_speaker, u_words, u_start, u_end = draws[:4]
        speaker = pick(self.speakers, u_speaker)
        num_words = whole(self.num_words, u_words)

        words: list[Recording] = []
        gaps_s: list[float] = []
        for word in range(num_words):
            first = 4 + 3 * word
            u_digit, u_recording, u_gap = draws[first : first + 3]
            takes = pick(self._by_speaker[speaker], u_digit)
            words.append(pick(takes, u_recording))
            gaps_s.append(_silence_s(self.gap_s, u_gap))
        gaps_s[0] = _silence_s(self.edge_s, u_start)

        segments = join_takes(words, gaps_s, end_s=_silence_s(self.edge_s, u_end))
        return Utterance(
            id=f"{self._name}-{index:06d}",
            segments=segments,
            text=" ".join(DIGIT_WORDS[take.digit] for take in words),
            duration_s=length_s(segments),
            speaker=speaker,
        )

    def takes(self, speaker: str) -> list[list[Recording]]:
        """The recordings of a speaker that rows may use, by digit."""
        return self._by_speaker[speaker]

    def recordings(self) -> set[str]:
        """The files that rows of this source may use."""
        files: set[str] = set()
        for digits in self._by_speaker.values():
            for takes in digits:
                files.update(take.audio_filepath for take in takes)
        return files


def _pick_speakers(
    recordings: Sequence[Recording], exclude: Sequence[str], only: Sequence[str] | None
) -> tuple[str, ...]:
    """Names of the speakers to use, in order of the alphabet; ValueError for an unknown one, or if none is left."""
    known = sorted({take.speaker for take in recordings})
    named = [*exclude, *(only or ())]
    if unknown := [name for name in named if name not in known]:
        raise ValueError(
            f"FsddDigits: unknown speaker {unknown[0]!r}; this folder has {', '.join(known)}"
        )

    chosen = known
    if only is not None:
        chosen = [name for name in known if name in only]
    speakers = tuple(name for name in chosen if name not in exclude)
    if not speakers:
        raise ValueError(
            f"FsddDigits: no speaker is left by exclude_speakers={list(exclude)} and only_speakers={only}; "
            f"this folder has {', '.join(known)}"
        )
    return speakers


def _by_digit(
    recordings: Sequence[Recording], speaker: str, part: Part, which: Recordings = "all"
) -> list[list[Recording]]:
    """The recordings of a speaker in a part, by digit; ValueError where a digit has none."""
    first, end = PART_INDEX[part]
    digits: list[list[Recording]] = [[] for _ in DIGIT_WORDS]
    for take in recordings:
        in_part = first <= take.index < end
        in_half = take.index % 2 in _REMAINDERS[which]
        if in_part and in_half and take.speaker == speaker:
            digits[take.digit].append(take)

    missing = [digit for digit, takes in enumerate(digits) if not takes]
    if missing:
        raise ValueError(
            f"FsddDigits: speaker {speaker!r} has no recording of digit {missing[0]} with index in [{first}, {end}), "
            f"the {part} part ({which} recordings); complete the folder or name the speaker in exclude_speakers"
        )
    return digits

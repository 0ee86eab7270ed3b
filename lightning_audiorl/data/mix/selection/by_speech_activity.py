"""Rows whose audio is what their text says of it: speech where there are words, none where there are none."""

from __future__ import annotations

from functools import lru_cache

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.mix.selection.base import Candidate, SubsetBuilder, Verdict
from lightning_audiorl.data.mix.selection.clips import ClipKey, clip_key
from lightning_audiorl.speech_activity import (
    SAMPLE_RATE_HZ,
    SpeechActivity,
    SpeechDetector,
    detector_version,
)


@lru_cache(maxsize=4096)
def _heard(key: ClipKey, detector: SpeechDetector) -> SpeechActivity:
    return detector.listen(read_audio(key.row, SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)


class SpeechHeard(SubsetBuilder):
    """Rows in which silero-vad hears what their text promises; wants the extra ``vad``.

    A row without words is kept where nothing is said in it, one with words where something is. Each clip is heard once
    for all rules. Of rows of speech synthesis it is the speaker prompt that is heard.

    Args:
        max_speech_s: most seconds of speech in a row without words; what the detector takes for speech in music or
            breath is short.
        min_speech_s: fewest seconds of speech in a row with words.
        max_leading_s: most seconds before the first speech of a row with words; none: any.
        max_tail_s: most seconds after its last speech; none: any.
        detector: how the detector's probabilities become stretches of speech.
        num_rows: most rows kept; none keeps all.

    Raises:
        ImportError: the extra ``vad`` is not installed.
    """

    def __init__(
        self,
        max_speech_s: float = 0.2,
        min_speech_s: float = 0.1,
        max_leading_s: float | None = None,
        max_tail_s: float | None = None,
        detector: SpeechDetector | None = None,
        num_rows: int | None = None,
    ) -> None:
        super().__init__(num_rows)
        for name, value in (("max_speech_s", max_speech_s), ("min_speech_s", min_speech_s)):
            check_number(f"SpeechHeard.{name}", value, at_least=0)
        for name, limit in (("max_leading_s", max_leading_s), ("max_tail_s", max_tail_s)):
            if limit is not None:
                check_number(f"SpeechHeard.{name}", limit, at_least=0)

        self.max_speech_s = max_speech_s
        self.min_speech_s = min_speech_s
        self.max_leading_s = max_leading_s
        self.max_tail_s = max_tail_s
        self.detector = detector or SpeechDetector()
        # Part of what a mix is cached under: another version may hear otherwise. And it is missed here, not at a row.
        self.version = detector_version()

    def judge(self, candidate: Candidate) -> Verdict:
        row = candidate.row
        if not row.segments:
            return Verdict(False, "no audio")
        heard = _heard(clip_key(row), self.detector)
        return self.judge_activity(heard, has_words=bool(row.text.strip()))

    def judge_activity(self, heard: SpeechActivity, has_words: bool) -> Verdict:
        """What is decided of a row in which this was heard."""
        if not has_words:
            if heard.speech_s > self.max_speech_s:
                return Verdict(False, "speech in a row without words")
            return Verdict(True, f"{heard.speech_s:.1f} s of speech heard")

        if heard.speech_s < self.min_speech_s or not heard.spans:
            return Verdict(False, "no speech heard")
        if self.max_leading_s is not None and heard.leading_s > self.max_leading_s:
            return Verdict(False, f"more than {self.max_leading_s:g} s before the first speech")
        if self.max_tail_s is not None and heard.tail_s > self.max_tail_s:
            return Verdict(False, f"more than {self.max_tail_s:g} s after the last speech")
        return Verdict(
            True,
            f"{heard.speech_s:.1f} s of speech heard, {heard.leading_s:.1f} s before and {heard.tail_s:.1f} s after it",
        )

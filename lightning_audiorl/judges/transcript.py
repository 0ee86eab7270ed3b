"""A transcript that says how sure its judge was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

#: What judges measure beside the words, as metrics name it.
LOG_PROB = "log_prob"
NO_SPEECH_PROB = "no_speech_prob"
LIKE_SILENCE = "like_silence"
HEARD_AGAIN = "heard_again"
MEASURES = (LOG_PROB, NO_SPEECH_PROB, LIKE_SILENCE, HEARD_AGAIN)


class Transcript(str):
    """A text like any other, with what the judge measured while it listened.

    Args:
        text: the transcript; empty where a silent clip gets the same one and the judge looks for that.
        measures: by the names of `MEASURES`; a measure that the judge does not know is not there.
        heard: what was transcribed, where ``text`` is empty for that reason.

    Example:
        >>> transcript = Transcript("seven", {"log_prob": -0.25})
        >>> transcript == "seven", transcript.measures
        (True, {'log_prob': -0.25})
    """

    measures: dict[str, float]
    heard: str

    def __new__(
        cls,
        text: str,
        measures: Mapping[str, float] | None = None,
        heard: str | None = None,
    ) -> Self:
        self = super().__new__(cls, text)
        self.measures = dict(measures or {})
        self.heard = text if heard is None else heard
        return self


def measures_of(transcript: str | None) -> dict[str, float]:
    """What was measured of a transcript; nothing of a plain text, and of None.

    Example:
        >>> measures_of("seven"), measures_of(Transcript("", {"like_silence": 1.0}, heard="you"))
        ({}, {'like_silence': 1.0})
    """
    return dict(transcript.measures) if isinstance(transcript, Transcript) else {}

"""Errors in what a judge heard, beside the text that was to be said."""

from __future__ import annotations

import math

from lightning_audiorl.metrics.functional import align
from lightning_audiorl.text.compare import heard_words, without_sounds
from lightning_audiorl.text.normalise import Normaliser
from lightning_audiorl.types import Utterance


def character_errors(
    row: Utterance,
    transcript: str,
    normaliser: Normaliser,
) -> tuple[int, int]:
    """(edits, reference characters) by jiwer's alignment of the normalised texts, spaces left out.

    The reference is the row's ``spoken_text``, or else its text; tags of sounds, such as ``[laughter]``, are no words.

    Example:
        >>> from lightning_audiorl.text import normaliser_for
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), text="Turn left.", duration_s=1.0, lang="en")
        >>> character_errors(row, "turnleft", normaliser_for("en")), character_errors(row, "turn", normaliser_for("en"))
        ((0, 8), (4, 8))
    """
    reference = normaliser.normalise(without_sounds(row.reference)).replace(" ", "")
    hypothesis = normaliser.normalise(heard_words(row.reference, transcript)).replace(" ", "")
    if not reference:
        return len(hypothesis), 0
    return align(reference, hypothesis, "char").errors, len(reference)


def error_rate(row: Utterance, transcript: str, normaliser: Normaliser) -> float:
    """Errors over what is to be said, in the unit of the normaliser; NaN where that is nothing.

    Example:
        >>> from lightning_audiorl.text import normaliser_for
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), text="Turn left.", duration_s=1.0, lang="en")
        >>> error_rate(row, "turn right", normaliser_for("en"))
        0.5
    """
    reference = normaliser.normalise(without_sounds(row.reference))
    hypothesis = normaliser.normalise(heard_words(row.reference, transcript))
    alignment = align(reference, hypothesis, normaliser.unit)
    if not alignment.reference:
        return math.nan
    return alignment.errors / len(alignment.reference)

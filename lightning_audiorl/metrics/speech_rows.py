"""What an evaluation of speech says of each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_audiorl.metrics.agreement import group_taus
from lightning_audiorl.metrics.roles import EAR, Judges
from lightning_audiorl.metrics.rows import Compared, Part, RowResult
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.text.compare import heard_words, without_sounds
from lightning_audiorl.text.normalise import Normaliser, normaliser_for
from lightning_audiorl.types import Hypothesis


def speech_row(
    group: Sequence[Hypothesis], judges: Judges, normalisers: Mapping[str, Normaliser]
) -> RowResult:
    """What the judges have heard of a row, and what that adds to the metrics that are ratios of counts.

    Args:
        group: its samples, with the transcripts of the judges.
        judges: by role.
        normalisers: by language code, in place of the built-in table.
    """
    row = group[0].row
    normaliser = normaliser_for(row.lang, normalisers)
    spoken = normaliser.normalise(without_sounds(row.reference))
    missing_stops = sum(not hypothesis.finished for hypothesis in group)
    parts: dict[str, Part] = {"missing_stop_rate": (float(missing_stops), float(len(group)))}

    texts = {}
    names = judges.names
    wrong: dict[str, list[int | None]] = {}
    for role, metric in _error_rates(judges).items():
        name = names.get(role, "")
        heard = [hypothesis.transcripts.get(name) for hypothesis in group]
        if heard[0] is not None:
            written = normaliser.normalise(heard_words(row.reference, heard[0]))
            texts[name] = Compared(heard[0], spoken, written, normaliser.unit)

        # A sample that the judge failed on is in no error rate.
        wrong[role] = []
        errors = 0
        characters = 0
        for text in heard:
            if text is None:
                wrong[role].append(None)
                continue
            edits, length = character_errors(row, text, normaliser)
            wrong[role].append(edits)
            errors += edits
            characters += length
        if any(text is not None for text in heard):
            parts[metric] = (float(errors), float(characters))

    for role, metric in _rank_agreements(judges).items():
        (tau,) = group_taus(wrong["judge"], wrong[role], [len(group)])
        if not math.isnan(tau):
            parts[metric] = (tau, 1.0)
    return RowResult(row, texts, parts)


def _error_rates(judges: Judges) -> dict[str, str]:
    """The error rate of each role of a judge that transcribes."""
    rates = {"judge": "cer", "held_out_judge": "held_out_cer"}
    for name in judges.ears:
        rates[f"{EAR}{name}"] = f"cer_by_{name}"
    return rates


def _rank_agreements(judges: Judges) -> dict[str, str]:
    """The rank agreement of each role of a judge that transcribes and is held out."""
    taus = {"held_out_judge": "judge_tau"}
    for name in judges.ears:
        taus[f"{EAR}{name}"] = f"judge_tau_by_{name}"
    return taus

"""Some clips before and after, word by word: what was wrong is marked."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import jiwer

from experiments.real.arms import ARMS
from experiments.real.records import REFERENCE, TEXTS_OF, of
from lightning_audiorl.text import LeaderboardNormaliser

_NORMALISER = LeaderboardNormaliser()
#: Clips of each set whose errors changed most, and clips of each kind of non-speech.
_PER_SET = 6
_LONGEST = 60


def marked(reference: str, text: str) -> str:
    """The words of a text, wrong ones bold, left-out ones struck through, both texts normalised.

    Example:
        >>> marked("bring an apple", "bring the apple now")
        'bring **the** apple **now**'
        >>> marked("good day", "day")
        '~~good~~ day'
    """
    wanted = _NORMALISER.normalise(reference).split()
    found = _NORMALISER.normalise(text).split()
    if not wanted or not found:
        words = [f"**{word}**" for word in found] or [f"~~{word}~~" for word in wanted]
        return html.escape(" ".join(words)) or "(nothing)"

    [chunks] = jiwer.process_words([" ".join(wanted)], [" ".join(found)]).alignments
    words = []
    for chunk in chunks:
        if chunk.type == "delete":
            words += [f"~~{word}~~" for word in wanted[chunk.ref_start_idx : chunk.ref_end_idx]]
            continue
        written = found[chunk.hyp_start_idx : chunk.hyp_end_idx]
        words += written if chunk.type == "equal" else [f"**{word}**" for word in written]
    return html.escape(" ".join(words))


def transcripts(kept: dict[str, Any]) -> str:
    """Tables of clips with speech, long audio and non-speech, seed 0."""
    runs = {}
    for arm in TEXTS_OF:
        found = [run for run in of(kept, arm) if "texts" in run]
        if found:
            runs[arm] = found[0]
    titles = [ARMS[arm] for arm in runs]

    parts = [
        "Seed 0. Words that are wrong or too many are **bold**, those left out ~~struck through~~, all normalised with "
        "numbers read. Prompts: those whose number of errors changed most between the arms."
    ]
    for name, title in {"prompts": "prompt", "long": "long audio"}.items():
        if name not in kept["rows"]:
            continue
        lines = []
        for number in _changed(list(runs.values()), name)[: _PER_SET if name == "prompts" else 2]:
            row = kept["rows"][name][number]
            cells = [
                _cut(marked(row["reference"], run["texts"][name][number])) for run in runs.values()
            ]
            lines.append([row["id"], *cells])
        parts.append(_table([title, *titles], lines))

    rows = kept["rows"]["nonspeech"]
    first = list({row["kind"]: number for number, row in reversed(list(enumerate(rows)))}.values())
    lines = []
    for number in sorted(first):
        cells = [_raw(run["nonspeech"][number]["text"]) for run in runs.values()]
        lines.append([f"{rows[number]['kind']} ({rows[number]['id']})", *cells])
    parts.append(_table(["non-speech, raw text", *titles], lines))
    return "\n\n".join(parts)


def _changed(runs: Sequence[dict[str, Any]], name: str) -> list[int]:
    """Numbers of the rows, those whose errors differ most between the runs first."""
    errors = []
    for run in runs:
        errors.append([sum(counts[:REFERENCE]) for counts in run["sets"][name]["numbers"]])
    span = [max(column) - min(column) for column in zip(*errors, strict=True)]
    return sorted(range(len(span)), key=lambda number: -span[number])


def _cut(text: str) -> str:
    """The beginning of a long text, about its first error."""
    words = text.split()
    if len(words) <= _LONGEST:
        return text
    wrong = [number for number, word in enumerate(words) if word.startswith(("**", "~~"))]
    begin = max(0, (wrong[0] if wrong else 0) - 10)
    return ("... " if begin else "") + " ".join(words[begin : begin + _LONGEST]) + " ..."


def _raw(text: str) -> str:
    return f"{html.escape(text[:120])}" or "(nothing)"


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows
    )

"""The fast reader of lines takes what Python's own reader takes, reads the same in it, and leaves all else to it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from lightning_audiorl.data.hypotheses import schema
from lightning_audiorl.data.hypotheses.schema import Predicted, Sample, SpeechSample, to_line
from lightning_audiorl.data.manifest import json_lines
from lightning_audiorl.data.mix.selection import Candidate, KeywordHeavy, choose
from lightning_audiorl.text import ErrorCounts, KeywordCounts
from lightning_audiorl.types import Utterance

ROW = {"id": 'a"b', "audio_filepath": "c/é.wav", "text": "你 \U0001f600 \\ x", "duration": 1.5}
OTHERS = {"none": None, "true": True, "whole": 12, "long": 10**30, "small": -0.0}

_HEARD = Sample(
    "t é", "greedy", 0, -1.25, 3, True, ErrorCounts(1, 2, 3, 4), ("loop", "x"), KeywordCounts(1, 1)
)
_SPOKEN = Sample(
    "",
    "sampled",
    1,
    -2.0,
    3,
    False,
    ErrorCounts(),
    (),
    KeywordCounts(),
    SpeechSample(None, 0.5, 1.0),
)

#: A line of each kind, its reader, and whether the fast one takes it.
LINES: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "row": (json.dumps({**ROW, **OTHERS}, ensure_ascii=False).encode(), json_lines.read_object),
    "row in ASCII": (json.dumps({**ROW, "text": "你 é"}).encode(), json_lines.read_object),
    "heard": (
        to_line(Predicted("a", "m", 'one "two"', "ff", (_HEARD,), 0.5)).encode(),
        schema.parse_line,
    ),
    "spoken": (
        to_line(Predicted("a", "m", "one", "ff", (_HEARD, _SPOKEN), 0.5, -1.0)).encode(),
        schema.parse_line,
    ),
}

#: What is put into lines: pieces of JSON, and what is none.
_PIECES = (
    *(b'"', b"\\", b'\\"', b"{", b"}", b"[", b"]", b",", b":", b"-", b".", b" ", b"\t", b"\x01"),
    *(b"1", b"0", b"1.0", b"e9", b"e400", b"9" * 30, b"9" * 5000, b"NaN", b"Infinity", b"null"),
    *(b"true", b"\xff", b"\xed\xa0\xbd", b"\\ud83d", b"\\u0000", b"\xef\xbb\xbf"),
    *(b'"id": "z", ', b'"\\u0069d": "q", ', b'"text": 1, ', b'"rules": [], ', b'"seconds": 1, '),
    *(b'"speech": null, ', b'"reference_logprob": null, ', b'"sample": 1, ', b'"other": {}, '),
)


def outcome(read: Callable[[bytes], Any], line: bytes) -> str:
    """What a line is read as, or how it is refused."""
    try:
        return repr(read(line))
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


def changed(line: bytes, draw: random.Random) -> bytes:
    """The line with one to three pieces put in or taken out, many of them where a field begins."""
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        at = draw.randrange(len(line))
        if draw.random() < 0.4:
            at = draw.choice([at for at in range(1, len(line)) if line[at - 1 : at + 1] == b' "'])
        if draw.random() < 0.3:
            line = line[:at] + line[at + draw.randrange(1, 6) :]
        else:
            line = line[:at] + draw.choice(_PIECES) + line[at + draw.choice([0, 0, 1, 3]) :]
    return line


@pytest.mark.parametrize("name", LINES)
def test_both_readers_agree_on_every_line(name: str) -> None:
    line, read = LINES[name]
    draw = random.Random(name)
    lines = [line, *(changed(line, draw) for _ in range(1200))]
    found = [outcome(read, line) for line in lines]
    with (
        patch.object(json_lines, "flat_object", return_value=None) as flat,
        patch.object(schema, "_plain_line", return_value=None),
    ):
        assert [outcome(read, line) for line in lines] == found
        assert flat.called
    # Both good and bad lines are among them.
    assert 100 < sum("Error: " in one for one in found) < 1200


@pytest.mark.parametrize("name", [name for name in LINES if name != "row"])
def test_what_is_written_here_is_read_by_the_fast_one(name: str) -> None:
    line, read = LINES[name]
    with (
        patch.object(json_lines, "_parsed", side_effect=AssertionError),
        patch.object(schema, "_checked", side_effect=AssertionError),
    ):
        read(line)


@pytest.mark.parametrize("line", [b'{"id": "a", "id": "a"}', b'{"\\u0069d": "a", "id": "a"}'])
def test_a_name_that_stands_twice_is_seen(line: bytes) -> None:
    with pytest.raises(json_lines.JsonLineError, match="`id`: stands twice in the line"):
        json_lines.read_object(line)


@pytest.mark.parametrize("rare_below", [2, 0.05])
def test_rare_words_are_those_of_a_plain_count(rare_below: float) -> None:
    draw = random.Random(0)
    words = [f"{letter * length}" for letter in "abcdefgh" for length in (2, 4, 5)]
    texts = [" ".join(draw.choices(words, k=6)) for _ in range(12)] + ["seldom", "ab cd"]
    rows = [Utterance(str(number), (), text, 1.0) for number, text in enumerate(texts)]
    said = [word for text in texts for word in text.split()]
    most = rare_below if rare_below >= 1 else rare_below * len(said)

    chosen = choose(
        KeywordHeavy(rare_below=rare_below, min_length=4),
        lambda: [Candidate(number, row) for number, row in enumerate(rows)],
        seed=0,
    )
    wanted = {}
    for row in rows:
        units = row.text.split()
        rare = [word for word in units if len(word) >= 4 and said.count(word) <= most]
        if rare:
            wanted[row.id] = len(rare) / len(units)
    assert {choice.id: choice.priority for choice in chosen.choices} == wanted
    assert 0 < len(wanted) < len(rows)

"""Lines of hypotheses and of texts to be spoken: as odd as those of manifests, and refused as clearly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.data import ManifestError, Texts
from lightning_audiorl.data.hypotheses.reader import HypothesisError, HypothesisFiles
from lightning_audiorl.data.hypotheses.schema import Predicted, read_hypotheses, to_line

GOOD = to_line(Predicted("a", "base", "one", "5d0c1e6a3f0b9d27", (), 0.5)).encode()
DEEP = b"[" * 100_000 + b"]" * 100_000

#: Of hypotheses: the line, and the field that is named.
LINES = {
    "5,000 digits": (GOOD.replace(b"0.5", b"1" + b"0" * 5000), "seconds"),
    "400 digits": (GOOD.replace(b"0.5", b"1" + b"0" * 400), "seconds"),
    "deep": (GOOD.replace(b"[]", DEEP), "(whole line)"),
    "an id twice": (GOOD.replace(b'"one"', b'"one", "id": "b"'), "id"),
    "an array": (b"[]", "(whole line)"),
    "latin 1": (GOOD.replace(b"one", b"caf\xe9"), "(whole line)"),
    "a number as a text": (GOOD.replace(b'"one"', b"1"), "reference"),
    "half a line": (GOOD[:-9], "(whole line)"),
}


@pytest.mark.fault(
    "Manifests",
    "a line of hypotheses with numbers of 5,000 digits, deep lists, a name twice or cut off",
    "an error that names file, line and field",
)
@pytest.mark.parametrize("name", LINES)
def test_a_line_of_hypotheses(tmp_path: Path, name: str) -> None:
    line, field = LINES[name]
    path = tmp_path / "h.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n")
    with pytest.raises(HypothesisError) as caught:
        list(read_hypotheses(path))
    assert str(caught.value).startswith(f"{path}, line 2, field `{field}`: ")


def test_a_folder_of_hypotheses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        HypothesisFiles([str(tmp_path)])


@pytest.mark.fault(
    "Manifests",
    "a file of texts to be spoken with a byte order mark, Windows line ends, NUL, half an emoji, other encodings",
    "marks and line ends are no text; what cannot be said is refused by file and line",
)
def test_texts_to_be_spoken(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two \r\n")
    rows = Texts(str(path))
    assert [(row.id, row.text) for row in rows] == [("texts:1", "one"), ("texts:3", "two")]

    def refused(content: bytes, says: str, name: str = "odd.txt") -> None:
        odd = tmp_path / name
        odd.write_bytes(content)
        with pytest.raises(ManifestError, match=says) as caught:
            Texts(str(odd))
        assert str(caught.value).startswith(str(odd))

    refused(b"one\ntwo\0\n", "line 2, field `text`: holds a NUL")
    refused(b"one\ncaf\xe9\n", "line 2, field `text`: is not UTF-8")
    refused("one".encode("utf-16"), "is in UTF-16")
    refused(b"\x1f\x8b\x08\0", "is compressed")
    refused(b"\n \n", "there is no text")

    lines: list[tuple[bytes, str]] = [
        (rb'{"text": "one \ud83d"}', "line 1, field `text`: holds half"),
        (b'{"text": ' + DEEP + b"}", "line 1, field `.whole line.`: is nested deeper"),
        (b'{"text": 1' + b"0" * 5000 + b"}", "line 1, field `text`: is a number of thousands"),
        (b'{"text": 1' + b"0" * 400 + b"}", "line 1, field `text`: expected a string"),
        (b'{"text": "one", "duration": 1e999}', "line 1, field `duration`"),
        (b'{"text": "one", "duration": 0}', "line 1, field `duration`: is 0"),
        (b'{"sentence": "one"}', "line 1, field `text`: .*`sentence`"),
        (b'{"text": "one", "lang_id": "de"}', "line 1, field `lang_id`: .*`lang`"),
    ]
    for line, says in lines:
        refused(line, says, "odd.jsonl")

    with pytest.raises(FileNotFoundError, match="it is a folder"):
        Texts(str(tmp_path))
    half: Any = json.loads(r'["one", "two \ud83d"]')
    with pytest.raises(ManifestError, match="line 2, field `text`: holds half"):
        Texts(lines=half)

"""Lists of words are drawn by key: right, wrong or none, and no distractor is said."""

from __future__ import annotations

import json
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.data import (
    AsrDataModule,
    Hotwords,
    ManifestError,
    ManifestRows,
    Subset,
    WithHotwords,
    write_manifest,
)
from lightning_audiorl.data.hypotheses.writer import survey_rows
from lightning_audiorl.types import Utterance
from tests.data.fakes import write_tone

NAMES = [f"name {number}" for number in range(30)]


@pytest.fixture
def words(tmp_path: Path) -> str:
    file = tmp_path / "words.txt"
    file.write_text("\n".join([*NAMES, "anna", "", "call", NAMES[0]]))
    return str(file)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    write_tone(tmp_path / "a.wav", 0.2)
    rows = []
    for number in range(6):
        row = {"audio_filepath": "a.wav", "id": f"r{number}", "text": f"call anna, name {number}"}
        rows.append({**row, "keywords": ["anna"]})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path / "m.jsonl")


def row_of(number: int, **fields: Any) -> Utterance:
    return Utterance(f"r{number}", (), "Call Anna, name 3!", 1.0, keywords=("anna",), **fields)


def test_lists_are_right_wrong_or_none_by_their_shares(words: str) -> None:
    hotwords = Hotwords([0, 10], words, share_wrong=0.3, share_without=0.2)
    kinds = {"right": 0, "wrong": 0, "none": 0}
    lengths = set()
    first = 0
    for number in range(300):
        listed = hotwords.apply(row_of(number), 0, 1).hotwords
        kind = "right" if "anna" in listed else "wrong" if listed else "none"
        kinds[kind] += 1
        first += listed[:1] == ("anna",) and len(listed) > 1
        lengths.add((kind, len(listed)))
        # Neither what is said nor what is listed before comes as a distractor.
        assert not {"call", "name 3"} & set(listed)
        assert len(set(listed)) == len(listed)

    assert lengths == {("right", 1), ("right", 11), ("wrong", 10), ("none", 0)}
    assert 60 < kinds["wrong"] < 120
    assert 35 < kinds["none"] < 85
    assert first < 30


def test_the_draw_is_the_keys_own(words: str) -> None:
    hotwords = Hotwords([10], words)
    lists = {hotwords.apply(row_of(0), 0, step).hotwords for step in range(5)}
    assert len(lists) == 5
    again = pickle.loads(pickle.dumps(hotwords))
    assert again.apply(row_of(0), 0, 4).hotwords in lists
    assert hotwords.apply(row_of(1), 0, 4).hotwords not in lists

    # A row keeps a list of its own, also an empty one; without words a row is what it was.
    own = row_of(0, extra={"hotwords": ["name 7"]})
    assert hotwords.apply(own, 0, 1) is own
    empty = row_of(0, extra={"hotwords": []})
    assert hotwords.apply(empty, 0, 1) is empty
    silent = Utterance("s", (), "", 1.0)
    assert Hotwords().apply(silent, 0, 1) is silent


def test_a_batch_has_the_lists_of_its_step(manifest: str, words: str) -> None:
    def data(**settings: Any) -> AsrDataModule:
        return AsrDataModule([Subset(manifest)], batch_size=4, **settings)

    hotwords = Hotwords([3], words)
    straight = list(islice(data(hotwords=hotwords).train_dataloader(), 4))
    plain = list(islice(data().train_dataloader(), 4))
    assert [batch.ids for batch in straight] == [batch.ids for batch in plain]
    assert all(not row.hotwords for batch in plain for row in batch.rows)
    lists = [[row.hotwords for row in batch.rows] for batch in straight]
    assert all(len(words) == 4 for batch in lists for words in batch)

    # Begun in the middle, or read by other processes, a step's lists are the same.
    resumed = data(hotwords=hotwords, num_workers=1)
    resumed.next_step = 2
    for batch, expected in zip(islice(resumed.train_dataloader(), 2), straight[2:], strict=True):
        assert batch.rows == expected.rows
    refilled = data(hotwords=hotwords).refill(1, 1, 2)
    assert all(len(row.hotwords) == 4 for row in refilled.rows)


def test_evaluation_sets_differ_in_their_lists_alone(manifest: str, words: str) -> None:
    rows = ManifestRows(manifest)
    right = WithHotwords(rows, Hotwords([5], words))
    wrong = WithHotwords(rows, Hotwords([5], words, share_wrong=1.0))
    assert [row.id for row in right] == [row.id for row in wrong] == [row.id for row in rows]
    assert all("anna" in row.hotwords for row in right)
    assert all("anna" not in row.hotwords and len(row.hotwords) == 5 for row in wrong)
    assert [row.hotwords for row in right] == [row.hotwords for row in right]
    # Hypotheses of one are no hypotheses of the other.
    contents = {survey_rows(source).content for source in (rows, right, wrong)}
    assert len(contents) == 3


def test_a_manifest_keeps_its_lists(manifest: str, words: str, tmp_path: Path) -> None:
    source = WithHotwords(ManifestRows(manifest), Hotwords([5], words))
    write_manifest(source, str(tmp_path / "lists.jsonl"))
    again = ManifestRows(str(tmp_path / "lists.jsonl"))
    assert [row.hotwords for row in again] == [row.hotwords for row in source]


@pytest.mark.fault(
    "Manifests",
    "a row whose `hotwords` are no list of words",
    "the manifest's line and field are named",
)
def test_hotwords_are_a_list_of_words(manifest: str) -> None:
    row = json.loads(Path(manifest).read_text().splitlines()[0])
    Path(manifest).write_text(json.dumps({**row, "hotwords": "anna"}))
    with pytest.raises(ManifestError, match="line 1, field `hotwords`: expected a list of strings"):
        list(ManifestRows(manifest))
    with pytest.raises(ValueError, match="row 'r1', field `hotwords`: expected a list of strings"):
        _ = row_of(1, extra={"hotwords": "anna"}).hotwords


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"sizes": [10]}, r"sizes: 10 distractors are wanted; name a text file"),
    "missing": ({"sizes": [10], "distractors": "no.txt"}, r"no.txt: No such file .*; name a text"),
    "empty": ({"sizes": [1], "distractors": "empty.txt"}, "holds no word; write one in each line"),
    "binary": ({"sizes": [1], "distractors": "binary.txt"}, "byte 0 is no UTF-8; save it as UTF-8"),
    "short": ({"sizes": [0, 100], "distractors": "words.txt"}, "100 .* wanted, and .* has 32; add"),
    "no size": ({"sizes": []}, "at least one number"),
    "negative": ({"sizes": [-1]}, r"Hotwords.sizes"),
    "wrong list of nothing": ({"share_wrong": 0.5}, "give a size above 0"),
    "shares": ({"sizes": [0], "share_without": 1.5}, r"Hotwords.share_without"),
    "both shares": (
        {"sizes": [1], "distractors": "words.txt", "share_wrong": 0.6, "share_without": 0.6},
        "are above 1 together",
    ),
}


@pytest.mark.fault(
    "Settings and messages",
    "hotwords without a file of distractors, or with one that is missing, empty, no text or too short",
    "the setting and the file are named before anything is read",
)
@pytest.mark.parametrize("name", BAD)
def test_settings_that_cannot_be_are_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=message):
        Hotwords(**settings)

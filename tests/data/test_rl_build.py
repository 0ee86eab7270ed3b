from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from lightning_audiorl.data import FsddDigits, NonSpeech, RowSource
from lightning_audiorl.data.hypotheses.reader import HypothesisError
from lightning_audiorl.data.manifest.files import ManifestRows
from lightning_audiorl.data.mix.build import MixPlan, read_summary
from lightning_audiorl.data.mix.selection import SubsetBuilder
from lightning_audiorl.data.mix.selection.by_hypotheses import Hallucinating
from lightning_audiorl.data.mix.selection.by_metadata import Length, RandomControl
from lightning_audiorl.data.mix.spec import RLSubset, describe
from lightning_audiorl.data.mix.writer import MixWriter
from lightning_audiorl.types import Segment, Utterance
from tests.data.mixes import (
    HighFirst,
    built,
    ids,
    plan,
    write_hypotheses,
    write_noise,
    write_rows,
    write_set,
)


class Listed(RowSource):
    """Given rows."""

    def __init__(self, rows: list[Utterance]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self.rows[index]


@pytest.fixture
def train(tmp_path: Path) -> str:
    return write_set(tmp_path, "train", 12, seed=0)


def figures(folder: Path, name: str) -> dict[str, Any]:
    subset: dict[str, Any] = read_summary(folder)["subsets"][name]
    return subset


def test_rows_say_why_they_were_chosen(tmp_path: Path, train: str) -> None:
    rule = HighFirst(3, low=5)
    folder = plan(tmp_path, {"high": RLSubset(train, rule)}).build()
    rows = built(folder, "high")
    assert [row.id for row in rows] == ["train11", "train10", "train9"]
    assert [row.extra["chosen_because"] for row in rows] == ["number 11", "number 10", "number 9"]
    assert {row.extra["subset"] for row in rows} == {"high"}
    assert all(Path(row.segments[0].audio_filepath).is_absolute() for row in rows)
    expected = {row.id: row for row in ManifestRows(train)}
    assert all(replace(row, extra={}) == expected[row.id] for row in rows)

    found = figures(folder, "high")
    assert (found["seen"], found["kept"], found["wanted"], found["refused"]) == (12, 3, 3, 0)
    assert found["removed"] == {"number below 5": 5}
    assert abs(found["hours"] * 3600 - (0.21 + 0.20 + 0.19)) < 1e-6
    assert found["lengths"]["0-1 s"] == 3
    page = (folder / "summary.md").read_text()
    assert "| high | 1 | HighFirst | 12 | 5 | 0 | 3 |" in page
    assert f"{'0-1 s':>10} {'#' * 40} 3" in page


@pytest.mark.parametrize("way", ["copy", "flac", "cut"])
def test_a_planted_evaluation_row_is_refused_and_the_next_takes_its_place(
    way: str, tmp_path: Path, train: str, caplog: pytest.LogCaptureFixture
) -> None:
    test = write_set(tmp_path, "test", 3, seed=500)
    audio = tmp_path / "train" / "9.wav"
    if way == "copy":
        shutil.copy(tmp_path / "test" / "1.wav", audio)
        planted: dict[str, Any] = {"audio_filepath": str(audio)}
    elif way == "flac":
        samples, rate_hz = soundfile.read(tmp_path / "test" / "1.wav", dtype="int16")
        audio.unlink()
        soundfile.write(audio.with_suffix(".flac"), samples, rate_hz, subtype="PCM_16")
        planted = {"audio_filepath": str(audio.with_suffix(".flac"))}
    else:
        shutil.copy(tmp_path / "test" / "1.wav", tmp_path / "harmless.wav")
        part = {"audio_filepath": str(tmp_path / "harmless.wav"), "offset": 0.02, "duration": 0.05}
        planted = {
            "segments": [{"audio_filepath": str(audio), "duration": 0.1}, part | {"gap": 0.1}]
        }
    rows = [json.loads(line) for line in Path(train).read_text().splitlines()]
    rows[9] = {"id": "train9", "text": "say 9", **planted}
    write_rows(Path(train), rows)

    subsets = {"high": RLSubset(train, HighFirst(3))}
    folder = plan(
        tmp_path, subsets, kept_out={"val/a": [], "test/talk": ManifestRows(test)}
    ).build()
    assert ids(folder, "high") == ["train11", "train10", "train8"]
    found = figures(folder, "high")
    assert (found["refused"], found["kept"]) == (1, 3)
    (why,) = found["refused_first"]
    assert why.startswith("row 'train9': ")
    assert why.endswith("test/talk row 'test1'")
    assert f"- refused: {why}" in (folder / "summary.md").read_text()
    assert ids(plan(tmp_path, subsets).build(), "high") == ["train11", "train10", "train9"]


def test_more_refusals_than_the_reserve_holds_are_replaced_too(tmp_path: Path, train: str) -> None:
    rows = ManifestRows(train)
    kept_out = {"val/a": [rows[i] for i in (11, 10, 9, 8, 7, 6, 5)]}
    folder = plan(tmp_path, {"high": RLSubset(train, HighFirst(3))}, kept_out=kept_out).build()
    assert ids(folder, "high") == ["train4", "train3", "train2"]
    found = figures(folder, "high")
    assert found["refused"] == 7
    assert len(found["refused_first"]) == 5
    assert "- refused: 2 more" in (folder / "summary.md").read_text()
    kept_out = {"val/a": list(rows)[2:]}
    short = plan(tmp_path, {"high": RLSubset(train, HighFirst(3))}, kept_out=kept_out)
    assert ids(short.build(), "high") == ["train1", "train0"]
    assert "| 2; 3 rows were asked for |" in (short.folder() / "summary.md").read_text()


@pytest.mark.parametrize("first", ["plain", "made"])
def test_a_constructed_row_inherits_refusals(first: str, tmp_path: Path, train: str) -> None:
    """Here the made row's audio was rendered into a new file, so that only the id of its source tells."""
    rendered = [
        Utterance(
            f"made{i}",
            (Segment(str(write_noise(tmp_path / f"made{i}.wav", 90 + i))),),
            f"say {i}",
            0.1,
            extra=e,
        )
        for i, e in enumerate([{"sources": ["train4", "train9"]}, {"sources": ["train3"]}])
    ]
    subsets = {"plain": RLSubset(train), "made": RLSubset(Listed(rendered))}
    order = {first: subsets.pop(first)} | subsets
    folder = plan(tmp_path, order, kept_out={"val/a": [ManifestRows(train)[9]]}).build()
    assert ids(folder, "made") == ["made1"]
    assert built(folder, "made")[0].extra["sources"] == ["train3"]
    assert figures(folder, "made")["refused_first"] == [
        "row 'made0': is made from row 'train9', which was refused"
    ]
    assert figures(folder, "plain")["kept"] == 11
    assert read_summary(folder)["overlap"]["rows"]["made"] == {"made": 1, "plain": 1}


def test_overlap_counts_source_rows_and_audio(tmp_path: Path, train: str) -> None:
    rows = list(ManifestRows(train))
    segments = rows[0].segments + rows[1].segments
    joined = [
        Utterance("j", segments, "say 0 say 1", 0.21, extra={"sources": ["train0", "train1"]})
    ]
    renamed = [replace(row, id=f"other-{row.id}") for row in rows[1:4]]
    subsets = {
        "all": RLSubset(train),
        "joined": RLSubset(Listed(joined)),
        "renamed": RLSubset(Listed(renamed)),
    }
    overlap = read_summary(plan(tmp_path, subsets).build())["overlap"]
    assert overlap["rows"] == {
        "all": {"all": 12, "joined": 2, "renamed": 0},
        "joined": {"all": 2, "joined": 2, "renamed": 0},
        "renamed": {"all": 0, "joined": 0, "renamed": 3},
    }
    assert overlap["audio"]["renamed"] == {"all": 3, "joined": 1, "renamed": 3}


def test_a_control_follows_another_subset(tmp_path: Path, train: str) -> None:
    high = HighFirst(4)
    subsets = {
        "control": RLSubset(train, RandomControl(like="high", bin_s=0.05)),
        "high": RLSubset(train, high),
    }
    folder = plan(tmp_path, subsets).build()
    control = built(folder, "control")
    assert not {row.id for row in control} & set(ids(folder, "high"))
    assert [0.15 <= row.duration_s < 0.2 for row in control] == [True, True]
    assert list(read_summary(folder)["subsets"]) == ["control", "high"]
    with pytest.raises(
        ValueError,
        match=r"subset 'control' is like 'hard', which does not exist; there are control",
    ):
        plan(tmp_path, {"control": RLSubset(train, RandomControl(like="hard"))}).build()
    circle = {
        "a": RLSubset(train, RandomControl(like="b")),
        "b": RLSubset(train, RandomControl(like="a")),
    }
    with pytest.raises(ValueError, match=r"in a circle: a is like b, b is like a"):
        plan(tmp_path, circle).build()


def _new_text(folder: Path) -> None:
    manifest = folder / "train.jsonl"
    manifest.write_text(manifest.read_text().replace("say 3", "say 103"))


def _new_field(folder: Path) -> None:
    manifest = folder / "train.jsonl"
    manifest.write_text(manifest.read_text().replace('"say 3"', '"say 3", "speaker": "ann"'))


def _new_hypotheses(folder: Path) -> None:
    write_hypotheses(folder / "h.jsonl", str(folder / "train.jsonl"), ["train2", "train5"])


def _new_training_audio(folder: Path) -> None:
    write_noise(folder / "train" / "2.wav", 777, 0.12)


def _new_evaluation_audio(folder: Path) -> None:
    write_noise(folder / "val" / "0.wav", 778)


def _new_evaluation_row(folder: Path) -> None:
    write_set(folder, "val", 3, seed=300)


def _nothing(folder: Path) -> None:
    return


def _touch(folder: Path) -> None:
    for path in [*folder.rglob("*.wav"), *folder.glob("*.jsonl")]:
        os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        (_nothing, False),
        (_touch, False),
        (_new_field, True),
        (_new_hypotheses, True),
        (_new_training_audio, True),
        (_new_evaluation_audio, True),
        (_new_evaluation_row, True),
    ],
)
def test_a_mix_is_built_again_when_what_went_into_it_changed(
    change: Callable[[Path], None],
    rebuilt: bool,
    tmp_path: Path,
    train: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_set(tmp_path, "val", 2, seed=300)
    write_hypotheses(tmp_path / "h.jsonl", train, ["train2", "train7"])
    builds: list[Path] = []
    write = MixWriter.write

    def count(self: MixWriter, folder: Path, key: str) -> None:
        builds.append(folder)
        write(self, folder, key)

    monkeypatch.setattr(MixWriter, "write", count)

    def build() -> Path:
        looping = RLSubset(train, Hallucinating(), [str(tmp_path / "h.jsonl")])
        kept_out = {"val/a": ManifestRows(str(tmp_path / "val.jsonl"))}
        return plan(
            tmp_path, {"high": RLSubset(train, HighFirst(9)), "loop": looping}, kept_out=kept_out
        ).build()

    first = build()
    HighFirst.judged.clear()
    change(tmp_path)
    second = build()
    assert len(builds) == 1 + rebuilt
    assert bool(HighFirst.judged) == rebuilt
    assert build() == second
    assert len(builds) == 1 + rebuilt
    assert read_summary(second)["key"] == second.name
    if not rebuilt or change is _new_training_audio:
        assert second == first
    else:
        assert second != first
    if change is _new_hypotheses:
        assert sorted(ids(second, "loop")) == ["train2", "train5"]


def test_changed_training_audio_that_is_now_an_evaluation_row_is_refused(
    tmp_path: Path, train: str
) -> None:
    val = ManifestRows(write_set(tmp_path, "val", 2, seed=300))
    mix = plan(tmp_path, {"high": RLSubset(train, HighFirst(2))}, kept_out={"val/a": val})
    assert ids(mix.build(), "high") == ["train11", "train10"]
    shutil.copy(tmp_path / "val" / "0.wav", tmp_path / "train" / "10.wav")
    assert ids(mix.build(), "high") == ["train11", "train9"]
    write_noise(tmp_path / "train" / "10.wav", 10, 0.2)
    assert ids(mix.build(), "high") == ["train11", "train10"]


SETTINGS: list[Callable[[str], MixPlan | dict[str, RLSubset]]] = [
    lambda train: {"a": RLSubset(train, HighFirst(2))},
    lambda train: {"a": RLSubset(train, HighFirst(3))},
    lambda train: {"a": RLSubset(train, HighFirst(2, low=1))},
    lambda train: {"a": RLSubset(train, Length(2, min_s=0.05))},
    lambda train: {"a": RLSubset(train)},
    lambda train: {"b": RLSubset(train, HighFirst(2))},
    lambda train: {"a": RLSubset(train, HighFirst(2), share={0: 1.0})},
    lambda train: {"a": RLSubset(train, HighFirst(2), allow_empty_text=True)},
    lambda train: {"a": RLSubset(train, HighFirst(2)), "b": RLSubset(train)},
    lambda train: {"a": RLSubset(NonSpeech(5))},
    lambda train: {"a": RLSubset(NonSpeech(6))},
]


def test_every_setting_is_in_the_key(tmp_path: Path, train: str) -> None:
    folders = [plan(tmp_path, make(train)).folder() for make in SETTINGS]
    folders.append(plan(tmp_path, SETTINGS[0](train), seed=1).folder())
    assert len(set(folders)) == len(SETTINGS) + 1
    assert [plan(tmp_path, make(train)).folder() for make in SETTINGS] == folders[:-1]


def test_a_mix_depends_on_seed_alone(tmp_path: Path, root: str) -> None:
    digits = FsddDigits(root, num_rows=60)

    def rows(cache: str, seed: int) -> list[str]:
        subsets = {
            "a": RLSubset(digits, RandomControl(20)),
            "b": RLSubset(digits, RandomControl(20)),
        }
        folder = plan(tmp_path, subsets, seed=seed, cache_dir=str(tmp_path / cache)).build()
        return [*ids(folder, "a"), *ids(folder, "b")]

    assert rows("one", 0) == rows("two", 0) != rows("one", 1)
    assert rows("one", 0)[:20] != rows("one", 0)[20:]


def test_other_sources_are_written_as_manifests(tmp_path: Path, root: str) -> None:
    digits, noise = FsddDigits(root, num_rows=5), NonSpeech(4, min_s=0.1, max_s=0.2)
    subsets = {"digits": RLSubset(digits, share=0.75), "noise": RLSubset(noise, share=0.25)}
    folder = plan(tmp_path, subsets).build()
    for name, source in (("digits", digits), ("noise", noise)):
        rows = {row.id: row for row in built(folder, name)}
        assert len(rows) == len(source)
        for row in source:
            extra = {**row.extra, "subset": name, "chosen_because": "every row"}
            assert rows[row.id] == replace(row, extra=extra)


def test_an_empty_subset_says_which_rule_removed_what(tmp_path: Path, train: str) -> None:
    with pytest.raises(
        ValueError, match=r"subset 'long' .*empty: of 12 rows removed: 12 x not longer than 20 s"
    ):
        plan(tmp_path, {"long": RLSubset(train, Length())}).build()
    kept_out = {"val/all": ManifestRows(train)}
    with pytest.raises(
        ValueError,
        match=r"'high' is empty: of 12 rows, all 12 .* hold evaluation audio; row 'train11'",
    ):
        plan(tmp_path, {"high": RLSubset(train, HighFirst(3))}, kept_out=kept_out).build()
    assert list((tmp_path / "mixes").iterdir()) == []


def test_hypotheses_must_be_those_of_the_rows(tmp_path: Path, train: str) -> None:
    needing = {"loop": RLSubset(train, Hallucinating())}
    with pytest.raises(
        ValueError, match=r"subset 'loop': Hallucinating judges by hypotheses; .*audiorl predict"
    ):
        plan(tmp_path, needing).build()
    path = write_hypotheses(tmp_path / "h.jsonl", train, ["train2"])
    looping = {"loop": RLSubset(train, Hallucinating(), [path])}
    assert ids(plan(tmp_path, looping).build(), "loop") == ["train2"]
    _new_text(tmp_path)
    with pytest.raises(
        HypothesisError, match=r"h.jsonl, line 4, field `reference`: row 'train3' had 'say 3'"
    ):
        plan(tmp_path, looping).build()
    with pytest.raises(FileNotFoundError, match=r"gone.jsonl"):
        plan(
            tmp_path, {"loop": RLSubset(train, Hallucinating(), [str(tmp_path / "gone.jsonl")])}
        ).build()


@pytest.mark.parametrize("again", [False, True])
def test_a_killed_build_leaves_nothing_half_done(
    again: bool, tmp_path: Path, train: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = plan(tmp_path, {"a": RLSubset(train, HighFirst(2)), "b": RLSubset(train)})
    if again:
        shutil.rmtree(tmp_path / "mixes", ignore_errors=True)
        before = mix.build()
        _new_training_audio(tmp_path)
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(
            "lightning_audiorl.data.mix.writer.markdown", lambda summary: os._exit(9)
        )
        mix.build()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    left = sorted(path.name for path in (tmp_path / "mixes").iterdir())
    assert left[0].startswith(".building-")
    assert left[1:] == ([before.name] if again else [])
    for path in (tmp_path / "mixes").glob(".building-*"):
        assert len(list(path.iterdir())) >= 4
        os.utime(path, (1, 1))
    folder = mix.build()
    assert (len(ids(folder, "a")), len(ids(folder, "b"))) == (2, 12)
    assert [path.name for path in (tmp_path / "mixes").iterdir()] == [folder.name]


def test_two_builds_at_once_agree(
    tmp_path: Path, train: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = plan(tmp_path, {"a": RLSubset(train, HighFirst(2))})
    write = MixWriter.write

    def other_first(self: MixWriter, folder: Path, key: str) -> None:
        monkeypatch.setattr(MixWriter, "write", write)
        assert mix.build().name == key
        write(self, folder, key)

    monkeypatch.setattr(MixWriter, "write", other_first)
    folder = mix.build()
    assert [path.name for path in (tmp_path / "mixes").iterdir()] == [folder.name]
    assert ids(folder, "a") == ["train11", "train10"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [0.5, 0.4],
            r"add up to 0.9 at step 0 \(a 0.5 \+ b 0.4\), want 1; in the same proportions: a: 0.555556",
        ),
        ([0.5, None], "b has none; give one to every subset"),
        ([1.5, -0.5], "subset 'b': want shares of 0 or more, got -0.5"),
        ([{}, 1.0], "subset 'a': want shares of 0 or more, got {}"),
        ([{0: 1.0, 10: 0.5}, {0: 0.0, 20: 0.5}], r"add up to 0.5 at step 10 \(a 0.5 \+ b 0\)"),
        ([{5: 0.5}, {5: 0.5}], "add up to 0 at step 0 .* give at least one subset a share"),
        ([{0: 0.5, 9: 0.6}, 0.5], "add up to 1.1 at step 9"),
    ],
)
def test_shares_that_do_not_add_up_are_named(
    given: list[Any], message: str, tmp_path: Path
) -> None:
    subsets = {
        name: RLSubset(NonSpeech(3), share=share) for name, share in zip("ab", given, strict=True)
    }
    with pytest.raises(ValueError, match=message):
        plan(tmp_path, subsets).build()


def test_subsets_without_shares_get_the_same(tmp_path: Path) -> None:
    noise = NonSpeech(3, min_s=0.1, max_s=0.2)
    folder = plan(tmp_path, {name: RLSubset(noise) for name in "abc"}).build()
    assert [figures(folder, name)["share"] for name in "abc"] == [1 / 3] * 3
    changing = {
        "a": RLSubset(noise, share={0: 1.0, 4: 0.25}),
        "b": RLSubset(noise, share={4: 0.75}),
    }
    assert (
        "1 from step 0, 0.25 from step 4"
        in (plan(tmp_path, changing).build() / "summary.md").read_text()
    )


def test_bad_names_and_ids_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no subset"):
        plan(tmp_path, {}).build()
    with pytest.raises(ValueError, match=r"subset '../a': a name has letters"):
        plan(tmp_path, {"../a": RLSubset(NonSpeech(3))}).build()
    twice = Listed([NonSpeech(1)[0], NonSpeech(1)[0]])
    with pytest.raises(
        ValueError, match=r"subset 'a': two rows of its source have the id 'nonspeech-silence"
    ):
        plan(tmp_path, {"a": RLSubset(twice)}).build()


class Odd(SubsetBuilder):
    judge = HighFirst.judge

    def __init__(self, odd: Any) -> None:
        super().__init__()
        self.odd = odd


def test_settings_are_described_by_value() -> None:
    assert describe(Odd({"b", "a"})) == describe(Odd(frozenset({"a", "b"})))
    assert describe(Odd(HighFirst(3))) == describe(Odd(HighFirst(3))) != describe(Odd(HighFirst(4)))
    assert describe(Odd(NonSpeech(3))) == describe(Odd(NonSpeech(3))) != describe(Odd(NonSpeech(4)))
    assert describe(Odd(Segment("a"))) != describe(Odd(Segment("b")))
    with pytest.raises(TypeError, match=r"holds a builtins\.object, whose settings cannot be seen"):
        describe(Odd(object()))

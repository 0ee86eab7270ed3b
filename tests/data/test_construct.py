"""Rows made of other rows: what they are joined from, exact durations, determinism, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from lightning_audiorl.data.audio.effects import Degraded
from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.manifest.files import read_manifest, write_manifest
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.transforms.concatenate import (
    JoinedNeighbours,
    PhraseRepeated,
    join_texts,
)
from lightning_audiorl.data.transforms.noise_padding import NoisePadded
from lightning_audiorl.types import Segment, Utterance
from tests.helpers import assert_close

RATE_HZ = 8000


class Given(RowSource):
    """The rows given; counts how many were asked for."""

    def __init__(self, rows: Sequence[Utterance]) -> None:
        self.rows, self.num_asked = rows, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        self.num_asked += 1
        return self.rows[index]


def cut(
    path: str, first_s: float, duration_s: float, name: str = "", **fields: object
) -> Utterance:
    """A row cut from a file; its id and text name file and offset."""
    name = name or f"{Path(path).stem}-{first_s:g}"
    fields = {"text": name, "speaker": "ann", **fields}
    return Utterance(name, (Segment(path, duration_s, first_s),), duration_s=duration_s, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two recordings of 40 s of noise without a quiet sample."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, name in enumerate("ab"):
        wave = 0.2 + 0.1 * torch.rand(40 * RATE_HZ, generator=torch.Generator().manual_seed(number))
        soundfile.write(folder / f"{name}.wav", wave.numpy(), RATE_HZ, subtype="FLOAT")
    return {name: str(folder / f"{name}.wav") for name in "ab"}


@pytest.fixture
def source(recordings: dict[str, str]) -> Given:
    """20 rows of 1.5 s, one each 2 s, from both recordings, in no good order."""
    rows = [cut(recordings[name], 2.0 * n, 1.5) for n in range(20) for name in "ba"]
    return Given(rows[::-1])


def test_joined_rows_are_the_recording_with_its_true_gaps(
    source: Given, recordings: dict[str, str]
) -> None:
    joined = JoinedNeighbours(source, min_s=4.0, max_s=9.0)
    assert source.num_asked == 0, "read before a row is asked for"
    assert len(joined) >= 6
    used: list[str] = []
    for row in joined:
        first = row.segments[0]
        assert {segment.audio_filepath for segment in row.segments} == {first.audio_filepath}
        assert [s.offset_s for s in row.segments] == [
            first.offset_s + 2.0 * n for n in range(len(row.segments))
        ]
        assert [s.gap_s for s in row.segments] == [0.0] + [0.5] * (len(row.segments) - 1)
        assert 4.0 <= row.duration_s <= 9.0
        assert row.extra["sources"] == row.text.split()
        assert row.speaker == "ann"
        wave = read_audio(row, RATE_HZ)
        assert len(wave) == round(row.duration_s * RATE_HZ)
        whole = read_audio(
            Utterance("", (Segment(first.audio_filepath, row.duration_s, first.offset_s),), "", 0),
            8000,
        )
        said = (torch.arange(len(wave)) % (2 * RATE_HZ)) < 1.5 * RATE_HZ
        assert_close(wave, torch.where(said, whole, 0.0), "exact")
        used += row.extra["sources"]
    assert len(used) == len(set(used)), "a source row is in two made rows"
    assert {name[0] for name in used} == {"a", "b"}
    assert len({round(row.duration_s, 1) for row in joined}) > 1, "lengths are drawn"


def test_joined_rows_are_always_the_same_and_ids_tell_settings_apart(source: Given) -> None:
    def made(**settings: object) -> list[Utterance]:
        return list(JoinedNeighbours(source, **{"min_s": 4.0, "max_s": 9.0, **settings}))  # type: ignore[arg-type]

    rows = made()
    assert made() == rows
    assert len({row.id for row in rows}) == len(rows)
    for other in (made(seed=1), made(max_s=8.0), made(gap_s=(0.1, 0.2))):
        assert not {row.id for row in other} & {row.id for row in rows}
    assert [row.segments for row in made(seed=1)] != [row.segments for row in rows]
    few = made(num_rows=3)
    assert len(few) == 3
    assert [row for row in rows if row in few] == few
    assert len({tuple(row.id for row in made(num_rows=3, seed=seed)) for seed in range(4)}) > 1


def test_drawn_gaps_between_rows_of_one_recording(source: Given) -> None:
    rows = list(JoinedNeighbours(source, min_s=4.0, max_s=9.0, gap_s=(0.2, 0.3)))
    gaps_s = [segment.gap_s for row in rows for segment in row.segments[1:]]
    assert all(0.2 <= gap_s <= 0.3 for gap_s in gaps_s)
    assert len(set(gaps_s)) > 3
    for row in rows:
        assert len(read_audio(row, RATE_HZ)) == round(row.duration_s * RATE_HZ)


def test_neighbours_of_one_speaker_in_source_order(recordings: dict[str, str]) -> None:
    rows = [
        replace(
            cut(recordings["ab"[n % 2]], 1.0 * n, 1.0, f"{n:02}"),
            speaker="ann" if n % 3 else "bob",
            lang=lang,
        )
        for n, lang in enumerate(["en", "en", "zh", "zh"] * 8)
    ]
    joined = list(
        JoinedNeighbours(Given(rows), min_s=2.5, max_s=5.0, by="speaker", gap_s=(0.1, 0.4), seed=3)
    )
    group_of = {row.id: (row.speaker, row.lang) for row in rows}
    assert {row.speaker for row in joined} == {"ann", "bob"}
    assert {row.lang for row in joined} == {"en", "zh"}
    for row in joined:
        sources = row.extra["sources"]
        assert {group_of[name] for name in sources} == {(row.speaker, row.lang)}
        mine = [name for name, group in group_of.items() if group == (row.speaker, row.lang)]
        start = mine.index(sources[0])
        assert sources == mine[start : start + len(sources)], "not neighbours"
        assert row.text == (" " if row.lang == "en" else "").join(sources)
        assert len(read_audio(row, RATE_HZ)) == round(row.duration_s * RATE_HZ)
    names = [name for row in joined for name in row.extra["sources"]]
    assert len(names) == len(set(names))


def test_the_first_stretch_of_a_speaker_begins_at_a_drawn_row(recordings: dict[str, str]) -> None:
    """Made rows of exactly two rows begin at even rows throughout, unless a drawn row parts the speaker's rows."""
    rows = [cut(recordings["a"], 1.0 * n, 1.0, str(n)) for n in range(20)]

    def starts(seed: int) -> tuple[int, ...]:
        made = JoinedNeighbours(Given(rows), 2.1, 2.1, by="speaker", gap_s=(0.1, 0.1), seed=seed)
        return tuple(sorted(int(row.extra["sources"][0]) for row in made))

    found = {starts(seed) for seed in range(8)}
    assert len(found) > 1
    assert all(9 <= len(numbers) <= 10 for numbers in found)


def test_keywords_unite_and_mixed_speakers_are_not_named(recordings: dict[str, str]) -> None:
    path = recordings["a"]
    rows = [
        cut(path, 0.0, 1.0, "x", keywords=("paris", "anna")),
        cut(path, 1.0, 1.0, "y", keywords=("anna", "bob"), speaker="bob"),
        cut(path, 1.9995, 1.0, "z", text=""),
    ]
    [row] = JoinedNeighbours(Given(rows), 2.9, 3.1)
    assert row.keywords == ("paris", "anna", "bob")
    assert row.speaker == ""
    assert row.text == "x y"
    assert [segment.gap_s for segment in row.segments] == [0.0, 0.0, 0.0]


def test_rows_that_overlap_lie_far_apart_or_do_not_fill_min_s_are_not_joined(
    recordings: dict[str, str],
) -> None:
    path = recordings["a"]
    for second_s in (0.5, 9.0, 1.1):
        rows = Given([cut(path, 0.0, 1.0), cut(path, second_s, 1.0)])
        with pytest.raises(
            ValueError, match=r"2 rows give 0 rows of 2.5 to 5.0 s by recording, at least 1 wanted"
        ):
            len(JoinedNeighbours(rows, 2.5, 5.0))
    overlapping = Given([cut(path, 0.0, 1.0), cut(path, 0.5, 1.0)])
    with pytest.raises(ValueError, match="give 0 rows"):
        len(JoinedNeighbours(overlapping, 1.5, 5.0, gap_s=(0.1, 0.1)))
    with pytest.raises(ValueError, match="the source's 1 rows give 0 rows"):
        len(JoinedNeighbours(Given([cut(path, 0.0, 3.0)]), 2.5, 5.0))
    [row] = JoinedNeighbours(Given([cut(path, 0.0, 1.0), cut(path, 1.5, 1.0)]), 2.5, 5.0)
    assert row.duration_s == 2.5


def test_bad_sources_name_the_row(recordings: dict[str, str], source: Given) -> None:
    plain = cut(recordings["a"], 0.0, 1.0, "row7")
    several = replace(plain, segments=plain.segments * 2)
    synthetic = replace(plain, segments=(Segment("synthetic:white", 1.0),))
    for row in (several, synthetic):
        with pytest.raises(ValueError, match="row 'row7' is not one stretch of one file"):
            len(JoinedNeighbours(Given([row]), 1.0, 2.0))
    with pytest.raises(ValueError, match="row 'row7' names no speaker"):
        len(JoinedNeighbours(Given([replace(plain, speaker="")]), 1.0, 2.0, "speaker", (0.1, 0.1)))
    with pytest.raises(
        ValueError, match=r"JoinedNeighbours: row 'r.*telephone' has effects.*wrap .* in Degraded"
    ):
        len(JoinedNeighbours(Degraded(Given([plain]), ["telephone"]), 1.0, 2.0))
    with pytest.raises(
        ValueError, match=r"40 rows give [0-9]+ rows .* at least 1000 wanted; lower num_rows"
    ):
        len(JoinedNeighbours(source, 4.0, 9.0, num_rows=1000))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"min_s": 3.0, "max_s": 2.0}, "0 < min_s <= max_s"),
        ({"num_rows": 0}, "num_rows >= 1"),
        ({"by": "file"}, "use recording or speaker, got 'file'"),
        ({"by": "speaker"}, "gap_s: by=speaker needs a range"),
        ({"gap_s": (0.4, 0.2)}, "JoinedNeighbours.gap_s: want"),
    ],
)
def test_bad_settings_of_joined_neighbours(
    source: Given, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match="JoinedNeighbours") as caught:
        JoinedNeighbours(source, **settings)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_padding_is_around_the_row_and_the_text_stays(source: Given) -> None:
    padded = NoisePadded(
        source, before_s=(0.5, 2.0), after_s=(0.2, 0.4), kinds=["white", "hum"], level_db=(-40, -30)
    )
    assert len(padded) == len(source)
    kinds, lengths_s, addresses = set(), set(), set()
    for row, before in zip(padded, source, strict=True):
        first, speech, last = row.segments
        assert (speech,) == before.segments
        assert 0.5 <= (first.duration_s or 0) <= 2.0
        assert 0.2 <= (last.duration_s or 0) <= 0.4
        assert (row.text, row.speaker, row.keywords) == (
            before.text,
            before.speaker,
            before.keywords,
        )
        assert row.extra["sources"] == [before.id]
        wave = read_audio(row, RATE_HZ)
        assert len(wave) == round(row.duration_s * RATE_HZ)
        start = round((first.duration_s or 0) * RATE_HZ)
        assert_close(wave[start : start + 12000], read_audio(before, RATE_HZ), "exact")
        for side in (wave[:start], wave[start + 12000 :]):
            assert -40.5 < 20 * float(torch.log10(side.square().mean().sqrt())) < -29.5
        addresses |= {first.audio_filepath, last.audio_filepath}
        kinds.add(first.audio_filepath.partition("?")[0])
        assert kinds >= {last.audio_filepath.partition("?")[0]}
        lengths_s.add(first.duration_s)
    assert kinds == {"synthetic:white", "synthetic:hum"}
    assert len(lengths_s) > 10
    assert len(addresses) == 80, "the same sound twice"
    assert padded[3] == NoisePadded(source, (0.5, 2.0), (0.2, 0.4), ("white", "hum"), (-40, -30))[3]
    assert (
        padded[3].id
        != NoisePadded(source, (0.5, 2.0), (0.2, 0.4), ("white", "hum"), (-40, -30), seed=1)[3].id
    )


def test_padding_on_one_side_alone(source: Given) -> None:
    before = NoisePadded(source, (1.0, 1.0), (0.0, 0.0))[0]
    after = NoisePadded(source, (0.0, 0.0), (1.0, 1.0))[0]
    assert before.segments[1:] == after.segments[:1] == source[0].segments
    assert before.duration_s == after.duration_s == source[0].duration_s + 1.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kinds": ["rain"]}, "kinds: want some of silence, white.*got .'rain'"),
        ({"kinds": []}, "kinds: want some of"),
        ({"before_s": (0.0, 0.0), "after_s": (0.0, 0.0)}, "before_s or after_s above 0"),
        ({"level_db": (-3.0, 3.0)}, "level_db of 0 or less"),
        ({"after_s": (2.0, 1.0)}, "NoisePadded.after_s: want"),
    ],
)
def test_bad_settings_of_noise_padded(
    source: Given, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        NoisePadded(source, **settings)  # type: ignore[arg-type]


def test_repeated_phrases_say_it_all_again(source: Given) -> None:
    repeated = PhraseRepeated(source, times=(2, 5), max_s=30.0, gap_s=(0.1, 0.3))
    assert len(repeated) == 40
    for row, before in zip(repeated, source, strict=True):
        times = len(row.segments)
        assert row.text.split() == [before.text] * times
        assert row.extra["sources"] == [before.id]
        gap_s = row.segments[1].gap_s
        assert 0.1 <= gap_s <= 0.3
        wave = read_audio(row, RATE_HZ)
        assert (
            len(wave)
            == round(row.duration_s * RATE_HZ)
            == round((1.5 * times + gap_s * (times - 1)) * RATE_HZ)
        )
        once = read_audio(before, RATE_HZ)
        for number in range(times):
            start = round(number * (1.5 + gap_s) * RATE_HZ)
            assert_close(wave[start : start + len(once)], once, "exact")
    assert {len(row.segments) for row in repeated} == {2, 3, 4, 5}
    assert list(PhraseRepeated(source, times=(2, 5), gap_s=(0.1, 0.3))) == list(repeated)


def test_repeated_phrases_stay_within_their_length(
    recordings: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = recordings["a"]
    rows = [
        cut(path, 0.0, 2.0, "two", extra={"note": 1}),
        cut(path, 2.0, 5.0, "five"),
        cut(path, 7.0, 1.0, "none", text=" "),
        cut(path, 8.0, 1.0, "一", lang="zh", keywords=("一",)),
    ]
    made = list(PhraseRepeated(Given(rows), times=(3, 9), max_s=6.5, gap_s=(0.25, 0.25)))
    assert [row.extra["sources"] for row in made] == [["two"], ["一"]]
    assert made[0].extra["note"] == 1
    assert made[0].duration_s == 6.5
    assert made[1].duration_s <= 6.5
    assert made[1].text == "一" * len(made[1].segments)
    assert made[1].keywords == ("一",)
    assert "left out 2 rows" in caplog.text
    with pytest.raises(ValueError, match=r"none of 4 rows .* 3 times within max_s=1.0"):
        len(PhraseRepeated(Given(rows), times=(3, 9), max_s=1.0))


def test_bad_settings_and_effects_are_refused(source: Given) -> None:
    with pytest.raises(
        ValueError, match=r"PhraseRepeated.times: want .* 2 <= low <= high, got .1, 3"
    ):
        PhraseRepeated(source, times=(1, 3))
    with pytest.raises(ValueError, match="max_s: want a number above 0"):
        PhraseRepeated(source, max_s=0)
    degraded = Degraded(source, ["telephone"])
    for made in (PhraseRepeated(degraded), NoisePadded(degraded)):
        with pytest.raises(ValueError, match=r"row '.*\+telephone' has effects .'telephone'."):
            made[0]
    [over, *_] = Degraded(PhraseRepeated(source), ["telephone"])
    assert over.effects == ("telephone",)
    assert over.extra["sources"] == [over.id.removesuffix("+telephone"), source[0].id]


def test_texts_join_as_their_language_is_written() -> None:
    assert join_texts(["a b", "", "c"], "en") == "a b c"
    assert join_texts(["三七", "一"], "zh-CN") == "三七一"
    assert join_texts(["はい", "いいえ"], "ja") == "はいいいえ"


def test_made_rows_survive_a_manifest(tmp_path: Path, source: Given) -> None:
    rows = [
        JoinedNeighbours(source, 4.0, 9.0)[0],
        NoisePadded(source)[1],
        PhraseRepeated(source)[2],
    ]
    write_manifest(rows, tmp_path / "made.jsonl")
    assert read_manifest(tmp_path / "made.jsonl") == rows

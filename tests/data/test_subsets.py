"""Subset builders that look at rows alone, and how rows are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_audiorl.data.audio.nonspeech import NonSpeech
from lightning_audiorl.data.mix import selection
from lightning_audiorl.data.mix.selection import (
    Candidate,
    Choice,
    EmptyReference,
    Everything,
    KeywordHeavy,
    Length,
    RandomControl,
    RepeatedPhrases,
    SubsetBuilder,
    Verdict,
    choose,
    choose_many,
    fill,
    kind_of,
)
from lightning_audiorl.data.mix.selection.by_text import phrase_said_again, repeated_phrase
from lightning_audiorl.text import count_keywords, normaliser_for
from lightning_audiorl.types import Segment, Utterance


def row(row_id: str, text: str = "one", seconds: float = 1.0, **fields: Any) -> Utterance:
    return Utterance(row_id, (Segment(f"{row_id}.wav", seconds),), text, seconds, **fields)


def stream(rows: Iterable[Utterance]) -> Callable[[], Iterator[Candidate]]:
    rows = list(rows)
    return lambda: (Candidate(number, one) for number, one in enumerate(rows))


def texts(*said: str, **fields: Any) -> Callable[[], Iterator[Candidate]]:
    return stream(row(f"r{number}", text, **fields) for number, text in enumerate(said))


def ids(
    builder: SubsetBuilder, candidates: Callable[[], Iterator[Candidate]], seed: int = 0
) -> list[str]:
    return [choice.id for choice in choose(builder, candidates, seed, reserve=0).choices]


class ByNumber(SubsetBuilder):
    """Keeps even numbers; the priority is the number's hundreds, the cell its parity of thousands."""

    sizes: ClassVar[dict[str, int]] = {"low": 2, "high": 3}

    def judge(self, candidate: Candidate) -> Verdict:
        if candidate.number % 2:
            return Verdict(False, "odd")
        cell = "high" if candidate.number >= 1000 else "low"
        return Verdict(True, f"number {candidate.number}", candidate.number // 100, cell)

    def places(self, cell: str) -> int | None:
        return self.sizes[cell]


# choose


def test_highest_priority_comes_first_and_each_cell_has_its_own_places() -> None:
    chosen = choose(ByNumber(), stream(row(f"r{i}") for i in range(2000)), seed=0, reserve=0.5)
    assert Counter(choice.cell for choice in chosen.choices) == {
        "low": 3,
        "high": 5,
    }  # 2 and 3, half more, rounded up
    assert [choice.priority for choice in chosen.choices] == [19] * 5 + [9] * 3
    assert all(
        choice.reason == f"number {choice.number}" and choice.id == f"r{choice.number}"
        for choice in chosen.choices
    )
    assert (chosen.removed, chosen.num_seen) == ({"odd": 1000}, 2000)


def test_the_heap_keeps_what_sorting_everything_would() -> None:
    rows = [row(f"r{i}", seconds=1 + i * 7 % 5) for i in range(300)]

    class ByLength(SubsetBuilder):
        def judge(self, candidate: Candidate) -> Verdict:
            return Verdict(True, "", candidate.row.duration_s)

    everyone = choose(ByLength(), stream(rows), seed=3).choices
    assert len(everyone) == 300
    assert everyone == sorted(everyone, key=lambda choice: -choice.priority)
    for num_rows in (1, 7, 61, 300, 1000):
        assert (
            choose(ByLength(num_rows), stream(rows), seed=3, reserve=0).choices
            == everyone[:num_rows]
        )


def test_ties_are_drawn_by_seed_name_and_id_alone() -> None:
    rows = [row(f"r{i}") for i in range(400)]
    first = ids(RandomControl(40), stream(rows))
    assert first == ids(RandomControl(40), stream(rows))
    assert set(first) == set(ids(RandomControl(40), stream(rows[::-1])))
    assert set(first) - {"r0", "r1"} == set(ids(RandomControl(40), stream(rows[2:]))) & set(first)
    assert len(set(first) & set(ids(RandomControl(40), stream(rows), seed=1))) < 15  # 4 expected
    both = choose_many(
        {"a": RandomControl(40), "b": RandomControl(40)}, stream(rows), seed=0, reserve=0
    )
    assert len({c.id for c in both["a"].choices} & {c.id for c in both["b"].choices}) < 15
    numbers = sorted(choice.number for choice in both["a"].choices)
    assert sum(number < 200 for number in numbers) in range(10, 31)  # 20 expected


def test_one_pass_serves_all_builders_and_one_more_the_survey() -> None:
    passes: list[str] = []
    rows = [row("a", "often often rarely"), row("b", "often", 30.0)]

    def candidates(name: str) -> Callable[[], Iterator[Candidate]]:
        def start() -> Iterator[Candidate]:
            passes.append(name)
            return (Candidate(i, one) for i, one in enumerate(rows))

        return start

    builders = {"long": Length(), "all": Everything(), "rare": KeywordHeavy(rare_below=1)}
    first = choose_many(builders, candidates("rows"), 0, surveyed=candidates("survey"))
    assert passes == ["survey", "rows"]
    assert {name: {c.id for c in chosen.choices} for name, chosen in first.items()} == {
        "long": {"b"},
        "all": {"a", "b"},
        "rare": {"a"},
    }
    assert choose_many(builders, candidates("rows"), 0) == first  # a survey leaves nothing behind
    assert choose_many({"all": Everything()}, candidates("once"), 0)["all"] == first["all"]
    assert passes[2:] == ["rows", "rows", "once"]


def test_an_empty_subset_says_which_rule_removed_how_many() -> None:
    rows = [row(f"r{i}", seconds=1.0 if i < 1200 else 50.0) for i in range(1203)]
    with pytest.raises(
        ValueError, match="1,203 rows removed: 1,200 x not longer than 20 s, 3 x longer than 40 s"
    ) as caught:
        choose_many({"far": Length(max_s=40.0)}, stream(rows), 0)
    assert str(caught.value).startswith("subset 'far' (Length) is empty")
    with pytest.raises(ValueError, match="no row to choose from"):
        choose(Everything(), stream([]), 0)
    with pytest.raises(ValueError, match="reserve"):
        choose(Everything(), stream(rows), 0, reserve=-0.1)


def test_fewer_rows_than_wanted_is_no_error() -> None:
    assert len(choose(Everything(10), texts("one", "two"), 0).choices) == 2


def test_fill_replaces_refused_rows_within_their_cell() -> None:
    choices = [
        Choice(n, f"r{n}", "", 0.0, cell)
        for n, cell in enumerate(["low", "high", "low", "low", "high", "low"])
    ]
    asked: list[int] = []

    def admit(choice: Choice) -> bool:
        asked.append(choice.number)
        return choice.number != 2

    assert [choice.number for choice in fill(ByNumber(), choices, admit)] == [0, 1, 3, 4]
    assert asked == [0, 1, 2, 3, 4]
    assert fill(Everything(), choices, lambda choice: True) == choices


@pytest.mark.parametrize(
    "builder", [Everything, Length, EmptyReference, RepeatedPhrases, KeywordHeavy, RandomControl]
)
def test_num_rows_must_be_positive(builder: Callable[..., SubsetBuilder]) -> None:
    with pytest.raises(ValueError, match="num_rows >= 1"):
        builder(num_rows=0)


# rows


def test_kind_of_a_row() -> None:
    assert kind_of(row("a", extra={"kind": "music"})) == "music"
    assert [
        kind_of(row("a", " ")),
        kind_of(row("a", "one")),
        kind_of(row("a", extra={"kind": 3})),
    ] == [
        "nonspeech",
        "speech",
        "speech",
    ]


def test_a_control_has_the_size_kinds_and_durations_of_the_other_subset() -> None:
    hard = [
        row("h0", seconds=3.2),
        row("h1", seconds=3.9),
        row("h2", "", 1.5),
        row("h3", seconds=9.5),
    ]
    others = [row(f"s{i}", seconds=3.0 + i / 50) for i in range(100)]
    silent = [row(f"n{i}", "", 1.0 + i / 50) for i in range(100)]
    control = RandomControl(like="hard", bin_s=1.0)
    with pytest.raises(ValueError, match="build 'hard' first"):
        choose(control, stream(others), 0)
    control.matches(hard)
    chosen = choose(control, stream([*hard, *others, *silent]), 0)
    taken = [choice.id for choice in fill(control, chosen.choices, lambda choice: True)]
    assert Counter(name[0] for name in taken) == {"s": 2, "n": 1}  # nobody else is 9 s to 10 s long
    assert all(int(name[1:]) < 50 for name in taken)
    assert chosen.removed["row of 'hard' itself"] == 4
    assert chosen.removed["'hard' has no row of this kind and length"] == 100
    assert Counter(choice.cell for choice in chosen.choices) == {
        "speech, 3 to 4 s": 3,
        "nonspeech, 1 to 2 s": 2,
    }
    with pytest.raises(NotImplementedError, match="follows no other subset"):
        Everything().matches(hard)


def test_length_cuts_a_set_in_two() -> None:
    rows = stream(row(f"r{s}", seconds=s) for s in (0.5, 19.9, 20.0, 20.1, 35.0))
    assert set(ids(Length(), rows)) == {"r20.1", "r35.0"}
    assert set(ids(Length(min_s=0, max_s=20), rows)) == {"r0.5", "r19.9", "r20.0"}
    assert choose(Length(min_s=30), rows, 0).choices[0].reason == "35.0 s long"


def test_empty_references() -> None:
    rows = [*NonSpeech(num_rows=4, kinds=["hum", "white"]), row("s"), row("quiet", "")]
    assert len(ids(EmptyReference(), stream(rows))) == 5
    chosen = choose(EmptyReference(kinds=["hum", "nonspeech"]), stream(rows), 0)
    assert Counter(choice.reason for choice in chosen.choices) == {
        "empty reference (hum)": 2,
        "empty reference (nonspeech)": 1,
    }
    assert chosen.removed == {"reference not empty": 1, "kind not asked for": 2}


def test_yaml_makes_every_builder() -> None:
    settings = """
    a: {class_path: lightning_audiorl.data.RandomControl, init_args: {like: hard, bin_s: 2}}
    b: {class_path: lightning_audiorl.data.Length, init_args: {min_s: 0, max_s: 20, num_rows: 5}}
    c: {class_path: lightning_audiorl.data.EmptyReference, init_args: {kinds: [hum]}}
    d: {class_path: lightning_audiorl.data.RepeatedPhrases, init_args: {where: back_to_back}}
    e: {class_path: lightning_audiorl.data.KeywordHeavy, init_args: {keywords: [oslo], rare_below: 1.0e-5}}
    f: {class_path: lightning_audiorl.data.Hard, init_args: {across: models, decodings: [greedy]}}
    g: {class_path: lightning_audiorl.data.Hallucinating, init_args: {rules: [loop]}}
    h: {class_path: lightning_audiorl.data.Learnable, init_args: {low: 0.1, high: 0.9}}
    i: lightning_audiorl.data.Everything
    j: {class_path: lightning_audiorl.data.RarelyRight, init_args: {max_reference_logprob: -2.3}}
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--builders", type=dict[str, SubsetBuilder])
    made = parser.instantiate_classes(
        parser.parse_object({"builders": yaml.safe_load(settings)})
    ).builders
    builders = {
        name: kind
        for name, kind in vars(selection).items()
        if isinstance(kind, type) and issubclass(kind, SubsetBuilder)
    }
    assert {type(builder) for builder in made.values()} == set(builders.values()) - {SubsetBuilder}
    assert (made["a"].like, made["a"].bin_s, made["b"].num_rows, made["e"].keywords) == (
        "hard",
        2.0,
        5,
        ("oslo",),
    )


# words


def naive_phrase_said_again(units: list[str], n: int) -> int:
    """Most units that repeat the phrase before them."""
    most = 0
    for size in range(n, len(units) + 1):
        for start in range(len(units)):
            phrase, times = units[start : start + size], 1
            while (
                len(phrase) == size
                and units[start + times * size : start + (times + 1) * size] == phrase
            ):
                times += 1
            most = max(most, size * (times - 1))
    return most


def test_repeated_phrases_by_hand() -> None:
    assert repeated_phrase(["a", "b", "c", "a", "b"], 2) == (("a", "b"), 2)
    assert repeated_phrase(["a", "a", "a"], 2) == (("a", "a"), 1)  # no overlap
    assert repeated_phrase(["a"], 2) == ((), 0)
    assert phrase_said_again(["x", "a", "b", "a", "b", "a", "b", "y"], 2) == (("a", "b"), 3)
    assert phrase_said_again(["a", "b", "c", "a", "b"], 2) == ((), 0)
    assert phrase_said_again(["a", "a"], 1) == (("a",), 2)


def test_phrases_said_again_against_a_naive_search() -> None:
    words = [list(f"{number:010b}"[:length]) for number in range(1024) for length in (5, 10)]
    for units in words:
        for n in (1, 2, 3):
            phrase, times = phrase_said_again(units, n)
            assert len(phrase) * max(times - 1, 0) == naive_phrase_said_again(units, n)
            assert " ".join(phrase * times) in " ".join(units)


def test_repeated_phrases() -> None:
    said = texts(
        "One two, three one TWO four",
        "one two one two three four",
        "one two three four five six",
        "one two one two",
    )
    anywhere = choose(RepeatedPhrases(min_words=6), said, 0)
    assert {choice.id: choice.reason for choice in anywhere.choices} == {
        "r0": '"one two" said 2 times in 6 words',
        "r1": '"one two" said 2 times in 6 words',
    }
    assert anywhere.choices[0].priority == pytest.approx(2 / 6)
    assert anywhere.removed == {"no repeated phrase": 1, "shorter than 6 words": 1}
    assert ids(RepeatedPhrases(min_words=6, where="back_to_back"), said) == ["r1"]
    assert ids(
        RepeatedPhrases(min_words=6, phrase_words=3), texts("a b c x a b c", "a b x y a b z")
    ) == ["r0"]
    characters = choose(
        RepeatedPhrases(min_words=5, where="back_to_back"), texts("我们去我们去。", lang="zh"), 0
    )
    assert characters.choices[0].reason == '"我们去" said 2 times in 6 words'


def test_keywords_of_a_list_and_of_the_row() -> None:
    said = texts("From Oslo to New York!", "new oslo", "york new", "nothing")
    chosen = choose(KeywordHeavy(keywords=["new york", "Oslo"], min_keywords=1), said, 0)
    assert [(choice.id, choice.reason) for choice in chosen.choices] == [
        ("r1", "keywords: 1 in 2 words (oslo)"),
        ("r0", "keywords: 2 in 5 words (new york, oslo)"),
    ]
    assert chosen.choices[1].priority == pytest.approx(0.4)
    assert chosen.removed == {"keywords below 1": 2}
    assert not KeywordHeavy(keywords=["oslo"]).surveys
    named = stream([row("a", "anna calls", keywords=("Anna",)), row("b", "anna calls")])
    assert ids(KeywordHeavy(), named) == ["a"]
    with pytest.raises(ValueError, match="keywords below 1"):
        ids(KeywordHeavy(keywords=["oslo"], row_keywords=False), named)


def test_keywords_are_counted_as_the_reward_counts_them() -> None:
    keywords = ["new york", "york", "york new york", "a", "a a", "ö", "...", "new york"]
    for text in (
        "New York new york new york",
        "a a a york",
        "O, new",
        "",
        "york new york new york",
    ):
        one = row("a", text, keywords=("a a a",))
        expected = count_keywords(text, "", [*keywords, "a a a"], normaliser_for("en")).in_reference
        assert sum(KeywordHeavy(keywords=keywords).found(one).values()) == expected


def test_rare_words_are_found_by_their_frequency() -> None:
    said = texts("common words here", "common words there", "common zebra", "common yak", "words")
    builder = KeywordHeavy(rare_below=1, min_length=4)
    assert builder.surveys
    chosen = choose(builder, said, 0)
    assert chosen.choices[0].id == "r2"
    assert {choice.id: choice.reason for choice in chosen.choices} == {
        "r2": "keywords: 1 in 2 words (zebra)",
        "r0": "keywords: 1 in 3 words (here)",
        "r1": "keywords: 1 in 3 words (there)",
    }
    assert set(ids(KeywordHeavy(rare_below=0.1, min_length=3), said)) == {
        "r0",
        "r1",
        "r2",
        "r3",
    }  # 1 of 11 words
    assert set(ids(KeywordHeavy(rare_below=3, min_length=5), said)) == {"r0", "r1", "r2", "r4"}
    with pytest.raises(ValueError, match="5 x keywords below 1"):
        ids(KeywordHeavy(rare_below=0.09, min_length=3), said)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RandomControl(), "give num_rows, or like"),
        (lambda: RandomControl(5, like="hard"), "give num_rows, or like"),
        (lambda: RandomControl(like="hard", bin_s=0), "bin_s: want a finite number above 0"),
        (lambda: Length(min_s=-1), "0 <= min_s < max_s"),
        (lambda: Length(min_s=20, max_s=20), "0 <= min_s < max_s"),
        (lambda: EmptyReference(kinds="hum"), "list of one or more names"),
        (lambda: EmptyReference(kinds=[]), "list of one or more names"),
        (lambda: RepeatedPhrases(phrase_words=0), "phrase_words >= 1"),
        (lambda: RepeatedPhrases(phrase_words=3, min_words=5), "min_words >= 2"),
        (lambda: RepeatedPhrases(where="nowhere"), "anywhere or back_to_back"),  # type: ignore[arg-type]
        (lambda: KeywordHeavy(keywords="oslo"), "list of words"),
        (lambda: KeywordHeavy(row_keywords=False), "no keywords"),
        (lambda: KeywordHeavy(rare_below=0), "rare_below > 0"),
        (lambda: KeywordHeavy(min_keywords=0), "min_keywords >= 1"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], SubsetBuilder], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()

"""What a subset builder is, and how its rows are chosen: one pass over a stream, with bounded memory."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

from lightning_audiorl.data.hypotheses.reader import Predicted
from lightning_audiorl.ops.randomness import seeds_by_name
from lightning_audiorl.text import Unit, normaliser_for, split_units
from lightning_audiorl.types import Utterance


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may enter a subset, with what models made of it.

    Args:
        number: the row's place in the stream, from 0.
        row: the manifest row.
        predicted: one entry per model that decoded the row; empty where no builder needs hypotheses.
    """

    number: int
    row: Utterance
    predicted: tuple[Predicted, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a builder decides on one candidate.

    Args:
        keep: whether the row may enter.
        reason: of a kept row, why, with what was measured; of a removed one the name of the rule, the same for all rows
            that the rule removes, as these are counted.
        priority: higher enters first; equal ones in an order drawn by seed and row id.
        cell: rows compete for places within their cell only; see `SubsetBuilder.places`.

    Example: the first keeps a row ahead of all with a lower rate, the second removes one.
        >>> Verdict(True, "hallucination rate 0.75 over 4 samples (loop)", priority=0.75).keep
        True
        >>> Verdict(False, "hallucination rate below 0.25").keep
        False
    """

    keep: bool
    reason: str
    priority: float = 0.0
    cell: str = ""


@lru_cache(maxsize=256)
def removed(reason: str) -> Verdict:
    """The verdict on a row that a rule removes: the same object for all of them, as there are millions.

    Example:
        >>> removed("no question") is removed("no question"), removed("no question").keep
        (True, False)
    """
    return Verdict(False, reason)


class SubsetBuilder(ABC):
    """A rule over rows (and hypotheses) that says which of them form a subset. Subclass it to bring a rule of your own.

    Args:
        num_rows: most rows kept; None keeps every row that the rule admits (memory then grows with their number).

    Attributes:
        needs_hypotheses: whether `judge` reads ``candidate.predicted``.
        surveys: whether `survey` wants to see every row before the first is judged.
        like: name of the subset whose rows must be given to `matches` before the first row is judged; else None.

    Example:
        >>> class Questions(SubsetBuilder):
        ...     def judge(self, candidate: Candidate) -> Verdict:
        ...         asks = candidate.row.text.startswith(("who", "what", "when"))
        ...         return Verdict(asks, "a question" if asks else "no question")
        >>> rows = [Utterance(name, (), text, 1.0) for name, text in (("a", "who is it"), ("b", "it is me"))]
        >>> chosen = choose(Questions(), lambda: [Candidate(n, row) for n, row in enumerate(rows)], seed=0)
        >>> [choice.id for choice in chosen.choices], chosen.removed
        (['a'], Counter({'no question': 1}))
    """

    needs_hypotheses: ClassVar[bool] = False
    surveys: bool = False
    like: str | None = None

    def __init__(self, num_rows: int | None = None) -> None:
        if num_rows is not None and num_rows < 1:
            raise ValueError(
                f"{type(self).__name__}: want num_rows >= 1, or none for all rows; got {num_rows}"
            )

        self.num_rows = num_rows

    def survey(self, candidate: Candidate) -> None:
        """First look at a row, where `surveys` is set. Its hypotheses may be left out."""
        raise NotImplementedError(f"{type(self).__name__} makes no survey")

    def matches(self, rows: Sequence[Utterance]) -> None:
        """Take over the make-up of the rows of the subset named by `like`."""
        raise NotImplementedError(f"{type(self).__name__} follows no other subset")

    @abstractmethod
    def judge(self, candidate: Candidate) -> Verdict:
        """Whether the row belongs to the subset.

        Raises:
            ValueError: when hypotheses are needed and the candidate lacks them.
        """

    def places(self, cell: str) -> int | None:
        """How many rows of a cell (see `Verdict.cell`) are kept at most; None for all."""
        return self.num_rows


@dataclass(frozen=True, slots=True)
class Choice:
    """One chosen row: its number in the stream, its id, and why it was chosen."""

    number: int
    id: str
    reason: str
    priority: float
    cell: str = ""


@dataclass(frozen=True)
class Chosen:
    """What `choose` found.

    Args:
        choices: best first, with a reserve behind them: `fill` takes the rows that are wanted.
        removed: how many rows each rule removed; rows that only found no place are not in it.
        num_seen: how many rows the stream had.
    """

    choices: list[Choice]
    removed: Counter[str]
    num_seen: int


@lru_cache(maxsize=4096)
def _kept_once(reason: str) -> str:
    """The reason itself, the same object for rows of the same one: "5.2 s long" is said of thousands."""
    return reason


@dataclass
class _Cell:
    """The best ``most`` entries seen so far: a heap with the worst in front."""

    most: int | None
    entries: list[tuple[float, int, int, str, str]] = field(default_factory=list)

    def offer(self, verdict: Verdict, candidate: Candidate, draw_of: Callable[[str], int]) -> None:
        """Take the row in where it is better than the worst; ties are broken by the draw of its id."""
        full = self.most is not None and len(self.entries) >= self.most
        # Most rows of a long stream end here, before their tie is drawn.
        if self.most == 0 or (full and verdict.priority < self.entries[0][0]):
            return

        # In a heap the least stands first: of equal priorities the worst is the one with the largest draw.
        row_id = candidate.row.id
        draw = draw_of(row_id)
        if full and verdict.priority == self.entries[0][0] and -draw < self.entries[0][1]:
            return
        entry = (verdict.priority, -draw, -candidate.number, row_id, _kept_once(verdict.reason))
        if full:
            heapq.heappushpop(self.entries, entry)
        else:
            heapq.heappush(self.entries, entry)


@dataclass
class _Selection:
    """One builder's state during the pass."""

    name: str
    builder: SubsetBuilder
    seed: int
    reserve: float
    cells: dict[str, _Cell] = field(default_factory=dict)
    removed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._judge = self.builder.judge
        self._draw_of = seeds_by_name("choose", self.seed, self.name)

    def see(self, candidate: Candidate) -> None:
        """Judge one row."""
        verdict = self._judge(candidate)
        if not verdict.keep:
            self.removed[verdict.reason] += 1
            return

        cell = self.cells.get(verdict.cell)
        if cell is None:
            places = self.builder.places(verdict.cell)
            most = None
            if places is not None:
                most = math.ceil(places * (1 + self.reserve))
            cell = self.cells[verdict.cell] = _Cell(most)
        cell.offer(verdict, candidate, self._draw_of)

    def chosen(self, num_seen: int) -> Chosen:
        """All that the cells hold, best first.

        Raises:
            ValueError: nothing.
        """
        ranked = []
        for cell, held in self.cells.items():
            ranked += [(entry, cell) for entry in held.entries]
        self.cells.clear()
        if not ranked:
            raise ValueError(self._empty(num_seen))

        # By priority, then by the draw, then by the row's place.
        ranked.sort(key=lambda pair: pair[0][:3], reverse=True)
        choices = []
        for (priority, _, minus_number, row_id, reason), cell in ranked:
            choices.append(Choice(-minus_number, row_id, reason, priority, cell))
        return Chosen(choices, self.removed, num_seen)

    def _empty(self, num_seen: int) -> str:
        who = type(self.builder).__name__
        if self.name:
            who = f"subset {self.name!r} ({who})"
        if num_seen == 0:
            return f"{who} is empty: there was no row to choose from; name a source that has rows"
        rules = [f"{count:,} x {reason}" for reason, count in self.removed.most_common()]
        return f"{who} is empty: of {num_seen:,} rows removed: {', '.join(rules)}; relax that rule, or give other rows"


def choose_many(
    builders: Mapping[str, SubsetBuilder],
    candidates: Callable[[], Iterable[Candidate]],
    seed: int,
    reserve: float = 0.25,
    surveyed: Callable[[], Iterable[Candidate]] | None = None,
) -> dict[str, Chosen]:
    """The rows of several subsets, found in one pass over the stream (and one before it where a builder surveys).

    Highest priority first; ties in an order drawn by (seed, name, row id), so it depends on no other row and
    two subsets do not favour the same rows. Memory holds the rows chosen, not the rows seen.

    Args:
        builders: by the name of their subset; one with `like` set has been given its rows by `matches`. They are
            copied, so that a survey leaves nothing behind.
        candidates: starts a pass over the same rows in the same order at each call.
        seed: another seed breaks ties otherwise.
        reserve: choices kept beyond the wanted number, as a share of it, so that refused rows can be replaced.
        surveyed: what the survey reads; none: the candidates. Rows without hypotheses are read faster.

    Raises:
        ValueError: when a subset is empty: says which rule removed how many rows.
    """
    if not 0 <= reserve < math.inf:
        raise ValueError(f"choose: want reserve >= 0 (a share of num_rows), got {reserve}")

    selections = []
    for name, builder in builders.items():
        selections.append(_Selection(name, deepcopy(builder), seed, reserve))

    surveying = [selection.builder for selection in selections if selection.builder.surveys]
    if surveying:
        stream = candidates if surveyed is None else surveyed
        for candidate in stream():
            for builder in surveying:
                builder.survey(candidate)

    # One pass serves all subsets: reading rows and their hypotheses is what takes the time.
    num_seen = 0
    for candidate in candidates():
        num_seen += 1
        for selection in selections:
            selection.see(candidate)

    return {selection.name: selection.chosen(num_seen) for selection in selections}


def choose(
    builder: SubsetBuilder,
    candidates: Callable[[], Iterable[Candidate]],
    seed: int,
    reserve: float = 0.25,
) -> Chosen:
    """The rows of one subset, found in one pass over the stream (two where the builder surveys).

    Args:
        builder: the rule.
        candidates: starts a pass over the same rows in the same order at each call.
        seed: another seed breaks ties otherwise.
        reserve: choices kept beyond the wanted number, as a share of it, so that refused rows can be replaced.

    Raises:
        ValueError: when the subset is empty: says which rule removed how many rows.
    """
    return choose_many({"": builder}, candidates, seed, reserve)[""]


def fill(
    builder: SubsetBuilder,
    choices: Iterable[Choice],
    admit: Callable[[Choice], bool],
) -> list[Choice]:
    """The first choices that ``admit`` lets in, as many as the builder has places for.

    One that is refused is replaced by the next of its cell. Once a cell is full, ``admit`` is asked no more about it.

    Example:
        Two places, and b is refused:

        >>> from lightning_audiorl.data import Everything
        >>> choices = [Choice(number, name, "every row", 0.0) for number, name in enumerate("abcd")]
        >>> [choice.id for choice in fill(Everything(2), choices, lambda choice: choice.id != "b")]
        ['a', 'c']
    """
    taken: list[Choice] = []
    filled: Counter[str] = Counter()
    for choice in choices:
        places = builder.places(choice.cell)
        has_place = places is None or filled[choice.cell] < places
        # Asking may mean reading audio, so it comes last.
        if has_place and admit(choice):
            filled[choice.cell] += 1
            taken.append(choice)
    return taken


def kind_of(row: Utterance) -> str:
    """``extra["kind"]`` where a row has it, else "nonspeech" for an empty reference, else "speech".

    Example:
        >>> kind_of(Utterance("a", (), "one two", 1.5)), kind_of(Utterance("b", (), "", 1.5, extra={"kind": "hum"}))
        ('speech', 'hum')
    """
    kind = row.extra.get("kind")
    if isinstance(kind, str) and kind:
        return kind
    return "speech" if row.text.strip() else "nonspeech"


_normaliser_for = lru_cache(maxsize=64)(normaliser_for)


@lru_cache(maxsize=64)
def unit_of(lang: str) -> Unit:
    """What errors of a language are counted in."""
    return normaliser_for(lang).unit


@lru_cache(maxsize=4096)
def normalised(text: str, lang: str) -> str:
    """The text as errors are counted on it; the last few thousand are remembered, as builders ask for the same ones."""
    return _normaliser_for(lang).normalise(text)


# The list is the same one at each call: nobody changes it.
@lru_cache(maxsize=4096)
def units_of(text: str, lang: str) -> list[str]:
    """Words of the normalised text, or characters in languages without spaces; not to be changed.

    Example:
        >>> units_of("One, two!", "en")
        ['one', 'two']
    """
    return split_units(normalised(text, lang), unit_of(lang))

"""README's picture: rows of real runs before and after, word under word, with their errors coloured.

    python -m experiments.before_after --out docs/images/before_after.svg \\
        "recognition=runs/quickstart:medium" "noise=runs/quickstart:nonspeech" \\
        "synthesis=runs/quickstart_tts:test:held_out_asr"

A panel is ``TITLE=RUN:SET[:JUDGE]``: a folder that `audiorl fit` wrote, one of its evaluation sets and, where the
policy speaks, who wrote down what was heard. Which rows are shown is a rule, not a choice: of each set the rows whose
number of errors fell most, and those in which it rose most, as many of each as ``--rows`` says, of those that fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from lightning_audiorl.metrics.rows import RECOGNISED, Compared, RowResult
from lightning_audiorl.reports.runs import AFTER, BEFORE, Run, read_run
from lightning_audiorl.reports.samples import chosen_rows
from lightning_audiorl.reports.verdict import headline_metrics
from lightning_audiorl.text.alignment import AlignedUnit, Kind, aligned_units

#: README is shown about so wide; a character of the fixed-width font takes so much of it, and a line so much height.
WIDTH = 880
CHAR = 8.4
LINE = 25
#: Where texts begin, and how many characters fit from there.
LEFT = 118
CHARS = int((WIDTH - LEFT - 24) / CHAR)

#: Both schemes are opaque, so that the picture can be read on any page.
STYLE = """
svg { --card: #ffffff; --line: #d5d9e0; --text: #1b1f24; --soft: #565e69; --other: #7a4d00; --other-back: #fdeecb;
  --bad: #a3161d; --bad-back: #fbe4e4; --extra: #0b4f9e; --extra-back: #dfecfb; }
@media (prefers-color-scheme: dark) { svg { --card: #15181c; --line: #3a414b; --text: #e8eaed; --soft: #aab2bd;
  --other: #f3c063; --other-back: #3f2f0d; --bad: #ff9a94; --bad-back: #461d1e; --extra: #8fc1ff;
  --extra-back: #16304f; } }
.card { fill: var(--card); stroke: var(--line); }
.rule { stroke: var(--line); }
text { fill: var(--text); font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.title { font: 600 15px system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
.soft { fill: var(--soft); font: 13px system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
text.substitution { fill: var(--other); }
rect.substitution { fill: var(--other-back); }
text.deletion { fill: var(--bad); text-decoration: line-through; }
rect.deletion { fill: var(--bad-back); }
text.insertion { fill: var(--extra); text-decoration: underline; }
rect.insertion { fill: var(--extra-back); }
"""

Cell = list[tuple[Kind, str]]
"""What is written under one word of the reference, and what is too much behind it."""


@dataclass(frozen=True)
class Panel:
    """Rows of a set.

    Args:
        title: of the panel.
        run: they are from.
        set_name: of an evaluation.
        who: wrote the texts down.
    """

    title: str
    run: Run
    set_name: str
    who: str = RECOGNISED

    def rows(self, num_each: int) -> list[tuple[RowResult, RowResult]]:
        """Before and after of the rows that are shown.

        Args:
            num_each: rows with fewer errors, and rows with more.
        """
        fitting = self._fitting(BEFORE) & self._fitting(AFTER)
        before = [one for one in self._heard(BEFORE) if one.row.id in fitting]
        after = [one for one in self._heard(AFTER) if one.row.id in fitting]
        chosen = chosen_rows(before, after, num_each)
        return [
            (first, second)
            for first, second, why in chosen
            if first is not None and why != "most errors now"
        ]

    @property
    def headline(self) -> str:
        """The metric of the set, before and after; of speech that of the judge held out."""
        [compared] = [one for one in self.run.change if one.name == self.set_name]
        one = headline_metrics(compared)[-1]
        values = f"{one.name} {one.before_text} → {one.after_text}{one.unit}"
        return f"{values}, {compared.num_utterances} utterances"

    def _heard(self, stage: str) -> list[RowResult]:
        return [one for one in self.run.rows_of(stage)[self.set_name] if self.who in one.texts]

    def _fitting(self, stage: str) -> set[str]:
        """Ids of the rows whose texts take one line, with room for what is aligned."""
        found = set()
        for one in self._heard(stage):
            text = one.texts[self.who]
            if max(len(text.reference), len(text.hypothesis)) <= CHARS - 12:
                found.add(one.row.id)
        return found


def panel(named: str) -> Panel:
    """A panel as the command line names it.

    Example:
        >>> panel("noise")
        Traceback (most recent call last):
        SystemExit: noise: want TITLE=RUN:SET or TITLE=RUN:SET:JUDGE
    """
    title, _, place = named.partition("=")
    parts = place.split(":")
    if len(parts) not in (2, 3):
        raise SystemExit(f"{named}: want TITLE=RUN:SET or TITLE=RUN:SET:JUDGE")
    return Panel(title, read_run(Path(parts[0])), *parts[1:])


# --- words in columns


def cells(text: Compared) -> list[Cell]:
    """What stands before the first word of a reference, then what stands under each of its words.

    Example:
        >>> cells(Compared("a x b d", "a b c e", "a x b d"))
        [[], [('hit', 'a'), ('insertion', 'x')], [('hit', 'b')], [('substitution', 'd')], [('deletion', 'e')]]
    """
    found: list[Cell] = [[]]
    for one in aligned_units(text.reference.split(), text.hypothesis.split()):
        if one.kind == "insertion":
            found[-1].append((one.kind, one.hypothesis))
        else:
            found.append([(one.kind, _shown(one))])
    return found


def _shown(unit: AlignedUnit) -> str:
    return unit.reference if unit.kind == "deletion" else unit.hypothesis


def length(cell: Cell) -> int:
    """Characters of a cell, with those between its words."""
    return sum(len(text) for _, text in cell) + max(0, len(cell) - 1)


def lines_of_columns(widths: Sequence[int]) -> list[list[int]]:
    """Numbers of the columns in each line.

    Example:
        >>> lines_of_columns([0, CHARS // 2, CHARS // 2 - 1, 4])
        [[0, 1, 2], [3]]
    """
    lines: list[list[int]] = [[]]
    used = 0
    for number, width in enumerate(widths):
        if lines[-1] and used + width > CHARS:
            lines.append([])
            used = 0
        lines[-1].append(number)
        used += width + 1 if width else 0
    return lines


# --- drawing


class Picture:
    """An SVG that grows downwards."""

    def __init__(self) -> None:
        self.root = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg")
        ElementTree.SubElement(self.root, "style").text = STYLE
        self.card = self._add("rect", "card", x=0.5, y=0.5, rx=8)
        self.y = 12.0

    def _add(self, tag: str, css: str, text: str = "", **places: float) -> ElementTree.Element:
        numbers = {name: f"{value:g}" for name, value in places.items()}
        element = ElementTree.SubElement(self.root, tag, {"class": css, **numbers})
        element.text = text or None
        return element

    def words(self, css: str, text: str, x: float, **places: float) -> None:
        """A line of text; its end is at the left of what follows.

        Args:
            css: class.
            text: of it.
            x: where it begins.
            places: further attributes.
        """
        self._add("text", css, text, x=x, y=self.y, **places)

    def title(self, title: str, about: str) -> None:
        """Of a panel.

        Args:
            title: in bold.
            about: behind it.
        """
        self.y += LINE
        self.words("title", title, 20)
        end = self._add("text", "soft", about, x=WIDTH - 20, y=self.y)
        end.set("text-anchor", "end")
        self.y += 6

    def line(self, label: str, found: Sequence[tuple[int, Cell]]) -> None:
        """A line of cells at their columns.

        Args:
            label: at its left.
            found: the character at which each begins, and the cell.
        """
        self.y += LINE
        self.words("soft", label, 20)
        for start, cell in found:
            place = start
            for kind, text in cell:
                self._word(kind, text, LEFT + place * CHAR)
                place += len(text) + 1

    def _word(self, kind: Kind, text: str, x: float) -> None:
        width = len(text) * CHAR
        if kind != "hit":
            self._add("rect", kind, x=x - 2, y=self.y - 15, width=width + 4, height=20, rx=3)
        # Whatever font there is, the word ends where its back does.
        self.words(kind, text, x, textLength=width)

    def legend(self, about: str) -> None:
        """What the colours mean, and where the rows are from.

        Args:
            about: the rows.
        """
        self.y += LINE + 8
        self._add("line", "rule", x1=20, x2=WIDTH - 20, y1=self.y - 22, y2=self.y - 22)
        x = 20.0
        kinds: dict[Kind, str] = {
            "substitution": "another word",
            "deletion": "left out",
            "insertion": "too much",
        }
        for kind, text in kinds.items():
            self._word(kind, text, x)
            x += (len(text) + 2) * CHAR
        end = self._add("text", "soft", about, x=WIDTH - 20, y=self.y)
        end.set("text-anchor", "end")

    def written(self, title: str) -> str:
        """The file.

        Args:
            title: for those who cannot see it.
        """
        height = self.y + 18
        size = {"width": str(WIDTH), "height": f"{height:g}"}
        self.root.attrib |= {"viewBox": f"0 0 {WIDTH} {height:g}", "role": "img", **size}
        self.card.attrib |= {"width": str(WIDTH - 1), "height": f"{height - 1:g}"}
        named = ElementTree.Element("title")
        named.text = title
        self.root.insert(0, named)
        ElementTree.indent(self.root, " ")
        return ElementTree.tostring(self.root, encoding="unicode") + "\n"


def draw(picture: Picture, shown: Panel, num_each: int) -> None:
    """A panel.

    Args:
        picture: gets it.
        shown: what.
        num_each: see `Panel.rows`.
    """
    picture.title(shown.title, shown.headline)
    for number, (before, after) in enumerate(shown.rows(num_each)):
        picture.y += 8 if number else 0
        draw_row(picture, before.texts[shown.who], after.texts[shown.who], shown.who)
    picture.y += 10


def draw_row(picture: Picture, before: Compared, after: Compared, who: str) -> None:
    """A row: its reference, and under it what was written before and after.

    Args:
        picture: gets it.
        before: at the start.
        after: at the end.
        who: wrote it down.
    """
    words: list[Cell] = [[], *([("hit", word)] for word in before.reference.split())]
    rows: list[list[Cell]] = [words, cells(before), cells(after)]
    widths = [max(length(row[column]) for row in rows) for column in range(len(words))]
    spoken = "wanted" if who != RECOGNISED else "spoken"
    if len(words) == 1:
        words[0].append(("hit", "(nothing: noise)"))
    for row in rows[1:]:
        if not any(row):
            row[0].append(("hit", "(nothing)"))

    for columns in lines_of_columns(widths):
        starts = {}
        place = 0
        for column in columns:
            starts[column] = place
            place += widths[column] + 1 if widths[column] else 0
        for label, row in zip((spoken, "before", "after"), rows, strict=True):
            picture.line(label, [(starts[column], row[column]) for column in columns])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("panels", nargs="+", help="TITLE=RUN:SET or TITLE=RUN:SET:JUDGE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1, help="of each kind")
    args = parser.parse_args(arguments)

    picture = Picture()
    for named in args.panels:
        draw(picture, panel(named), args.rows)
    picture.legend("of each set the row that gained most, and the one that lost most if any did")
    args.out.write_text(picture.written("Texts before and after, errors coloured"))


if __name__ == "__main__":
    main()

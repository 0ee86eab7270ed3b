"""Charts of a page as plain coordinates, which a template draws as SVG: they take the page's colours and fonts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from lightning_audiorl.metrics.specs import Format
from lightning_audiorl.reports.bootstrap import Interval

#: Size of a chart in its own units, which are pixels on a narrow screen.
WIDTH = 360
HEIGHT = 210
_LEFT = 52
_RIGHT = 10
_TOP = 10
_BOTTOM = 34

#: Colours of the style sheet; a further curve begins again with the first.
NUM_COLOURS = 6

#: Points of a curve that are drawn at most; a thousand fill the width of a screen.
_MAX_POINTS = 400


@dataclass(frozen=True)
class Line:
    """A curve.

    Args:
        name: in the legend; "" leaves it out of that.
        xs: where it is known.
        ys: NaN where it is not.
        colour: number of its colour.
        faint: drawn thin, behind one of the same colour.
        dashed: such as of a judge held out.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    faint: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Path:
    """A curve in the units of the chart: its stretches without a gap."""

    line: Line
    stretches: Sequence[str]
    dots: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """A chart that is ready to be drawn.

    Args:
        title: above it.
        paths: curves, the hindmost first.
        x_ticks: places along it.
        y_ticks: heights.
        x_label: below it.
        bounds: (left, right, top, bottom) of its inside.
    """

    title: str
    paths: Sequence[Path]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_label: str = "RL step"
    bounds: tuple[int, int, int, int] = (_LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM)

    @property
    def legend(self) -> list[Line]:
        """The curves that have a name, where there is more than one."""
        named = [path.line for path in self.paths if path.line.name]
        return named if len(named) > 1 else []


@dataclass(frozen=True)
class Bar:
    """A value with the interval around it.

    Args:
        name: of the bar.
        value_text: its value, written.
        colour: number of its colour.
        width: percent of the chart.
        low: where the interval begins, in percent; None without one.
        high: where it ends.
        dots: single values in percent, such as those of seeds.
    """

    name: str
    value_text: str
    colour: int
    width: float
    low: float | None = None
    high: float | None = None
    dots: Sequence[float] = ()


@dataclass(frozen=True)
class Bars:
    """Bars of one metric of one set, on a scale of their own.

    Args:
        title: metric and set.
        bars: from above.
        note: below them.
    """

    title: str
    bars: Sequence[Bar] = field(default_factory=list)
    note: str = ""


def ticks(
    low: float,
    high: float,
    most: int = 5,
) -> list[float]:
    """Round numbers that cover a range.

    Args:
        low: of the values.
        high: of the values.
        most: ticks, more or less.

    Example:
        >>> ticks(0.13, 0.87)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low -= pad
        high += pad
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)

    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    # Rounded: 3 * 0.1 is not 0.3.
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A number as an axis shows it.

    Example:
        >>> tick_text(0.25), tick_text(12000.0), tick_text(2e-05), tick_text(0.0)
        ('0.25', '12k', '2e-05', '0')
    """
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def is_constant(values: Sequence[float]) -> bool:
    """Whether a curve says nothing: it has no value, or one alone.

    Example:
        >>> is_constant([0.0, math.nan, 0.0]), is_constant([0.0, 1.0])
        (True, False)
    """
    return len({value for value in values if math.isfinite(value)}) < 2


def smoothed(values: Sequence[float]) -> list[float]:
    """A running mean over a tenth of the curve, narrower at its ends; NaN stays where it is.

    Args:
        values: of a curve.

    Example:
        >>> smoothed([0.0, 1.0, 0.0, 1.0])
        [0.5, 0.3333333333333333, 0.6666666666666666, 0.5]
    """
    half = max(1, len(values) // 20)
    means = []
    for place, value in enumerate(values):
        near = values[max(0, place - half) : place + half + 1]
        known = [one for one in near if math.isfinite(one)]
        is_known = bool(known) and not math.isnan(value)
        means.append(sum(known) / len(known) if is_known else math.nan)
    return means


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most some hundred points of a curve, its last among them."""
    stride = max(1, math.ceil(len(xs) / _MAX_POINTS))
    places = list(
        range(
            0,
            len(xs),
            stride,
        )
    )
    if places and places[-1] != len(xs) - 1:
        places.append(len(xs) - 1)
    return [xs[place] for place in places], [ys[place] for place in places]


def chart(
    title: str,
    lines: Sequence[Line],
    marks: bool = False,
) -> Chart | None:
    """A chart of some curves on one scale; None where there is nothing to see.

    Args:
        title: above it.
        lines: curves, the foremost last.
        marks: a dot at each point, for curves of few points.

    Example:
        >>> drawn = chart("loss", [Line("loss", [1, 2], [0.5, 0.25])])
        >>> drawn.paths[0].stretches, [tick.text for tick in drawn.x_ticks]
        (['52.0,10.0 350.0,176.0'], ['1', '2'])
    """
    xs = list(chain.from_iterable(line.xs for line in lines))
    ys = list(chain.from_iterable(line.ys for line in lines))
    known = [y for y in ys if math.isfinite(y)]
    if len(set(xs)) < 2 or not known:
        return None

    heights = ticks(min(known), max(known))
    scale = _Scale(
        x_low=min(xs),
        x_high=max(xs),
        y_low=heights[0],
        y_high=heights[-1],
    )
    y_ticks = [Tick(scale.y(height), tick_text(height)) for height in heights]

    x_ticks = []
    for step in ticks(scale.x_low, scale.x_high):
        # RL steps are whole, and there is none beyond the curves.
        is_inside = scale.x_low <= step <= scale.x_high
        if is_inside and step == round(step):
            x_ticks.append(Tick(scale.x(step), tick_text(step)))

    paths = [_path(line, scale, marks) for line in lines]
    return Chart(
        title,
        paths,
        x_ticks,
        y_ticks,
    )


@dataclass(frozen=True)
class _Scale:
    """Where values lie in a chart."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(_LEFT + share * (WIDTH - _RIGHT - _LEFT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP), 1)


def _path(
    line: Line,
    scale: _Scale,
    marks: bool,
) -> Path:
    stretches = []
    dots = []
    for points in _points(line):
        places = [(scale.x(x), scale.y(y)) for x, y in points]
        stretches.append(" ".join(f"{x},{y}" for x, y in places))

        # A point between two gaps is no line.
        if marks or len(places) == 1:
            dots += places
    return Path(line, stretches, dots)


def _points(line: Line) -> list[list[tuple[float, float]]]:
    """The stretches of a curve without a gap."""
    stretches: list[list[tuple[float, float]]] = [[]]
    xs, ys = thinned(line.xs, line.ys)
    for x, y in zip(
        xs,
        ys,
        strict=True,
    ):
        if math.isfinite(y):
            stretches[-1].append((x, y))
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def bars(
    values: Mapping[str, Interval],
    how: Format,
    dots: Mapping[str, Sequence[float]] | None = None,
) -> list[Bar]:
    """Bars from 0 to the highest value, end of an interval or dot.

    Args:
        values: by name.
        how: values are written.
        dots: single values, such as those of seeds, by name.

    Example:
        >>> drawn = bars({"before": Interval(0.4), "after": Interval(0.3)}, Format(digits=1, factor=100))
        >>> [(bar.name, bar.value_text, bar.width) for bar in drawn]
        [('before', '40.0 %', 100.0), ('after', '30.0 %', 75.0)]
    """
    dots = dots or {}
    ends = list(chain.from_iterable(dots.values()))
    for value in values.values():
        ends.append(value.high if value.is_known else value.value)
    most = max(filter(math.isfinite, ends), default=0.0)

    drawn = []
    for colour, (name, value) in enumerate(values.items()):
        drawn.append(
            _bar(
                name,
                colour,
                value,
                how,
                most or 1.0,
                dots.get(name, ()),
            )
        )
    return drawn


def _bar(
    name: str,
    colour: int,
    value: Interval,
    how: Format,
    most: float,
    dots: Sequence[float],
) -> Bar:
    def percent(one: float) -> float:
        if math.isnan(one):
            return 0.0
        return round(max(0.0, 100 * one / most), 2)

    text = how.text(value.value)
    if how.is_percent:
        text += " %"
    places = [percent(one) for one in dots]
    width = percent(value.value)
    if not value.is_known:
        return Bar(
            name,
            text,
            colour,
            width,
            dots=places,
        )

    return Bar(
        name,
        f"{text} ({how.text(value.low)} to {how.text(value.high)})",
        colour,
        width,
        low=percent(value.low),
        high=percent(value.high),
        dots=places,
    )

"""The trend as one HTML file that opens offline: a plot for each case, and the table below.

A plot is SVG as wide as its place: across in per cent, up in pixels. Needs no script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from migrate.report.html import render_page
from migrate.report.scale import Scale, scale_for
from migrate.report.table_model import NOT_MEASURED, Cell, Grid
from migrate.report.trend import (
    TITLES,
    Point,
    Series,
    Trend,
    format_median,
    format_quartiles,
    heads,
    notes,
    rows,
)

PLOTS = 200
"""Cases that are plotted at most; the table has all."""
ROWS = 5000
"""Rows of the table at most; ``--json`` has all."""
HEIGHT, TOP = 190, 20
"""Of a plot, in pixels, and the room above it for the numbers of changes."""
LEFT, RIGHT = 1.5, 98.5
"""Per cent of the width between which the points stand."""
DATES = 5
"""Dates below a plot, at most."""
LEAST_APART = 9.0
"""Per cent of the width that a date takes."""


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """``x``: per cent; ``y``, ``low`` and ``high``: pixels; None: nothing was measured."""

    x: float
    y: float | None
    low: float | None
    high: float | None
    sign: str
    """The shape: ``dot``, or a triangle to where a median may be that is known between bounds."""
    failed: bool
    incomplete: bool
    """Whether tries are without a figure, or left no attempt."""
    change: int
    """The number of its changes in the list below; 0: it has none."""
    words: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One case over time."""

    series: Series
    points: tuple[PlotPoint, ...]
    segments: tuple[tuple[float, float, float, float], ...]
    """Of the line of medians; it breaks where nothing was measured."""
    bands: tuple[str, ...]
    """Of the quartiles: corners, in thousandths of the width and pixels."""
    ticks: tuple[tuple[float, str], ...]
    dates: tuple[tuple[float, str], ...]
    changes: tuple[tuple[int, str, str], ...]
    """Number, point, and what changed."""


def render(trend: Trend) -> str:
    """The whole page as HTML."""
    lines = list(rows(trend))
    table = Grid(heads(trend), tuple(tuple(map(Cell, line)) for line in lines[:ROWS]))
    return render_page(
        "trend.html.j2",
        [],
        trend=trend,
        title=TITLES[trend.figure],
        plots=[plot(series) for series in trend.series[:PLOTS]],
        more_series=max(0, len(trend.series) - PLOTS),
        table=table,
        more_rows=max(0, len(lines) - ROWS),
        notes=notes(trend),
        height=HEIGHT,
        top=TOP,
    )


def plot(series: Series) -> Plot:
    """Where everything of a plot stands."""
    times = [_seconds(point) for point in series.points]
    first, length = min(times), (max(times) - min(times)) or 1.0
    at = [round(LEFT + (RIGHT - LEFT) * (time - first) / length, 2) for time in times]
    scale = scale_for([*_lengths(series.points)], linear=True)
    numbers = _numbers(series.points)
    points = tuple(
        _point(point, x, scale, number)
        for point, x, number in zip(series.points, at, numbers, strict=True)
    )
    return Plot(
        series=series,
        points=points,
        segments=tuple(_segments(points)),
        bands=tuple(_bands(points)),
        ticks=tuple((_y(float(tick.text), scale), tick.text) for tick in scale.ticks()),
        dates=tuple(_dates(series.points, at)),
        changes=tuple(
            (number, point.when, change)
            for point, number in zip(series.points, numbers, strict=True)
            for change in point.changes
        ),
    )


def _seconds(point: Point) -> float:
    return datetime.fromisoformat(point.began).timestamp()


def _lengths(points: Sequence[Point]) -> Iterator[float]:
    """All that is drawn."""
    for point in points:
        ends = (point.low, point.high_most, point.high, _drawn_at(point))
        yield from (value for value in ends if value is not None)


def _drawn_at(point: Point) -> float | None:
    """Where a median stands: at the most that it can be, or at the least if it has no upper end."""
    return point.median if point.median_most is None else point.median_most


def _y(ms: float, scale: Scale) -> float:
    return round(TOP + HEIGHT * (1 - min(1.0, ms / scale.high)), 1)


def _numbers(points: Sequence[Point]) -> list[int]:
    """The points with changes, counted; 0 for the others."""
    numbers, count = [], 0
    for point in points:
        count += bool(point.changes)
        numbers.append(count if point.changes else 0)
    return numbers


def _point(point: Point, x: float, scale: Scale, number: int) -> PlotPoint:
    middle = _drawn_at(point)
    high = point.high if point.high_most is None else point.high_most
    return PlotPoint(
        x=x,
        y=None if middle is None else _y(middle, scale),
        low=None if point.low is None else _y(point.low, scale),
        high=None if high is None else _y(high, scale),
        sign=_sign(point),
        failed=bool(point.failed),
        incomplete=bool(point.unmeasured or point.no_attempt),
        change=number,
        words=_words(point),
    )


def _sign(point: Point) -> str:
    if point.median == point.median_most:
        return "dot"
    return "up" if point.median_most is None else "down"


def _words(point: Point) -> str:
    figure = format_median(point)
    unit = "" if figure == NOT_MEASURED else " ms"
    counts = (
        f"n {point.n}, unmeasured {point.unmeasured}, ended otherwise {point.otherwise}, "
        f"failed {point.failed}, no attempt {point.no_attempt}"
    )
    first = f"{point.when}: {figure}{unit} {format_quartiles(point)}".rstrip()
    return "\n".join((first, counts, *point.changes))


def _segments(points: Sequence[PlotPoint]) -> Iterator[tuple[float, float, float, float]]:
    for before, after in pairwise(points):
        if before.y is not None and after.y is not None:
            yield before.x, before.y, after.x, after.y


def _bands(points: Sequence[PlotPoint]) -> Iterator[str]:
    """A band for each stretch of points that have quartiles."""
    stretch: list[PlotPoint] = []
    for point in (*points, None):
        if point is not None and point.low is not None and point.high is not None:
            stretch.append(point)
            continue
        if len(stretch) > 1:
            upper = [f"{10 * one.x:g},{one.high:g}" for one in stretch]
            lower = [f"{10 * one.x:g},{one.low:g}" for one in reversed(stretch)]
            yield " ".join((*upper, *lower))
        stretch = []


def _dates(points: Sequence[Point], at: Sequence[float]) -> Iterator[tuple[float, str]]:
    """A few days below the points, far enough from each other."""
    last = -LEAST_APART
    step = max(1, -(-len(points) // DATES))
    for point, x in [*zip(points, at, strict=True)][::step]:
        if x - last >= LEAST_APART:
            yield x, point.began[:10]
            last = x

"""A case over time as a piece of HTML: the median, the quartiles behind it, changes as lines.

Drawn and zoomed as the figure of an attempt is (:mod:`migrate.report.figure`), in hours instead of
milliseconds. Names are the hosts' own: all text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from migrate.report.drawing import NAMES_PX, Drawing
from migrate.report.figure_data import TENTH, Span
from migrate.report.figure_labels import Label, Place
from migrate.report.svg import UNITS, element, escape, group, line, number, percent
from migrate.report.trend import Point, Series, format_median, format_quartiles

LABEL_ROWS_PX, PANEL_PX, AXIS_PX = 28, 200, 24
LABEL_ROWS = (21.0, 7.5)
CHANGES_MOST = 60
"""Changes that have a label where there is room; the table has all."""
CHANGE_LETTERS = 48
HEADROOM = 1.08
TICKS = 4


def trend_figure(series: Series, title: str) -> str:
    """The figure; ``title``: what it is of, in milliseconds."""
    points = series.points
    hours, epoch = _hours(points)
    window = _window(hours)
    drawing = Drawing(window)
    most = _most(points)
    drawing.height = LABEL_ROWS_PX
    _frame(drawing, title, most)
    for at, point in zip(hours, points, strict=True):
        if point.changes:
            _change(drawing, at, point)
    drawing.stretched(_lines(hours, points, most), LABEL_ROWS_PX, PANEL_PX)
    for at, point in zip(hours, points, strict=True):
        drawing.pieces += _marks(window.share(at), point, most)
    drawing.height += PANEL_PX
    content = (
        element("g", kind="fig-ticks"),
        *drawing.pieces,
        group(label.svg() for label in drawing.placed()),
        *_ends(drawing, points),
    )
    height = drawing.height + AXIS_PX
    names = element("svg", "".join(drawing.names), kind="fig-names", width=NAMES_PX, height=height)
    plot = element(
        "svg", "".join(content), kind="fig-plot", width="100%", height=height,
        role="img", aria_label=f"{title} of {series.name} over time",
    )  # fmt: skip
    body = element("div", names + plot, kind="fig-body")
    shown = f"{number(window.begin)} {number(window.end)}"
    return element("div", body, kind="fig", data_w=shown, data_epoch=epoch)


def _hours(points: Sequence[Point]) -> tuple[list[float], float | None]:
    """When each point began, in hours from the first, and when that was, in ms since 1970; only
    their order if one of them does not say when it was."""
    try:
        began = [datetime.fromisoformat(point.began) for point in points]
    except ValueError:
        return [float(turn) for turn in range(len(points))], None
    stamps = [(at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() for at in began]
    first = min(stamps, default=0.0)
    return [(stamp - first) / 3600 for stamp in stamps], first * 1000


def _window(hours: Sequence[float]) -> Span:
    low, high = min(hours, default=0.0), max(hours, default=0.0)
    pad = max(0.03 * (high - low), 1.0)
    return Span(low - pad, high + pad)


def _most(points: Sequence[Point]) -> float:
    """The top of the panel, in ms."""
    values = [
        value
        for point in points
        for value in (point.median, point.median_most, point.high, point.high_most)
        if value is not None
    ]
    return HEADROOM * max([1.0, *values])


def _frame(drawing: Drawing, title: str, most: float) -> None:
    top = drawing.height
    drawing.name(title, 7.5, "f-head")
    drawing.name("ms", top + 12, "f-note")
    step = 10.0 ** math.floor(math.log10(most / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * TICKS >= most / 1.25)
    for turn in range(math.floor(most / step) + 1):
        y = top + PANEL_PX * (1 - turn * step / most)
        drawing.name(f"{turn * step:g}", y, "f-note", x=NAMES_PX - 6)
        drawing.pieces.append(element("line", kind="rule", x2="100%", y1=y, y2=y))
    drawing.pieces.append(element("rect", kind="frame", width="100%", y=top, height=PANEL_PX))


def _change(drawing: Drawing, at: float, point: Point) -> None:
    """A dotted line, and the first of what has changed."""
    share, more = drawing.window.share(at), len(point.changes) - 1
    first = point.changes[0]
    text = first if len(first) <= CHANGE_LETTERS else f"{first[: CHANGE_LETTERS - 1]}…"
    text += f" (+{more})" if more else ""
    x, bottom = percent(share), LABEL_ROWS_PX + PANEL_PX
    drawing.pieces.append(element("line", kind="change", x1=x, x2=x, y1=LABEL_ROWS_PX, y2=bottom))
    if len(drawing.labels) < CHANGES_MOST:
        places = tuple(Place("mid", y, LABEL_ROWS_PX) for y in LABEL_ROWS)
        drawing.labels.append(Label(text, share, share, places, "change"))


def _lines(hours: Sequence[float], points: Sequence[Point], most: float) -> str:
    """The band of the quartiles and the median's line; both end where nothing was measured."""
    bands, medians = [], []
    for stretch in _measured(points):
        low = [(_x(hours[turn]), _y(points[turn].low, most)) for turn in stretch]
        high = [(_x(hours[turn]), _y(_high(points[turn]), most)) for turn in stretch]
        bands.append(line([*low, *reversed(high)]) + "Z")
        medians.append(
            line((_x(hours[turn]), _y(drawn_at(points[turn]), most)) for turn in stretch)
        )
    band = element("path", kind="band", d="".join(bands)) if bands else ""
    return band + (element("path", kind="rate", d="".join(medians)) if medians else "")


def _measured(points: Sequence[Point]) -> Iterator[list[int]]:
    """Runs of points that have a median, as their places."""
    run: list[int] = []
    for turn, point in enumerate(points):
        if point.median is not None:
            run.append(turn)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _x(hours: float) -> int:
    return round(hours * TENTH)


def _y(ms: float | None, most: float) -> int:
    return round(UNITS * (1 - (ms or 0.0) / most))


def _high(point: Point) -> float | None:
    return point.high if point.high_most is None else point.high_most


def drawn_at(point: Point) -> float | None:
    """Where a median stands: at the most that it can be, or at the least if it has no upper end."""
    return point.median if point.median_most is None else point.median_most


def _marks(share: float, point: Point, most: float) -> Iterator[str]:
    """Its median, as a dot, a triangle or, with attempts that failed, a square; a cross below for
    what was not measured."""
    bottom = LABEL_ROWS_PX + PANEL_PX
    title = element("title", escape(hover(point)))
    at = drawn_at(point)
    if at is not None:
        kind = f"{shape(point)} failed" if point.failed else shape(point)
        yield _mark(share, bottom - PANEL_PX * at / most, SHAPES[shape(point)], kind, title)
    if point.unmeasured or point.no_attempt:
        yield _mark(share, bottom, CROSS, "cross", title)


def shape(point: Point) -> str:
    """A triangle points to where a median may be that is known between bounds only."""
    if point.median != point.median_most:
        return "up" if point.median_most is None else "down"
    return "square" if point.failed else "dot"


SHAPES = {
    "dot": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "square": "M-4.5-4.5h9v9h-9z",
    "up": "M-5 4.5L0-5L5 4.5z",
    "down": "M-5-4.5L0 5L5-4.5z",
}
CROSS = "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5"


def _mark(share: float, y: float, path: str, kind: str, title: str) -> str:
    """A path around its place: an SVG of no size may be placed by a share of the width."""
    return element(
        "svg", title + element("path", d=path), kind=f"m p {kind}", x=percent(share), y=y,
        width=1, height=1, overflow="visible",
    )  # fmt: skip


def hover(point: Point) -> str:
    """All that is known of a point."""
    lines = [
        f"{point.when}: {format_median(point)} {format_quartiles(point)}",
        f"n {point.n}, unmeasured {point.unmeasured}, ended otherwise {point.otherwise}, "
        f"failed {point.failed}, no attempt {point.no_attempt}",
        *point.changes,
    ]
    return "\n".join(lines)


def _ends(drawing: Drawing, points: Sequence[Point]) -> Iterator[str]:
    """Both ends of the axis, where there is no script to make its ticks."""
    y = drawing.height + 14
    if points:
        yield element("text", escape(points[0].when), kind="f-note f-still", x=0.0, y=y)
        last = escape(points[-1].when)
        yield element("text", last, kind="f-note f-still", x="100%", y=y, text_anchor="end")

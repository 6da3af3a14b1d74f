"""The trend as one HTML file that opens offline: a plot for each case, and the table below.

All text in it is someone's: jinja2 escapes what stands in the page, plotly's labels, which are
markup too, are escaped here, and JSON can't end its script element.
"""

from __future__ import annotations

import html
from importlib import resources
from typing import Any

from migrate.report.html import in_script
from migrate.report.table_model import NOT_MEASURED
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

INK, LINE, BAND, BAD, CHANGE = "#1f2933", "#0072b2", "rgba(0,114,178,.16)", "#b00020", "#8a5a00"
PLOTS = 200
"""Cases that are plotted at most; the table has all."""
ROWS = 5000
"""Rows of the table at most; ``--json`` has all."""


def render(trend: Trend) -> str:
    """The whole page as HTML."""
    import jinja2  # noqa: PLC0415 - heavy
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - heavy

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("migrate.report").joinpath("trend.html.j2").read_text("utf-8")
    lines = list(rows(trend))
    return environment.from_string(source).render(
        trend=trend,
        title=TITLES[trend.figure],
        series=[
            {
                "series": series,
                "figure": in_script(figure(trend, series)),
                "changes": _changes(series),
            }
            for series in trend.series[:PLOTS]
        ],
        more_series=max(0, len(trend.series) - PLOTS),
        heads=heads(trend),
        rows=lines[:ROWS],
        more_rows=max(0, len(lines) - ROWS),
        notes=notes(trend),
        not_measured=NOT_MEASURED,
        plotly=get_plotlyjs(),
    )


def _changes(series: Series) -> list[tuple[str, str]]:
    return [(point.when, change) for point in series.points for change in point.changes]


def figure(trend: Trend, series: Series) -> str:
    """One case over time, as plotly's JSON: the median, quartiles behind it, changes as lines."""
    from plotly import graph_objects as go  # noqa: PLC0415 - heavy

    points = series.points
    drawn = go.Figure()
    # None where nothing was measured: the line breaks there instead of falling to zero.
    for values, fill in (
        ([p.low for p in points], None),
        ([p.high if p.high_most is None else p.high_most for p in points], "tonexty"),
    ):
        drawn.add_trace(
            go.Scatter(
                x=_x(points), y=values, mode="lines", line={"width": 0}, fill=fill,
                fillcolor=BAND, hoverinfo="skip", showlegend=False,
            )
        )  # fmt: skip
    drawn.add_trace(
        go.Scatter(
            x=_x(points), y=[_drawn_at(p) for p in points], mode="lines+markers", name="median",
            line={"color": LINE, "width": 2},
            marker={
                "size": 7,
                "color": [BAD if p.failed else LINE for p in points],
                "symbol": [_symbol(p) for p in points],
            },
            text=[_hover(p) for p in points], hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip
    _draw_missing(drawn, go, points)
    drawn.update_layout(
        template="plotly_white", height=300, margin={"l": 70, "r": 20, "t": 46, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK}, showlegend=False,
        shapes=[_rule(p) for p in points if p.changes],
        annotations=[_mark(p) for p in points if p.changes],
    )  # fmt: skip
    drawn.update_yaxes(title_text=f"{TITLES[trend.figure]}, ms", rangemode="tozero")
    drawn.update_xaxes(type="date")
    return str(drawn.to_json())


def _drawn_at(point: Point) -> float | None:
    """Where a median stands: at the most that it can be, or at the least if it has no upper end."""
    return point.median if point.median_most is None else point.median_most


def _symbol(point: Point) -> str:
    """A triangle points to where a median may be that is known between bounds only."""
    if point.median == point.median_most:
        return "circle"
    return "triangle-up" if point.median_most is None else "triangle-down"


def _x(points: tuple[Point, ...]) -> list[str]:
    return [point.began for point in points]


def _draw_missing(drawn: Any, go: Any, points: tuple[Point, ...]) -> None:
    """Crosses at the bottom for points with unmeasured attempts, or tries that left none."""
    incomplete = tuple(p for p in points if p.unmeasured or p.no_attempt)
    drawn.add_trace(
        go.Scatter(
            x=_x(incomplete), y=[0] * len(incomplete), mode="markers", name=NOT_MEASURED,
            cliponaxis=False,
            marker={"size": 9, "symbol": "x-thin-open", "color": BAD},
            text=[_hover(p) for p in incomplete], hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip


def _hover(point: Point) -> str:
    lines = [
        f"{point.when}: {format_median(point)} {format_quartiles(point)}",
        f"n {point.n}, unmeasured {point.unmeasured}, ended otherwise {point.otherwise}, "
        f"failed {point.failed}, no attempt {point.no_attempt}",
        *point.changes,
    ]
    return "<br>".join(html.escape(line) for line in lines)


def _rule(point: Point) -> dict[str, Any]:
    return {
        "type": "line", "x0": point.began, "x1": point.began, "y0": 0, "y1": 1, "yref": "paper",
        "line": {"color": CHANGE, "width": 1, "dash": "dot"},
    }  # fmt: skip


def _mark(point: Point) -> dict[str, Any]:
    first, more = point.changes[0], len(point.changes) - 1
    text = html.escape(first if len(first) < 60 else f"{first[:57]}…")
    return {
        "x": point.began, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False,
        "text": text + (f" (+{more})" if more else ""), "font": {"size": 11, "color": CHANGE},
    }  # fmt: skip

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
from migrate.report.trend import TITLES, Point, Series, Trend, heads, notes, rows, spread, told

INK, LINE, BAND, BAD, CHANGE = "#1f2933", "#0072b2", "rgba(0,114,178,.16)", "#b00020", "#8a5a00"
PLOTS = 200
"""Drawn at most; the table has all."""
ROWS = 5000
"""Of the table at most; ``--json`` has all."""


def render(found: Trend) -> str:
    """The page."""
    import jinja2  # noqa: PLC0415 - heavy
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - heavy

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("migrate.report").joinpath("trend.html.j2").read_text("utf-8")
    lines = list(rows(found))
    return environment.from_string(source).render(
        trend=found,
        title=TITLES[found.figure],
        series=[
            {"series": one, "figure": in_script(figure(found, one)), "changes": _changes(one)}
            for one in found.series[:PLOTS]
        ],
        more_series=max(0, len(found.series) - PLOTS),
        heads=heads(found),
        rows=lines[:ROWS],
        more_rows=max(0, len(lines) - ROWS),
        notes=notes(found),
        not_measured=NOT_MEASURED,
        plotly=get_plotlyjs(),
    )


def _changes(series: Series) -> list[tuple[str, str]]:
    return [(point.when, change) for point in series.points for change in point.changes]


def figure(found: Trend, series: Series) -> str:
    """One case over time, as plotly's JSON: the median, quartiles behind it, changes as lines."""
    from plotly import graph_objects as go  # noqa: PLC0415 - heavy

    points = series.points
    drawn = go.Figure()
    # None where nothing was measured: the line breaks there instead of falling to zero.
    for values, fill in (([p.low for p in points], None), ([p.high for p in points], "tonexty")):
        drawn.add_trace(
            go.Scatter(
                x=_x(points), y=values, mode="lines", line={"width": 0}, fill=fill,
                fillcolor=BAND, hoverinfo="skip", showlegend=False,
            )
        )  # fmt: skip
    drawn.add_trace(
        go.Scatter(
            x=_x(points), y=[p.median for p in points], mode="lines+markers", name="median",
            line={"color": LINE, "width": 2},
            marker={"size": 7, "color": [BAD if p.failed else LINE for p in points]},
            text=[_hover(found, p) for p in points], hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip
    _lacking(drawn, go, found, points)
    drawn.update_layout(
        template="plotly_white", height=300, margin={"l": 70, "r": 20, "t": 46, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK}, showlegend=False,
        shapes=[_rule(p) for p in points if p.changes],
        annotations=[_mark(p) for p in points if p.changes],
    )  # fmt: skip
    drawn.update_yaxes(title_text=f"{TITLES[found.figure]}, ms", rangemode="tozero")
    drawn.update_xaxes(type="date")
    return str(drawn.to_json())


def _x(points: tuple[Point, ...]) -> list[str]:
    return [point.began for point in points]


def _lacking(drawn: Any, go: Any, found: Trend, points: tuple[Point, ...]) -> None:
    """Runs of which some or all was not measured, or left no attempt: crosses at the bottom."""
    lacking = tuple(p for p in points if p.unmeasured or p.no_attempt)
    drawn.add_trace(
        go.Scatter(
            x=_x(lacking), y=[0] * len(lacking), mode="markers", name=NOT_MEASURED,
            cliponaxis=False,
            marker={"size": 9, "symbol": "x-thin-open", "color": BAD},
            text=[_hover(found, p) for p in lacking], hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip


def _hover(found: Trend, point: Point) -> str:
    lines = [
        f"{point.when}: {told(found.figure, point.median, point)} {spread(point)}",
        f"n {point.n}, unmeasured {point.unmeasured}, failed {point.failed}, "
        f"no attempt {point.no_attempt}",
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

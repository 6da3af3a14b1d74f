"""The trend as one HTML file that opens offline: a plot for each case, and the table below.

All text in it is someone's: it is escaped.
"""

from __future__ import annotations

from importlib import resources

from migrate.report.figure import script, style
from migrate.report.table_model import NOT_MEASURED
from migrate.report.trend import (
    TITLES,
    Series,
    Trend,
    heads,
    notes,
    rows,
)
from migrate.report.trend_figure import trend_figure

PLOTS = 200
"""Cases that are plotted at most; the table has all."""
ROWS = 5000
"""Rows of the table at most; ``--json`` has all."""


def render(trend: Trend) -> str:
    """The whole page as HTML."""
    import jinja2  # noqa: PLC0415 - heavy

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
                "figure": trend_figure(series, TITLES[trend.figure]),
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
        figure_style=style(),
        figure_script=script(),
    )


def _changes(series: Series) -> list[tuple[str, str]]:
    return [(point.when, change) for point in series.points for change in point.changes]

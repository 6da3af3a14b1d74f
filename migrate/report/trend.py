"""Medians and spreads over many runs, by lab, case and mode: from a store, as pure values.

Quartiles are interpolated between neighbours (duckdb's ``quantile_cont``). What was not measured is
counted and in no median, and neither is an attempt that ended otherwise than asked; what failed by
a limit and was measured is in both. An outage lies between two bounds, and so does its median
(:mod:`migrate.statistics.censored`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from migrate.model import Value
from migrate.report.table_model import NOT_MEASURED, NOT_THERE, Cell, Grid, GridSection
from migrate.report.table_text import plain_sections
from migrate.results.database import Store
from migrate.results.index import VERSIONS
from migrate.statistics.censored import Interval, bounds_text

Figure = Literal["downtime", "egress", "ingress", "total", "stall"]
PointBy = Literal["run", "day"]
FIGURES: tuple[Figure, ...] = get_args(Figure)
BY: tuple[PointBy, ...] = get_args(PointBy)
TITLES: dict[Figure, str] = {
    "downtime": "downtime reported",
    "egress": "outage seen, egress",
    "ingress": "outage seen, ingress",
    "total": "total time",
    "stall": "guest stall",
}


@dataclass(frozen=True, slots=True)
class TrendQuery:
    """What to select; ``since`` is a UTC date or time, as text that sorts: ``2026-01-31``."""

    figure: Figure = "egress"
    by: PointBy = "run"
    case: str = "*"
    """A pattern of ``*``, ``?`` and ``[...]``."""
    mode: str = ""
    lab: str = ""
    since: str = ""


ENDS = ("source", "target")


class Point(Value):
    """The attempts of one case in one run, or on one day. Lengths in ms; None: not measured.

    The median and the quartiles are the least that they can be, and in ``…_most`` the most: the
    same where it is known exactly, None where there is no upper end.
    """

    when: str
    """The run's name, or the day."""
    began: str
    n: int
    """Number of attempts."""
    measured: int
    """Attempts with a figure, of those that ended as asked."""
    otherwise: int = 0
    """Attempts that ended otherwise than asked, or are void: in no figure."""
    failed: int
    """Attempts that did not pass."""
    no_attempt: int
    """Tries that left no attempt."""
    at_least: int
    """Figures that are lower bounds."""
    median: float | None = None
    median_most: float | None = None
    low: float | None = None
    """The first quartile of the figures."""
    low_most: float | None = None
    high: float | None = None
    """The third quartile of the figures."""
    high_most: float | None = None
    least: float | None = None
    """The least that any of them can be."""
    most: float | None = None
    """The most that any of them can be."""
    floor: float = 0.0
    """Up to where the outages may be that are in the floor; 0: none is."""
    changes: tuple[str, ...] = ()
    """Versions that differ from the run before it."""

    @property
    def unmeasured(self) -> int:
        """Attempts that ended as asked, and are without a figure."""
        return self.n - self.measured - self.otherwise

    @property
    def median_bounds(self) -> Interval | None:
        """The least and the most that the median can be."""
        return _bounds(self.median, self.median_most)

    @property
    def quartile_bounds(self) -> tuple[Interval, Interval] | None:
        """The same of the first quartile and of the third one."""
        low, high = _bounds(self.low, self.low_most), _bounds(self.high, self.high_most)
        return (low, high) if low and high else None


def _bounds(low: float | None, high: float | None) -> Interval | None:
    return None if low is None else (low, math.inf if high is None else high)


class Series(Value):
    """One case in one mode in one lab, in order of time."""

    lab: str
    lab_kind: str
    case_id: str
    mode: str
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The series' name for people: case, mode and lab."""
        return f"{self.case_id}, {self.mode}, lab {self.lab}"


class Trend(Value):
    """The result of a query; ``problems``: runs and attempts that are not in it, and why."""

    figure: Figure
    by: PointBy
    runs: int
    attempts: int
    series: tuple[Series, ...]
    problems: tuple[str, ...] = ()


_SELECT = """
CREATE OR REPLACE TEMP TABLE asked AS
WITH known AS (
  SELECT lab, case_id, min(mode) AS mode FROM attempts
  WHERE kind = 'attempt' GROUP BY lab, case_id
)
SELECT lab, lab_kind, case_id, coalesce(a.mode, known.mode, '?') AS mode, run, began, kind, passed,
  ended_as_asked, {bound} AND ended_as_asked AS bound, definition, source, target, {versions},
  {floored} AS floored,
  CASE WHEN ended_as_asked THEN {figure}_ms END AS value,
  CASE WHEN value IS NOT NULL THEN least(coalesce({most}, {figure}_ms), {endless}) END AS most
FROM attempts a LEFT JOIN known USING (lab, case_id)
WHERE kind IN ('attempt', 'no-attempt') AND case_id GLOB $case
  AND ($mode = '' OR coalesce(a.mode, known.mode, '?') = $mode) AND ($lab = '' OR lab = $lab)
"""
"""A try that left no attempt has no mode: that of the case's attempts is meant."""
ENDLESS = 1e300
"""Where there is no upper end: between two infinities nothing can be interpolated."""


def trend(store: Store, query: TrendQuery) -> Trend:
    """The medians and spreads of all attempts in the store that match the query."""
    outage = query.figure in {"egress", "ingress"}
    columns = {
        "figure": query.figure,
        "bound": f"{query.figure}_open" if outage else "false",
        "floored": f"{query.figure}_in_floor" if outage else "false",
        "most": f"{query.figure}_most_ms" if outage else f"{query.figure}_ms",
        "endless": repr(ENDLESS),
        "versions": ", ".join(f"{end}_{what}" for end in ENDS for what in VERSIONS),
    }
    store.ask(_SELECT.format(**columns), {"case": query.case, "mode": query.mode, "lab": query.lab})
    changes = _changes(store, query)
    series_points: dict[tuple[str, str, str], tuple[str, list[Point]]] = {}
    for lab, case_id, mode, when, kind, *rest in store.ask(_points(query), [query.since]):
        key = (lab, case_id, mode)
        began, n, measured, otherwise, failed, no_attempt, at_least, lower, upper, *ends = rest
        low, median, high = lower or (None, None, None)
        low_most, median_most, high_most = map(_finite, upper or (None, None, None))
        least, most, floor = ends
        point = Point(
            when=when, began=began, n=n, measured=measured, otherwise=otherwise, failed=failed,
            no_attempt=no_attempt, at_least=at_least, median=median, median_most=median_most,
            low=low, low_most=low_most, high=high, high_most=high_most,
            least=least, most=_finite(most), floor=floor or 0.0,
            changes=tuple(dict.fromkeys(changes.get((*key, when), ()))),
        )  # fmt: skip
        series_points.setdefault(key, (kind, []))[1].append(point)
    series = tuple(
        Series(lab=lab, lab_kind=kind, case_id=case_id, mode=mode, points=tuple(points))
        for (lab, case_id, mode), (kind, points) in series_points.items()
    )
    ((runs, attempts),) = store.ask(
        "SELECT count(DISTINCT run), count(*) FILTER (kind = 'attempt') FROM attempts"
    )
    return Trend(
        figure=query.figure, by=query.by, runs=runs, attempts=attempts, series=series,
        problems=tuple(store.problems),
    )  # fmt: skip


def _finite(value: float | None) -> float | None:
    return None if value is None or value > ENDLESS / 1e6 else value


def _when(query: TrendQuery) -> str:
    return "run" if query.by == "run" else "left(began, 10)"


def _points(query: TrendQuery) -> str:
    return f"""
    SELECT lab, case_id, mode, {_when(query)} AS point, any_value(lab_kind), min(began) AS first,
      count(*) FILTER (kind = 'attempt'), count(value),
      count(*) FILTER (kind = 'attempt' AND NOT ended_as_asked),
      count(*) FILTER (kind = 'attempt' AND NOT passed), count(*) FILTER (kind = 'no-attempt'),
      count(*) FILTER (bound), quantile_cont(value, [0.25, 0.5, 0.75]),
      quantile_cont(most, [0.25, 0.5, 0.75]), min(value), max(most),
      max(most) FILTER (floored AND ended_as_asked)
    FROM asked WHERE began >= ?
    GROUP BY lab, case_id, mode, point ORDER BY lab, case_id, mode, first, point
    """


Changes = dict[tuple[str, ...], list[str]]
"""Changes by lab, case, mode and point."""


def _changes(store: Store, query: TrendQuery) -> Changes:
    """What differs from the case's run before: versions host by host, and the case itself.

    A version that was not recorded is no change; the last recorded one counts.
    """
    by_point: Changes = {}
    versions = store.ask(_VERSIONS.format(when=_when(query)), [query.since])
    for lab, case_id, mode, when, host, before, after in versions:
        changes = by_point.setdefault((lab, case_id, mode, when), [])
        for what, old, new in zip(VERSIONS, before, after, strict=True):
            if old and new and old != new:
                changes.append(f"host {host}: {what} {old} → {new}")
    for key in store.ask(_DEFINITIONS.format(when=_when(query)), [query.since]):
        by_point.setdefault(key, []).append("the case's definition")
    return by_point


_PER_RUN = "SELECT lab, case_id, mode, run, min(began) AS began"
_VERSIONS = f"""
WITH ends AS (
  {
    " UNION ALL ".join(
        f"{_PER_RUN}, {end} AS host, "
        + ", ".join(f"any_value({end}_{what}) AS {what}" for what in VERSIONS)
        + f" FROM asked WHERE kind = 'attempt' GROUP BY lab, case_id, mode, run, {end}"
        for end in ENDS
    )
}
), seen AS (
  SELECT *, {", ".join(f"lag({what} IGNORE NULLS) OVER before AS old_{what}" for what in VERSIONS)}
  FROM ends WINDOW before AS (PARTITION BY lab, case_id, mode, host ORDER BY began, run)
)
SELECT lab, case_id, mode, {{when}}, host,
  [{", ".join(f"old_{what}" for what in VERSIONS)}], [{", ".join(VERSIONS)}]
FROM seen WHERE began >= ? AND ({" OR ".join(f"old_{what} <> {what}" for what in VERSIONS)})
ORDER BY began, run, host
"""
"""A host's versions are those of the run's begin, so one value of a run stands for all."""
_DEFINITIONS = f"""
WITH sets AS (
  {_PER_RUN}, list_sort(list(DISTINCT definition)) AS defined
  FROM asked WHERE kind = 'attempt' GROUP BY lab, case_id, mode, run
), seen AS (
  SELECT *, lag(defined) OVER (PARTITION BY lab, case_id, mode ORDER BY began, run) AS before
  FROM sets
)
SELECT lab, case_id, mode, {{when}} FROM seen WHERE before <> defined AND began >= ?
"""
"""A run may have several cases of one name, that differ in what was set on the way."""


# --- rendering ----------------------------------------------------------------------------------


NAMES = 3
"""Columns that name a series: lab, case and mode."""


def heads(trend: Trend) -> tuple[str, ...]:
    """The headings of the table."""
    return (
        *("lab", "case", "mode", trend.by, "n", f"{TITLES[trend.figure]}, ms", "spread, ms"),
        *("unmeasured", "ended otherwise", "failed", "no attempt", "changed"),
    )


def rows(trend: Trend) -> Iterator[tuple[str, ...]]:
    """A row a point, in order of time within each case."""
    return (_row(series, point) for series in trend.series for point in series.points)


def _row(series: Series, point: Point) -> tuple[str, ...]:
    return (
        *(series.lab, series.case_id, series.mode, point.when, str(point.n)),
        *(format_median(point), format_quartiles(point)),
        *(str(number or NOT_THERE) for number in _counts(point)),
        "; ".join(point.changes),
    )


def _counts(point: Point) -> tuple[int, ...]:
    return point.unmeasured, point.otherwise, point.failed, point.no_attempt


def format_median(point: Point) -> str:
    """A median as text, with ``≤`` or ``≥`` where it is known between bounds only."""
    bounds = point.median_bounds
    return NOT_MEASURED if bounds is None else bounds_text(bounds, point.floor)


def format_quartiles(point: Point) -> str:
    """The quartiles of a point as text; empty without any, or of one attempt alone."""
    if point.quartile_bounds is None or point.measured < 2:
        return ""
    low, high = (bounds_text(bounds, point.floor, "floor") for bounds in point.quartile_bounds)
    return f"[{low}..{high}]"


def plain(trend: Trend) -> str:
    """A table a case, in columns that fit a line of a log; nothing is cut off."""
    sections = [GridSection(series.name, _grid(trend, series)) for series in trend.series]
    return plain_sections([*sections, GridSection("", lines=tuple(notes(trend)))])


def _grid(trend: Trend, series: Series) -> Grid:
    """Without columns that have nothing to tell of this case."""
    table = [_row(series, point)[NAMES:] for point in series.points]
    titles = heads(trend)[NAMES:]
    told = [at for at in range(len(titles)) if any(row[at] not in ("", NOT_THERE) for row in table)]
    return Grid(
        tuple(titles[at] for at in told),
        tuple(tuple(Cell(row[at]) for at in told) for row in table),
    )


def notes(trend: Trend) -> Sequence[str]:
    """Lines on how to read the table."""
    return (
        f"{trend.attempts} attempts of {trend.runs} runs. A figure is the median "
        f"of the attempts of a {trend.by} that were measured, [first..third quartile] beside it; "
        "what was not measured, ended otherwise than expected or is void is in no median. ≤, ≥, x "
        "to y: known only between bounds, since some outages are below floor or had not ended. "
        "Failed: attempts that did not pass; no attempt: tries that left none. Changed: differs "
        "from the case's previous run.",
    )


def as_json(trend: Trend) -> dict[str, Any]:
    """The trend for programs; each point has its count of unmeasured attempts, too."""
    document = trend.model_dump(mode="json")
    for series, document_series in zip(trend.series, document["series"], strict=True):
        for point, document_point in zip(series.points, document_series["points"], strict=True):
            document_point["unmeasured"] = point.unmeasured
    return document

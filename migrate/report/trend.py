"""Medians and spreads over many runs, by lab, case and mode: from a store, as pure values.

Quartiles are interpolated between neighbours (duckdb's ``quantile_cont``). What was not measured is
counted and in no median; what failed and was measured is in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from migrate.model import Value
from migrate.report.table import clean
from migrate.report.table_model import IN_FLOOR, NOT_MEASURED
from migrate.results.database import Store
from migrate.results.index import VERSIONS

Figure = Literal["downtime", "egress", "ingress", "total", "stall"]
By = Literal["run", "day"]
FIGURES: tuple[Figure, ...] = get_args(Figure)
BY: tuple[By, ...] = get_args(By)
TITLES: dict[Figure, str] = {
    "downtime": "downtime reported",
    "egress": "outage seen, egress",
    "ingress": "outage seen, ingress",
    "total": "total time",
    "stall": "guest stall",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What to look at; ``since`` is a UTC date or time, as text that sorts: ``2026-01-31``."""

    figure: Figure = "egress"
    by: By = "run"
    case: str = "*"
    """A pattern of ``*``, ``?`` and ``[...]``."""
    mode: str = ""
    lab: str = ""
    since: str = ""


ENDS = ("source", "target")


class Point(Value):
    """The attempts of one case in one run, or on one day. Lengths in ms; None: not measured."""

    when: str
    """The run's name, or the day."""
    began: str
    n: int
    """Attempts that there are."""
    measured: int
    """Of these, with a figure."""
    failed: int
    """Of these, not passed."""
    no_attempt: int
    """Tries that left none."""
    at_least: int
    """Of the figures, lower bounds: then the median is one too."""
    median: float | None = None
    low: float | None = None
    """The first quartile."""
    high: float | None = None
    """The third quartile."""
    least: float | None = None
    most: float | None = None
    changes: tuple[str, ...] = ()
    """What is another version than in the run before it."""

    @property
    def unmeasured(self) -> int:
        """Attempts without a figure."""
        return self.n - self.measured


class Series(Value):
    """One case in one mode in one lab, in order of time."""

    lab: str
    lab_kind: str
    case_id: str
    mode: str
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.case_id}, {self.mode}, lab {self.lab}"


class Trend(Value):
    """The answer; ``problems``: what is not in it, and why."""

    figure: Figure
    by: By
    runs: int
    attempts: int
    series: tuple[Series, ...]
    problems: tuple[str, ...] = ()


_ASKED = """
CREATE OR REPLACE TEMP TABLE asked AS
WITH known AS (
  SELECT lab, case_id, min(mode) AS mode FROM attempts
  WHERE kind = 'attempt' GROUP BY lab, case_id
)
SELECT lab, lab_kind, case_id, coalesce(a.mode, known.mode, '?') AS mode, run, began, kind, passed,
  {figure}_ms AS value, {bound} AS bound, definition, source, target, {versions}
FROM attempts a LEFT JOIN known USING (lab, case_id)
WHERE kind IN ('attempt', 'no-attempt') AND case_id GLOB $case
  AND ($mode = '' OR coalesce(a.mode, known.mode, '?') = $mode) AND ($lab = '' OR lab = $lab)
"""
"""A try that left no attempt has no mode: that of the case's attempts is meant."""


def trend(store: Store, asked: Question) -> Trend:
    """Ask the store."""
    outage = asked.figure in {"egress", "ingress"}
    columns = {
        "figure": asked.figure,
        "bound": f"{asked.figure}_open" if outage else "false",
        "versions": ", ".join(f"{end}_{what}" for end in ENDS for what in VERSIONS),
    }
    store.ask(_ASKED.format(**columns), {"case": asked.case, "mode": asked.mode, "lab": asked.lab})
    changes = _changes(store, asked)
    found: dict[tuple[str, str, str], tuple[str, list[Point]]] = {}
    for lab, case_id, mode, when, kind, *rest in store.ask(_points(asked), [asked.since]):
        key = (lab, case_id, mode)
        began, n, measured, failed, no_attempt, at_least, quartiles, least, most = rest
        low, median, high = quartiles or (None, None, None)
        point = Point(
            when=when, began=began, n=n, measured=measured, failed=failed, no_attempt=no_attempt,
            at_least=at_least, median=median, low=low, high=high, least=least, most=most,
            changes=tuple(dict.fromkeys(changes.get((*key, when), ()))),
        )  # fmt: skip
        found.setdefault(key, (kind, []))[1].append(point)
    series = tuple(
        Series(lab=lab, lab_kind=kind, case_id=case_id, mode=mode, points=tuple(points))
        for (lab, case_id, mode), (kind, points) in found.items()
    )
    ((runs, attempts),) = store.ask(
        "SELECT count(DISTINCT run), count(*) FILTER (kind = 'attempt') FROM attempts"
    )
    return Trend(
        figure=asked.figure, by=asked.by, runs=runs, attempts=attempts, series=series,
        problems=tuple(store.problems),
    )  # fmt: skip


def _when(asked: Question) -> str:
    return "run" if asked.by == "run" else "left(began, 10)"


def _points(asked: Question) -> str:
    return f"""
    SELECT lab, case_id, mode, {_when(asked)} AS point, any_value(lab_kind), min(began) AS first,
      count(*) FILTER (kind = 'attempt'), count(value),
      count(*) FILTER (kind = 'attempt' AND NOT passed), count(*) FILTER (kind = 'no-attempt'),
      count(*) FILTER (bound), quantile_cont(value, [0.25, 0.5, 0.75]),
      min(value), max(value)
    FROM asked WHERE began >= ?
    GROUP BY lab, case_id, mode, point ORDER BY lab, case_id, mode, first, point
    """


Changes = dict[tuple[str, ...], list[str]]
"""By lab, case, mode and point."""


def _changes(store: Store, asked: Question) -> Changes:
    """What was another one in the case's run before, host by host, and the case itself.

    A version that was not told is no change; the last one that was told counts.
    """
    found: Changes = {}
    versions = store.ask(_VERSIONS.format(when=_when(asked)), [asked.since])
    for lab, case_id, mode, when, host, before, after in versions:
        changes = found.setdefault((lab, case_id, mode, when), [])
        for what, old, new in zip(VERSIONS, before, after, strict=True):
            if old and new and old != new:
                changes.append(f"host {host}: {what} {old} → {new}")
    for key in store.ask(_DEFINITIONS.format(when=_when(asked)), [asked.since]):
        found.setdefault(key, []).append("the case's definition")
    return found


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


def heads(found: Trend) -> tuple[str, ...]:
    """Of the table."""
    return (
        *("lab", "case", "mode", found.by, "n", f"{TITLES[found.figure]}, ms", "spread, ms"),
        *("unmeasured", "failed", "no attempt", "changed"),
    )


def rows(found: Trend) -> Iterator[tuple[str, ...]]:
    """A row a point, in order of time within each case."""
    for series in found.series:
        for point in series.points:
            yield (
                *(series.lab, series.case_id, series.mode, point.when, str(point.n)),
                *(told(found.figure, point.median, point), spread(point)),
                *(str(point.unmeasured or "-"), str(point.failed or "-")),
                *(str(point.no_attempt or "-"), "; ".join(point.changes)),
            )


def told(figure: Figure, value: float | None, point: Point) -> str:
    """A median in words: an outage of nothing is in the floor."""
    if value is None:
        return NOT_MEASURED
    if value == 0 and figure in {"egress", "ingress"}:
        return IN_FLOOR
    return f"{'≥ ' if point.at_least else ''}{number(value)}"


def spread(point: Point) -> str:
    """Quartiles."""
    if point.low is None or point.high is None:
        return ""
    return f"[{number(point.low)}..{number(point.high)}]"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def plain(found: Trend) -> str:
    """Columns of fixed width for a pipe; nothing is cut off."""
    lines = [heads(found), *(tuple(map(clean, row)) for row in rows(found))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:<{width}}}" for width in widths)
    body = [form.format(*line).rstrip() for line in lines]
    body.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join((*body, "", *notes(found))) + "\n"


def notes(found: Trend) -> Sequence[str]:
    """How to read it."""
    return (
        f"{found.attempts} attempts of {found.runs} runs are in the store. A figure is the median "
        f"of the attempts of a {found.by} that were measured, [first..third quartile] beside it; "
        "what was not measured is in no median. Failed: attempts that did not pass; no attempt: "
        "tries that left none. Changed: other than in the case's run before.",
    )


def as_json(found: Trend) -> dict[str, Any]:
    """For programs; counts of what was not measured beside each figure."""
    document = found.model_dump(mode="json")
    for series, drawn in zip(found.series, document["series"], strict=True):
        for point, one in zip(series.points, drawn["points"], strict=True):
            one["unmeasured"] = point.unmeasured
    return document

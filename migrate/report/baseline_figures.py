"""The figures of one case that are compared with those of earlier runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from migrate.analysis.comparable import why_incomparable
from migrate.analysis.figures import COLUMNS, FLOOR, FigureColumn, counted, ended_as_asked
from migrate.model import Attempt
from migrate.statistics.censored import Interval
from migrate.statistics.comparison import FigureSample

FIGURES = tuple(column for column in COLUMNS if column is not FLOOR)
FAILED = "failed attempts"


def figure_samples(
    case: str, new: Sequence[Attempt], earlier: Sequence[Sequence[Attempt]]
) -> Iterator[FigureSample]:
    """A sample a figure; what was measured neither in this run nor in an earlier one is none."""
    before_all = [attempt for run in earlier for attempt in run]
    doubt = why_incomparable([counted(new), counted(before_all)]) or ""

    def sample(
        figure: str, measure: Callable[[Attempt], Interval | None], error: float
    ) -> FigureSample:
        before = tuple(tuple(map(measure, run)) for run in earlier)
        return FigureSample(case, figure, before, tuple(map(measure, new)), error, doubt=doubt)

    for column in FIGURES:
        error = max(_error(column, new), _error(column, before_all))
        made = sample(column.name, partial(figure_interval, column), error)
        if any(value is not None for run in (*made.earlier, made.new) for value in run):
            yield made
    expect = new[0].case.expect
    rate = tuple(
        tuple(_failed(attempt) for attempt in run if attempt.case.expect == expect)
        for run in (*earlier, new)
    )
    yield FigureSample(case, FAILED, rate[:-1], rate[-1], rate=True, doubt=doubt)


def figure_interval(column: FigureColumn, attempt: Attempt) -> Interval | None:
    """The least and the most that a figure can be, in ms; None: not measured, or the attempt did
    not end as expected, so that its times do not compare."""
    measured = column.measure(attempt) if ended_as_asked(attempt) else None
    return None if measured is None else measured.bounds


def _failed(attempt: Attempt) -> Interval | None:
    """1 for an attempt that failed; None for a void one, which tells neither."""
    if attempt.void:
        return None
    return (0.0, 0.0) if attempt.passed else (1.0, 1.0)


def _error(column: FigureColumn, attempts: Sequence[Attempt]) -> float:
    """The median error of a figure's values; of an outage no less than the meter's floor."""
    errors = []
    for attempt in attempts:
        if (measured := column.measure(attempt)) is not None:
            floor = FLOOR.measure(attempt) if column.outage else None
            errors.append(max(measured.error_ms, floor.ms if floor else 0.0))
    return float(np.median(errors)) if errors else 0.0

"""Medians of values that are known between two bounds only."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.statistics.censored import Interval, bounds_text, median, quantile

FLOOR = (0.0, 9.0)


def exact(*values: float) -> list[Interval]:
    return [(value, value) for value in values]


def at_least(value: float) -> Interval:
    return value, math.inf


def text(*values: Interval) -> str:
    middle = median(values)
    assert middle is not None
    return bounds_text(middle, FLOOR[1] if FLOOR in values else 0.0)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0, 1)), min_size=1),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_whatever_the_values_are_their_quantile_lies_between_the_bounds(
    drawn: list[tuple[float, float, float]], share: float
) -> None:
    bounds = [(min(a, b), max(a, b)) for a, b, _ in drawn]
    truth = [low + (high - low) * at for (low, high), (_, _, at) in zip(bounds, drawn, strict=True)]
    between = quantile(bounds, share)
    assert between is not None
    assert between[0] - 1e-9 <= np.quantile(truth, share) <= between[1] + 1e-9


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_the_median_of_exact_values_is_the_median(values: list[float]) -> None:
    middle = median(exact(*values))
    assert middle == pytest.approx((statistics.median(values),) * 2)


def test_of_nothing_there_is_none() -> None:
    assert median([]) is None


def test_in_the_floor_is_no_zero() -> None:
    """Two in the floor, one of 100 and one of 120: not 50."""
    assert median([FLOOR, FLOOR, *exact(100, 120)]) == (50.0, 54.5)
    assert text(FLOOR, FLOOR, *exact(100, 120)) == "50.0 to 54.5"
    assert text(FLOOR, FLOOR, *exact(100)) == "below floor"
    assert text(FLOOR, *exact(100, 120)) == "100"


def test_no_median_below_the_floor_stands_beside_it() -> None:
    assert text(FLOOR, FLOOR, *exact(10, 16.1)) == "≤ 9.5"


def test_a_lower_bound_is_one_of_the_median_only_where_the_median_is_censored() -> None:
    assert text(*exact(100, 120), at_least(2500)) == "120"
    assert text(*exact(100), at_least(2500), at_least(2600)) == "≥ 2500"
    assert text(*exact(100, 120), at_least(50)) == "100 to 120"
    assert text(*exact(100), at_least(200)) == "≥ 150"
    assert quantile([at_least(3.0), at_least(5.0)], 0.25) == (3.5, math.inf)


def test_what_may_be_longer_than_the_floor_is_not_in_it() -> None:
    assert text(FLOOR, FLOOR, (0.0, 500.0)) == "below floor"
    assert text(FLOOR, (0.0, 500.0), (0.0, 500.0)) == "≤ 500"
    assert bounds_text((0.0, math.inf)) == "not known"


def test_ends_that_read_alike_are_one_figure() -> None:
    assert bounds_text((150.1, 150.4)) == "150"

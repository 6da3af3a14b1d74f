"""Spreads, and the errors of a meter."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from migrate.statistics.spread import (
    MeterErrors,
    Spread,
    meter_errors,
    spread,
)


def test_five_values_reach_minimum_to_maximum_at_their_own_level() -> None:
    assert spread([30, 10, None, 20, 50, 40]) == Spread(
        n=5, missing=1, median=30, low=10, high=50, level=0.9375, minimum=10, maximum=50
    )


def test_many_values_reach_an_interval_inside_the_extremes() -> None:
    found = spread(range(20))
    assert (found.low, found.high, found.minimum, found.maximum) == (5, 14, 0, 19)
    assert found.level == pytest.approx(0.9586, abs=1e-4)


def test_one_value_has_no_interval() -> None:
    found = spread([7])
    assert (found.median, found.minimum, found.maximum) == (7, 7, 7)
    assert found.low is found.high is found.level is None


@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_measured_is_not_zero(values: list[None]) -> None:
    assert spread(values) == Spread(n=0, missing=len(values))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60))
def test_an_interval_holds_the_median_and_states_a_level_it_reaches(values: list[int]) -> None:
    found = spread(values)
    assert found.low is not None and found.high is not None and found.median is not None
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.level is not None
    assert found.level >= min(0.95, 1 - 2 * 0.5 ** len(values)) - 1e-12


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 5, 6, 8, 9, 10, 30, 101, 2000])
def test_an_interval_is_that_of_the_quantile_test(n: int, level: float) -> None:
    found = spread(range(n), level)
    known = stats.quantile_test(range(n), q=0, p=0.5).confidence_interval(level)
    ends = [end for end in (known.low, known.high) if math.isfinite(end)]
    assert [found.low, found.high] == (ends or [0, n - 1]), "too few: all that there is"
    assert found.low is not None
    assert found.level == pytest.approx(1 - 2 * float(stats.binom.cdf(found.low, n, 0.5)))


def test_errors_keep_the_sign_of_the_bias_and_count_the_missed() -> None:
    found = meter_errors([290.0, None, 295.0, 310.0], [300.0, 300.0, 300.0, 300.0])
    assert (found.n, found.missed, found.median) == (3, 1, -5)
    assert found.p95 == pytest.approx(10)


def test_errors_of_nothing_are_none() -> None:
    assert meter_errors([None], [20.0]) == MeterErrors(n=0, missed=1)


def test_errors_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="longer than"):
        meter_errors([1.0], [1.0, 2.0])

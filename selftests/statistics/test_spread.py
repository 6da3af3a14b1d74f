"""Spreads, what may be ranked, and the errors of a meter."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from migrate.statistics.spread import (
    Interval,
    MeterErrors,
    Spread,
    interval,
    meter_errors,
    overlapping_sets,
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


def test_ranked_only_outside_of_intervals_and_error() -> None:
    fast, slow = spread([10, 11, 12, 13, 14]), spread([20, 21, 22, 23, 24])
    wide = spread([1, 14, 30, 40, 50])

    def alike(one: Spread, other: Spread, error: float = 0.0) -> bool:
        spans = {"one": interval(one, error), "other": interval(other, error)}
        return overlapping_sets({k: v for k, v in spans.items() if v}) == (("one", "other"),)

    assert not alike(fast, slow)
    assert not alike(slow, fast, error=2.9)
    assert alike(fast, slow, error=3)
    assert alike(fast, wide)
    assert alike(spread([1]), fast), "what has no interval is never ranked"


def test_what_was_not_measured_has_no_span() -> None:
    assert interval(spread([])) is None
    assert interval(spread([None])) is None


def test_touching_is_no_chain() -> None:
    spans: dict[str, Interval] = {"a": (0, 10), "b": (9, 20), "c": (19, 30), "d": (40, 50)}
    assert overlapping_sets(spans) == (("a", "b"), ("b", "c"))
    assert overlapping_sets({**spans, "e": (0, 60)}) == (
        ("a", "b", "e"),
        ("b", "c", "e"),
        ("d", "e"),
    )
    assert overlapping_sets({"a": (0, 1)}) == ()
    assert overlapping_sets({}) == ()


@given(
    st.dictionaries(
        st.sampled_from("abcdefg"), st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=7
    )
)
def test_every_pair_that_touches_is_in_a_set_and_no_other_is(
    drawn: dict[str, tuple[int, int]],
) -> None:
    spans: dict[str, Interval] = {
        name: (begin, begin + more) for name, (begin, more) in drawn.items()
    }
    found = overlapping_sets(spans)
    for one, other in combinations(spans, 2):
        touch = spans[one][0] <= spans[other][1] and spans[other][0] <= spans[one][1]
        assert touch == any({one, other} <= set(names) for names in found)


def test_errors_keep_the_sign_of_the_bias_and_count_the_missed() -> None:
    found = meter_errors([290.0, None, 295.0, 310.0], [300.0, 300.0, 300.0, 300.0])
    assert (found.n, found.missed, found.median) == (3, 1, -5)
    assert found.p95 == pytest.approx(10)


def test_errors_of_nothing_are_none() -> None:
    assert meter_errors([None], [20.0]) == MeterErrors(n=0, missed=1)


def test_errors_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="longer than"):
        meter_errors([1.0], [1.0, 2.0])

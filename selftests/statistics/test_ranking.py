"""Which rows may be ranked: seldom two that are alike, and two that differ where it can be seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from migrate.statistics.censored import Interval
from migrate.statistics.ranking import Ranking, least_attempts, level_of_pairs, rank

COLUMNS = 11
"""As many as a table ranks by."""


def table(
    random: np.random.Generator, rows: int, attempts: int, factors: dict[int, float] | None = None
) -> dict[str, list[list[Interval | None]]]:
    """Lognormal figures that go together in an attempt; some rows are ``factors`` times longer."""
    made: dict[str, list[list[Interval | None]]] = {}
    for row in range(rows):
        common = random.standard_normal((attempts, 1))
        values = np.exp(0.2 * (common + random.standard_normal((attempts, COLUMNS))))
        values *= 100 * (factors or {}).get(row, 1.0)
        made[f"row {row}"] = [[(value, value) for value in line] for line in values.tolist()]
    return made


def ranked(ranking: Ranking) -> int:
    return sum(map(len, ranking.pairs))


@pytest.mark.parametrize(("rows", "attempts"), [(2, 5), (3, 6), (5, 7), (8, 8)])
def test_rows_that_are_alike_are_ranked_somewhere_in_one_table_of_twenty_at_most(
    rows: int, attempts: int
) -> None:
    random = np.random.default_rng(rows)
    tables = 150 if rows < 8 else 15
    wrong = sum(bool(ranked(rank(table(random, rows, attempts)))) for _ in range(tables))
    assert stats.binomtest(wrong, tables).proportion_ci(0.99).low <= 0.05


def test_at_three_attempts_nothing_can_be_ranked_and_nothing_is() -> None:
    random = np.random.default_rng(3)
    assert least_attempts(2) == 4
    assert not any(ranked(rank(table(random, 5, 3))) for _ in range(20))
    assert not ranked(rank(table(random, 2, 3, {1: 50.0})))


def test_rows_that_are_alike_are_not_ranked_beside_others_that_are_not() -> None:
    random = np.random.default_rng(4)
    wrong = 0
    for _ in range(40):
        ranking = rank(table(random, 4, 7, {2: 5.0, 3: 5.0}))
        wrong += any(
            ranking.may_rank(column, *pair)
            for column in range(COLUMNS)
            for pair in (("row 0", "row 1"), ("row 2", "row 3"))
        )
    assert stats.binomtest(wrong, 40).proportion_ci(0.99).low <= 0.05


@pytest.mark.parametrize(("rows", "attempts"), [(2, 6), (3, 7), (5, 7), (8, 9)])
def test_a_row_that_is_three_times_as_long_is_ranked(rows: int, attempts: int) -> None:
    ranking = rank(table(np.random.default_rng(5), rows, attempts, {0: 3.0}))
    for column in range(COLUMNS):
        assert {(f"row {row}", "row 0") for row in range(1, rows)} <= ranking.pairs[column]


def test_what_can_be_either_way_is_not_ranked() -> None:
    exact: list[list[Interval | None]] = [[(2000.0 + n, 2000.0 + n)] for n in range(10)]
    endless: list[list[Interval | None]] = [[(900.0, math.inf)]] * 10
    floored: list[list[Interval | None]] = [[(0.0, 2005.0)]] * 10
    none: list[list[Interval | None]] = [[None]] * 10
    for other in (endless, floored, none):
        assert not ranked(rank({"exact": exact, "other": other}))
    below: list[list[Interval | None]] = [[(0.0, 900.0)]] * 10
    assert rank({"exact": exact, "below": below}).pairs == (frozenset({("below", "exact")}),)


def test_the_level_of_a_pair_gets_smaller_with_the_table() -> None:
    assert level_of_pairs(2) == level_of_pairs(3) == 0.05
    assert level_of_pairs(5) == pytest.approx(0.02)
    assert level_of_pairs(12) == pytest.approx(0.05 / 66)
    assert [least_attempts(rows) for rows in (2, 3, 4, 5, 6, 12)] == [4, 4, 5, 5, 5, 7]


def test_no_rows_and_one_row() -> None:
    assert rank({}).pairs == ()
    assert ranked(rank({"one": [[(1.0, 1.0)]]})) == 0

"""Shares and their differences, with the error that the count leaves."""

from __future__ import annotations

import numpy as np
import pytest

from migrate.statistics.shares import difference, share


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (0, 1000, 0.0, 0.0066),
        (500, 1000, 0.4594, 0.5406),
        (1000, 1000, 0.9934, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_a_share_lies_between_its_ends(hits: int, of: int, low: float, high: float) -> None:
    found = share(hits, of)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.low <= found.value <= found.high


def test_a_difference_of_nothing_has_the_error_of_both() -> None:
    found = difference(share(0, 1000), share(0, 200))
    assert found.value == 0
    assert found.low < -0.02
    assert 0.006 < found.high < 0.007


def test_nobody_knows_a_difference_to_what_was_not_counted() -> None:
    found = difference(share(0, 0), share(0, 1000))
    assert (found.low < 0, found.high) == (True, 1.0)


@pytest.mark.parametrize(("more", "less"), [(0.0, 0.0), (0.02, 0.01), (0.5, 0.0), (0.1, 0.1)])
def test_the_true_difference_is_covered(more: float, less: float) -> None:
    """99 % nominal; the intervals are of counts, so some room is left."""
    random = np.random.default_rng(5)
    counts = random.binomial([500, 800], [more, less], size=(2000, 2))
    covered = [
        found.low <= more - less <= found.high
        for a, b in counts.tolist()
        for found in [difference(share(a, 500), share(b, 800))]
    ]
    assert sum(covered) / len(covered) > 0.975

"""Which rows of a table may be ranked, and in which columns: one error level for the whole table.

Rows are alike if each attempt could as well have been one of the other row's. So attempts, with all
their figures, are shuffled between the rows (Fisher's permutation test), and each column is judged
by its rank sums (Kruskal and Wallis 1952; values known between bounds by what is sure, Gehan 1965)
against the best that any column does by chance (Westfall and Young 1993, step-down).

Two rows are ranked in a column if their medians are surely apart, and every set of rows that holds
both is found unlike there, a set of p out of k at the level of Ryan, Einot, Gabriel and Welsch:
alpha for p of k and k - 1, and else alpha p / k. Sets of rows that are alike do not overlap, so
their levels add up to alpha at most: the chance that any two rows that do not differ are ranked in
any column. In tables of more rows than :data:`MOST_IN_SETS` it is the pairs alone, at alpha by
their number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from migrate.statistics.censored import Interval, median
from migrate.statistics.significance import Floats, Ints, doubled_ranks

ALPHA = 0.05
MOST_IN_SETS = 6
"""Rows up to which all sets are looked at: there are 57 of six rows."""
SHUFFLES = 1999
"""Of a set of rows; of few attempts all that there are."""
SHUFFLES_OF_PAIRS = 4999
"""Where each pair has a small level of its own."""
MOST_ATTEMPTS = 30
"""Attempts of a row that are used: the first ones. More make it slow, and find no more."""
SEED = 1

Row = Sequence[Sequence[Interval | None]]
"""Attempts, each with a value for every column; None: not measured, it may be anything."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """``pairs``: by column, pairs of rows of which the first is surely lower."""

    pairs: tuple[frozenset[tuple[str, str]], ...]

    def may_rank(self, column: int, first: str, second: str) -> bool:
        """Whether the two may be ranked in a column, whichever is lower."""
        return bool({(first, second), (second, first)} & self.pairs[column])


def level_of_pairs(rows: int, alpha: float = ALPHA) -> float:
    """The largest p that ranks two of so many rows."""
    return _level(2, rows, alpha) if rows <= MOST_IN_SETS else alpha / math.comb(rows, 2)


def _level(size: int, rows: int, alpha: float) -> float:
    return alpha if size >= rows - 1 else alpha * size / rows


def least_attempts(rows: int, alpha: float = ALPHA) -> int:
    """Attempts of each row below which no two of so many rows can be ranked, however they are."""
    level = level_of_pairs(rows, alpha)
    return next(n for n in itertools.count(2) if 2 / math.comb(2 * n, n) <= level)


def rank(rows: Mapping[str, Row], alpha: float = ALPHA) -> Ranking:
    """Which rows may be ranked in which columns; all attempts have the same columns."""
    table = {name: _bounds(row[:MOST_ATTEMPTS]) for name, row in rows.items()}
    columns = max((bounds.shape[1] for bounds in table.values()), default=0)
    unlike: list[set[tuple[str, ...]]] = [set() for _ in range(columns)]
    alike: list[list[set[str]]] = [[] for _ in range(columns)]
    for names, level in _sets(tuple(table), alpha):
        open_columns = [
            column
            for column in range(columns)
            if not any(whole.issuperset(names) for whole in alike[column])
        ]
        if not open_columns:
            continue
        shuffles = SHUFFLES if len(table) <= MOST_IN_SETS else SHUFFLES_OF_PAIRS
        adjusted = _adjusted([table[name] for name in names], shuffles)
        for column in open_columns:
            if adjusted[column] > level:
                alike[column].append(set(names))
            elif len(names) == 2:
                unlike[column].add(names)
    return Ranking(
        tuple(
            frozenset(ordered for pair in pairs if (ordered := _lower_first(table, column, pair)))
            for column, pairs in enumerate(unlike)
        )
    )


def _sets(names: tuple[str, ...], alpha: float) -> Iterator[tuple[tuple[str, ...], float]]:
    """Sets of rows, the largest first, each with its level."""
    sizes = range(len(names), 1, -1) if len(names) <= MOST_IN_SETS else (2,)
    for size in sizes:
        level = level_of_pairs(len(names), alpha) if size == 2 else _level(size, len(names), alpha)
        for chosen in itertools.combinations(names, size):
            yield chosen, level


def _bounds(row: Row) -> Floats:
    """Attempts × columns × 2: the least and the most of each value."""
    anything = (-math.inf, math.inf)
    return np.array(
        [[anything if value is None else value for value in attempt] for attempt in row],
        dtype=np.float64,
    )


def _scores(groups: Sequence[Floats]) -> Ints:
    """Attempts × columns: how many others are surely less, minus how many are surely more."""
    every = np.concatenate(groups)
    ranks = [doubled_ranks(low, high) for low, high in every.transpose(1, 2, 0)]
    return np.stack(ranks, axis=1) - (len(every) + 1)


def _lower_first(
    table: Mapping[str, Floats], column: int, pair: tuple[str, ...]
) -> tuple[str, str] | None:
    """The pair in order of its medians; None: which one is lower is not sure."""
    first, second = pair
    below, above = (_median(table[name][:, column]) for name in pair)
    if below[1] < above[0]:
        return first, second
    return (second, first) if above[1] < below[0] else None


def _median(values: Floats) -> Interval:
    known = [(float(low), float(high)) for low, high in values if low > -math.inf]
    return median(known) or (-math.inf, math.inf)


def _adjusted(groups: Sequence[Floats], shuffles: int) -> Floats:
    """p of each column that the groups are alike, adjusted for all columns of these groups."""
    scores, sizes = _scores(groups), [len(group) for group in groups]
    orders = _orders(sizes, shuffles)
    sums = np.add.reduceat(scores[orders], np.cumsum([0, *sizes[:-1]]), axis=1)
    unlikeness = (sums**2 / np.array(sizes)[None, :, None]).sum(axis=1).round(6)
    by_chance = np.stack([_shares_above(column) for column in unlikeness.T], axis=1)
    adjusted = np.empty(by_chance.shape[1])
    most, least = 0.0, np.ones(len(orders))
    order = np.argsort(by_chance[0], kind="stable")
    bests = []
    for column in order[::-1]:
        least = np.minimum(least, by_chance[:, column])
        bests.append(float((least <= by_chance[0, column]).mean()))
    for column, best in zip(order, bests[::-1], strict=True):
        most = max(most, best)
        adjusted[column] = most
    return adjusted


def _shares_above(values: Floats) -> Floats:
    """For each value the share of all that is as large or larger."""
    return 1 - np.searchsorted(np.sort(values), values, "left") / len(values)


def _orders(sizes: Sequence[int], shuffles: int) -> Ints:
    """Orders of the attempts, the one that was first: all ways to divide them, or as many."""
    total = sum(sizes)
    if len(sizes) == 2 and math.comb(total, sizes[0]) <= shuffles:
        chosen = itertools.combinations(range(total), sizes[0])
        return np.array([[*first, *sorted({*range(total)} - {*first})] for first in chosen])
    random = np.random.default_rng(SEED)
    shuffled = random.permuted(np.tile(np.arange(total), (shuffles, 1)), axis=1)
    return np.concatenate([np.arange(total)[None], shuffled])

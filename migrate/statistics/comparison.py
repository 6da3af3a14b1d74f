"""What is compared with what, by which rules, and what comes of it: values of the gate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from migrate.statistics.censored import Interval
from migrate.statistics.significance import Unit

ComparisonResult = Literal[
    "worse",
    "better",
    "not worse",
    "no change found",
    "below the floor",
    "can't tell",
    "no attempt",
    "unreadable",
]
"""``not worse``: smaller by its interval, and not certain among so many. ``no attempt``: the case
is in the baseline, and this run has no attempt of it. ``unreadable``: it has some of it that can't
be read."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``alpha``: family-wise, of all calls *worse*, and as much of all calls *better*.

    A change is none below ``relative`` of the baseline's median, or ``least`` in the figure's unit,
    or the meter's own error. ``unit`` ``attempt`` takes runs to be all alike. Who would not find a
    change of ``blind``, 1 is a doubling, can't tell that there is none; of a rate, which may be 0,
    it is one of ``blind_rate``. ValueError for what is no number, or out of range.
    """

    alpha: float = 0.05
    relative: float = 0.1
    least: float = 5.0
    unit: Unit = "run"
    blind: float = 1.0
    blind_rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 0.5:
            raise ValueError(f"alpha is above 0 and at most 0.5, not {self.alpha}")
        for name in ("relative", "least", "blind", "blind_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a number from 0 on, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is known and shall fail nothing: patterns, as a shell's.

    ``cant_tell`` of figures, alone or as ``CASE/FIGURE``; ``missing`` of cases without an attempt;
    ``blind``: whatever figure a change would not be found of, and none shows.
    """

    cant_tell: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    blind: bool = False

    def covers(self, comparison: Comparison) -> bool:
        """Whether a result that is no pass fails nothing."""
        if comparison.result == "no attempt":
            return any(fnmatchcase(comparison.case, pattern) for pattern in self.missing)
        names = (comparison.figure, f"{comparison.case}/{comparison.figure}")
        covered = any(fnmatchcase(name, pattern) for name in names for pattern in self.cant_tell)
        return comparison.result == "can't tell" and (covered or (self.blind and comparison.blind))


NOTHING_ALLOWED = Allowance()


@dataclass(frozen=True, slots=True)
class FigureSample:
    """One figure of one case: an interval for each attempt, None if it was not measured.

    In the floor: from 0 to the floor. At least: up to infinity.
    ``rate``: 1 for an attempt that failed, 0 for one that passed; means in place of medians, no
    floor. ``error``: what one value may be off. ``doubt``: why the two must not be compared.
    """

    case: str
    figure: str
    earlier: tuple[tuple[Interval | None, ...], ...]
    """The attempts of earlier runs, run by run."""
    new: tuple[Interval | None, ...]
    error: float = 0.0
    rate: bool = False
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result for one sample. ``change``: the least that the medians' difference can be.

    ``low`` to ``high``: its interval at the level at which it is called, that of the whole family:
    one that is called does not reach over 0. ``superiority``: of a new
    attempt and an earlier one, how often the new one is larger; ties count half. ``p`` is of one
    side, the one that the tests lean to; ``adjusted`` is Holm's. ``finds``: a change, as a share of
    the baseline, that has even chances to be called one. None: not available.
    """

    case: str
    figure: str
    result: ComparisonResult
    why: str
    runs: int
    n_earlier: int
    n_new: int
    missing_earlier: int
    missing_new: int
    median_earlier: Interval | None = None
    median_new: Interval | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    superiority: float | None = None
    p: float | None = None
    adjusted: float | None = None
    floor: float | None = None
    finds: float | None = None
    rate: bool = False
    blind: bool = False
    """It can't be told for no other reason than that a change would not be found: none shows."""

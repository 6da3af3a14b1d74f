"""Which case to try next when there is not time for all: the one that tells most a second.

Cases that are known to fail (quarantined) come after all others. Of each kind, a case that was
never tried in this lab comes first, the quickest before others. Of the rest
each has a value, a sum of five parts (the table is in ``docs/nightly.md``), over its cost:

- ``failed`` 2 if the last try did not pass;
- ``changed`` 2 if the last try was with other versions on the hosts;
- ``doubt`` 0 to 1: bits of entropy of the rate at which it passes, later tries counting more;
- ``spread`` 0 to 1: how wide the interval of the median of its longest outage is;
- ``age`` 1 a week since the last try, without an end.

All but the age are bounded, and so are the costs: whatever waits for long enough comes first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Literal

from migrate.statistics.spread import spread

FAILED = 2.0
CHANGED = 2.0
WEEK_S = 7 * 86400.0
HALF_LIFE = 5.0
"""Tries after which a result counts half."""
UNKNOWN_S = 60.0
"""Expected cost of a try before any was made."""
REPORT_S, REPORT_EACH_S = 5.0, 0.5
"""Expected time for a report before any was written in this lab, and for each of its attempts."""
LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class PastTry:
    """One earlier try. ``seconds`` and ``outage_ms`` are None where they were not measured."""

    at_s: float
    """Wall clock, seconds since 1970."""
    passed: bool
    versions: str
    """Versions of all on the hosts that can matter, as one text."""
    seconds: float | None = None
    outage_ms: float | None = None
    """The longest gap either way."""


@dataclass(frozen=True, slots=True)
class PastReport:
    """How long the report of an earlier run took, and how many attempts were in it."""

    attempts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Worth:
    """What one more try of a case is taken to tell, by part; see the module."""

    failed: float = 0.0
    changed: float = 0.0
    doubt: float = 0.0
    spread: float = 0.0
    age: float = 0.0

    @property
    def sum(self) -> float:
        """All parts together."""
        return math.fsum(getattr(self, part.name) for part in fields(self))

    @property
    def most(self) -> str:
        """The part that weighs most."""
        return max((part.name for part in fields(self)), key=lambda name: getattr(self, name))


@dataclass(frozen=True, slots=True)
class Cost:
    """Expected seconds of a try, and what they are taken from."""

    seconds: float
    basis: Literal["own", "others", "assumed"]

    def __str__(self) -> str:
        words = {
            "own": "",
            "others": " (as other cases take)",
            "assumed": " (assumed: no try in this lab is known yet)",
        }
        return f"about {self.seconds:.0f} s{words[self.basis]}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A case that could be next. ``worth`` is None if it was never tried here."""

    case_id: str
    cost: Cost
    worth: Worth | None
    quarantined: bool = False

    @property
    def rank(self) -> tuple[bool, bool, float, float]:
        """Sorts the most informative first, and what is known to fail last."""
        cost_s = self.cost.seconds
        if self.worth is None:
            return self.quarantined, False, cost_s, 0.0
        return self.quarantined, True, -self.worth.sum / cost_s, cost_s

    def reason(self, past: Sequence[PastTry], now_s: float) -> str:
        """Why it is worth a try, in words."""
        known = "quarantined; " if self.quarantined else ""
        return known + (_reason(self.worth, past, now_s) if self.worth else NEVER)


ASSUMED = Cost(UNKNOWN_S, "assumed")
NEVER = "never tried in this lab"
TIMES = {1: "once", 2: "twice"}
History = Mapping[str, Sequence[PastTry]]
"""By case id, in order of time."""


def worth(past: Sequence[PastTry], now_s: float, versions: str) -> Worth | None:
    """The worth of one more try; None: there was none yet."""
    if not past:
        return None
    last = past[-1]
    return Worth(
        failed=0.0 if last.passed else FAILED,
        changed=CHANGED if last.versions != versions else 0.0,
        doubt=doubt([one.passed for one in past]),
        spread=_spread([one.outage_ms for one in past]),
        age=max(0.0, now_s - last.at_s) / WEEK_S,
    )


def doubt(passed: Sequence[bool]) -> float:
    """Bits of entropy, 0 to 1, of the rate of passes; ``passed`` in order of time.

    The rate is the mean of its distribution from a uniform prior on (Laplace's rule of
    succession): no try at all is one bit, and each that agrees with the others takes some away.
    """
    weights = [0.5 ** (age / HALF_LIFE) for age in range(len(passed))]
    good = math.fsum(w for w, one in zip(weights, reversed(passed), strict=True) if one)
    rate = (good + 1) / (math.fsum(weights) + 2)
    return -(rate * math.log2(rate) + (1 - rate) * math.log2(1 - rate))


def _spread(outages_ms: Sequence[float | None]) -> float:
    """Width of the interval by its upper end, 0 to 1; 1 where there is no interval to be had."""
    interval = spread(outages_ms)
    if interval.low is None or interval.high is None:
        return 1.0
    return (interval.high - interval.low) / interval.high if interval.high > 0 else 0.0


def _reason(worth: Worth, past: Sequence[PastTry], now_s: float) -> str:
    match worth.most:
        case "failed":
            return "its last try failed"
        case "changed":
            return "the hosts' versions have changed since its last try"
        case "doubt":
            passed = sum(each.passed for each in past)
            if passed < len(past):
                return f"passed {passed} of {len(past)}"
            return f"tried only {TIMES.get(len(past), f'{len(past)} times')}"
        case "spread":
            return "its outage is not well known yet"
    return f"last tried {(now_s - past[-1].at_s) / 86400:.0f} days ago"


def costs(case_ids: Sequence[str], history: History) -> dict[str, Cost]:
    """What a try costs: the median of the case's own, else of all, else 60 s."""
    known = {
        case: [one.seconds for one in past if one.seconds is not None]
        for case, past in history.items()
    }
    every = [seconds for durations in known.values() for seconds in durations]
    otherwise = Cost(max(LEAST_S, median(every)), "others") if every else ASSUMED
    return {
        case: Cost(max(LEAST_S, median(known[case])), "own") if known.get(case) else otherwise
        for case in case_ids
    }


def report_s(attempts: int, past: Sequence[PastReport]) -> float:
    """Expected time to write a report of so many attempts: the median of earlier ones, each scaled
    up for more attempts, but not down for fewer."""
    if not past:
        return REPORT_S + REPORT_EACH_S * attempts
    return median(one.seconds * max(1.0, attempts / max(1, one.attempts)) for one in past)


def order(
    case_ids: Sequence[str],
    history: History,
    now_s: float,
    versions: str,
    quarantined: Collection[str] = (),
) -> tuple[Choice, ...]:
    """The most informative first, those that are ``quarantined`` after all others; equals stay in
    the order in which they came."""
    cost = costs(case_ids, history)
    choices = (
        Choice(case, cost[case], worth(history.get(case, ()), now_s, versions), case in quarantined)
        for case in case_ids
    )
    return tuple(sorted(choices, key=lambda choice: choice.rank))

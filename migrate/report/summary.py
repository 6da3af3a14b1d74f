"""The result of a run in a line: passed or not, and what became of its tries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from migrate.checks import quarantine
from migrate.results.reader import RunRecord


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Numbers of attempts; ``others``: of those that are no plain pass or failure, by what they
    are. ``EMPTY``: there is no attempt to judge."""

    result: Literal["PASS", "FAIL", "EMPTY"]
    passed: int
    attempts: int
    others: Mapping[str, int]
    skips: int
    """Cases that can't run in this lab."""
    expired: int
    """Entries of the quarantine list."""
    stages: int = 0
    """Guests that tests moved by hand."""

    @property
    def by_hand_alone(self) -> bool:
        """Whether all that was done is in the test runner's report, none of it in ours."""
        return self.result == "EMPTY" and self.stages > 0 and not self.expired

    @property
    def counts(self) -> str:
        """``6 of 8 attempts passed, 2 void``."""
        others = (f"{number} {what}" for what, number in self.others.items())
        tried = f"{self.passed} of {self.attempts} attempts passed"
        if self.by_hand_alone:
            guests = f"{self.stages} guest{'' if self.stages == 1 else 's'}"
            tried = f"no attempt; tests moved {guests} by hand (`boot`): see their own report"
        return ", ".join((tried, *others))

    @property
    def line(self) -> str:
        """The result, the counts, and what was not tried at all."""
        parts = [f"{self.result}: {self.counts}"]
        if self.skips:
            parts.append(f"{self.skips} case{'' if self.skips == 1 else 's'} can't run in this lab")
        if self.expired:
            parts.append(f"expired entries of the quarantine list: {self.expired}")
        return "; ".join(parts)


def summary(record: RunRecord) -> RunSummary:
    """The result of a run, and the numbers that say how it came about."""
    run = record.run
    attempts = [entry.attempt for entry in record.attempts]
    results = Counter(attempt.result for attempt in attempts)
    excused = sum(bool(quarantine.excuses(run, attempt)) for attempt in attempts)
    numbers = {
        "void": results["void"],
        "quarantined": excused,
        "left no attempt": len(run.mishaps),
        "that can't be read": len(record.unreadable),
        "cut off": len(record.unfinished),
        "not run": sum(missed.tries for missed in run.not_reached),
    }
    return RunSummary(
        result=_result(record, results["pass"] + excused),
        passed=results["pass"],
        attempts=len(attempts),
        others={what: number for what, number in numbers.items() if number},
        skips=len(run.skips),
        expired=len(quarantine.expired(run)),
        stages=run.stages,
    )


def _result(record: RunRecord, good: int) -> Literal["PASS", "FAIL", "EMPTY"]:
    run = record.run
    if not record.attempts and not record.unreadable and not run.mishaps:
        return "EMPTY"
    whole = good == len(record.attempts) and not record.unreadable and not run.mishaps
    return "PASS" if whole and not quarantine.expired(run) else "FAIL"

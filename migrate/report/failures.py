"""What did not pass, and why: the first thing that somebody looks for in the morning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from migrate.checks import quarantine
from migrate.model import Attempt, Run
from migrate.report.verdict_text import why_not_passed
from migrate.results.reader import RunRecord

Kind = Literal["FAIL", "VOID", "quarantined", "no attempt", "unreadable", "cut off"]
MOST_REASONS = 4
"""Reasons that are listed of an attempt; its verdicts have them all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Attempts of one case that did not pass for the same checks, and why the first did not."""

    kind: Kind
    case_id: str
    numbers: tuple[int, ...]
    """Empty where the case's attempts are not known."""
    reasons: tuple[str, ...]
    more_reasons: int = 0
    linked: bool = True
    """Whether the page has these attempts."""


def failures(record: RunRecord) -> tuple[Failure, ...]:
    """All that did not pass, what can't be judged first; a quarantined one is last."""
    run = record.run
    attempts = [entry.attempt for entry in record.attempts]
    problems = [*_lost(record), *_failed(run, attempts)]
    order: list[Kind] = ["unreadable", "no attempt", "cut off", "VOID", "FAIL", "quarantined"]
    return tuple(sorted(problems, key=lambda failure: order.index(failure.kind)))


def _lost(record: RunRecord) -> Iterator[Failure]:
    """Tries of which there is no attempt to show."""
    for attempt in record.unreadable:
        numbers = () if attempt.number is None else (attempt.number,)
        yield Failure("unreadable", attempt.case_id, numbers, (attempt.why,), linked=False)
    same: dict[tuple[str, str], list[int]] = {}
    for mishap in record.run.mishaps:
        problem = mishap.problem
        where = f" on {problem.host}" if problem.host else ""
        why = f"{problem.tried}{where}: {problem.said}".rstrip(": ")
        why += f" -- {problem.remedy}" if problem.remedy else ""
        same.setdefault((mishap.case_id, why), []).append(mishap.number)
    for (case_id, why), tries in same.items():
        yield Failure("no attempt", case_id, tuple(tries), (why,), linked=False)
    for name in record.unfinished:
        case_id, _, number = name.rpartition("/")
        numbers = (int(number),) if number.isdecimal() else ()
        yield Failure("cut off", case_id, numbers, ("it was not finished",), linked=False)


def _failed(run: Run, attempts: Sequence[Attempt]) -> Iterator[Failure]:
    same: dict[tuple[str, Kind, tuple[str, ...]], list[Attempt]] = {}
    for attempt in attempts:
        if not attempt.passed:
            kind = _kind(run, attempt)
            checks = tuple(f"{v.check} {v.result}" for v in attempt.failed_verdicts)
            same.setdefault((attempt.case.id, kind, checks), []).append(attempt)
    for (case_id, kind, _), alike in same.items():
        reasons = why_not_passed(alike[0])
        yield Failure(
            kind,
            case_id,
            tuple(sorted(attempt.number for attempt in alike)),
            reasons[:MOST_REASONS],
            max(0, len(reasons) - MOST_REASONS),
        )


def _kind(run: Run, attempt: Attempt) -> Kind:
    if attempt.void:
        return "VOID"
    return "quarantined" if quarantine.excuses(run, attempt) else "FAIL"

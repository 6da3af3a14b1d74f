"""Which case of an earlier run is which of this one's, and cases that this run tells nothing of."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrate.model import Attempt, Case, Problem
from migrate.results.reader import RunRecord
from migrate.statistics.comparison import Comparison, ComparisonResult

ATTEMPTS = "attempts"
"""Stands where a figure's name is: it is of all of them that nothing is known."""
NO_SETTING = {"id", "expect", "needs", "source_file", "row"}
"""Keys of a case that change its name and what is expected, and nothing that is done."""


@dataclass(frozen=True, slots=True)
class CaseId:
    """A case by its name and a digest of what is done in it."""

    name: str
    settings: str


Cases = Mapping[CaseId, Sequence[Attempt]]


@dataclass(frozen=True, slots=True)
class EarlierCase:
    """The attempts of one case in one earlier run."""

    record: RunRecord
    attempts: Sequence[Attempt]


def case_key(case: Case) -> str:
    """A digest of a case's settings: equal for cases that do the same to the same guest.

    Asking for dirty rates is a setting: they are measured before and during the move.
    """
    settings = case.model_dump(mode="json", exclude=NO_SETTING)
    settings["dirty rates"] = case.expect.dirty_rate_within is not None
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def by_case(record: RunRecord) -> dict[CaseId, list[Attempt]]:
    """The attempts of a run, case by case: two that differ by what is expected alone are two."""
    keys: dict[Case, CaseId] = {}
    cases: dict[CaseId, list[Attempt]] = {}
    for attempt_record in record.attempts:
        case = attempt_record.attempt.case
        if case not in keys:
            keys[case] = CaseId(case.id, case_key(case))
        cases.setdefault(keys[case], []).append(attempt_record.attempt)
    return cases


def case_labels(cases: Cases) -> dict[CaseId, str]:
    """Names of cases for people: with a part of the digest where several have one name."""
    often = Counter(case.name for case in cases)
    return {
        case: f"{case.name} ({case.settings[:6]})" if often[case.name] > 1 else case.name
        for case in cases
    }


def same_case(case: CaseId, new: Cases, earlier: Cases) -> Sequence[Attempt]:
    """The attempts of an earlier run that are of this case; empty: it has none.

    Of cases that do the same it is the one of this name; else the one of which the same was
    expected, or the only one there.
    """
    if case in earlier:
        return earlier[case]
    alike = [attempts for other, attempts in earlier.items() if other.settings == case.settings]
    expect = new[case][0].case.expect
    expecting = [attempts for attempts in alike if attempts[0].case.expect == expect]
    for choice in (expecting, alike):
        if len(choice) == 1:
            return choice[0]
    return ()


def names_tried(record: RunRecord) -> set[str]:
    """Names of cases that a run tried, or was to try."""
    run = record.run
    return {
        *(attempt_record.attempt.case.id for attempt_record in record.attempts),
        *(attempt.case_id for attempt in record.unreadable),
        *(mishap.case_id for mishap in run.mishaps),
        *(missed.case_id for missed in run.not_reached),
        *(skip.case.id for skip in run.skips),
    }


def untold_cases(
    new: RunRecord, cases: Cases, related: Sequence[RunRecord]
) -> Iterator[Comparison]:
    """Cases that this run tells too little of to be green, a result each.

    Those of ``related`` earlier runs that have no attempt here, those of which most tries left no
    attempt that counts, and attempts that can't be read.
    """
    names, settings = {case.name for case in cases}, {case.settings for case in cases}
    before: dict[str, list[int]] = {}
    for record in related:
        for earlier, tried in by_case(record).items():
            before.setdefault(earlier.name, []).append(len(tried))
            if earlier.settings in settings:
                names.add(earlier.name)
    for name, runs in before.items():
        if name not in names:
            yield _untold(name, "no attempt", _why_none(name, new), runs)
    for case, attempts in cases.items():
        tries = len(attempts) + len(_mishaps(case.name, new))
        valid = sum(not attempt.void for attempt in attempts)
        if 2 * valid < tries:
            why = f"{valid} of {tries} tries produced a valid attempt"
            reasons = [*_mishaps(case.name, new), *(v for a in attempts for v in a.void)]
            counts = before.get(case.name, [])
            yield _untold(case.name, "can't tell", f"{why}: {reasons[0]}", counts, valid, tries)
    for lost in new.unreadable:
        yield _untold(lost.case_id, "unreadable", f"{lost.name}: {lost.why}", [])


def _untold(
    name: str, result: ComparisonResult, why: str, runs: Sequence[int], n: int = 0, tries: int = 0
) -> Comparison:
    return Comparison(
        case=name,
        figure=ATTEMPTS,
        result=result,
        why=why,
        runs=len(runs),
        n_earlier=sum(runs),
        n_new=n,
        missing_earlier=0,
        missing_new=tries - n,
    )


def _why_none(name: str, new: RunRecord) -> str:
    """Why a run has no attempt of a case, as far as it is on record."""
    if reasons := _mishaps(name, new):
        return f"{len(reasons)} of {len(reasons)} tries produced no attempt: {reasons[0]}"
    if any(attempt.case_id == name for attempt in new.unreadable):
        return "its attempts can't be read"
    for skip in new.run.skips:
        if skip.case.id == name:
            return f"can't run in this lab: {skip.reason}"
    for missed in new.run.not_reached:
        if missed.case_id == name:
            return f"not run: {missed.reason}"
    return "it is not in this run"


def _mishaps(name: str, new: RunRecord) -> list[str]:
    return [_in_words(mishap.problem) for mishap in new.run.mishaps if mishap.case_id == name]


def _in_words(problem: Problem) -> str:
    where = f" on {problem.host}" if problem.host else ""
    return f"{problem.tried}{where}" + (f": {problem.said}" if problem.said else "")

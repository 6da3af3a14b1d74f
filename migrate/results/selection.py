"""A part of a run: the cases and the attempts that somebody wants to look at."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from migrate.errors import ConfigurationError
from migrate.results.reader import RunRecord


def selected(record: RunRecord, case: str, attempt: int | None) -> RunRecord:
    """What a run has of cases like ``case``, a pattern as a shell's, and of attempts of this
    number; None: of all numbers. Raises ConfigurationError: it has nothing of it."""
    if case == "*" and attempt is None:
        return record

    def wanted(case_id: str, number: int | None = None) -> bool:
        of_case = fnmatchcase(case_id, case)
        return of_case and (None in (attempt, number) or attempt == number)

    run = record.run
    part = replace(
        record,
        run=run.model_copy(
            update={
                "skips": tuple(skip for skip in run.skips if wanted(skip.case.id)),
                "mishaps": tuple(m for m in run.mishaps if wanted(m.case_id, m.number)),
                "not_reached": tuple(m for m in run.not_reached if wanted(m.case_id)),
            }
        ),
        attempts=tuple(
            entry
            for entry in record.attempts
            if wanted(entry.attempt.case.id, entry.attempt.number)
        ),
        unfinished=tuple(name for name in record.unfinished if wanted(*_parts(name))),
        unreadable=tuple(lost for lost in record.unreadable if wanted(lost.case_id, lost.number)),
    )
    if not (part.attempts or part.unfinished or part.unreadable or _untried(part)):
        raise ConfigurationError(
            f"show a part of {record.folder}",
            said=f"it has no {_asked(case, attempt)}",
            remedy=f"its cases: {', '.join(_cases(record)) or 'none'}",
        )
    return part


def _untried(record: RunRecord) -> bool:
    return bool(record.run.skips or record.run.mishaps or record.run.not_reached)


def _parts(name: str) -> tuple[str, int | None]:
    """Case and number of ``CASE/NUMBER``."""
    case, _, number = name.rpartition("/")
    return case, int(number) if number.isdecimal() else None


def _asked(case: str, attempt: int | None) -> str:
    parts = ([f"case like {case!r}"] if case != "*" else []) + (
        [f"attempt {attempt}"] if attempt is not None else []
    )
    return " with an ".join(parts)


MOST_CASES = 20
"""That a refusal names."""


def _cases(record: RunRecord) -> list[str]:
    run = record.run
    every = dict.fromkeys(
        (
            *(entry.attempt.case.id for entry in record.attempts),
            *(lost.case_id for lost in record.unreadable),
            *(skip.case.id for skip in run.skips),
            *(mishap.case_id for mishap in run.mishaps),
            *(missed.case_id for missed in run.not_reached),
        )
    )
    more = len(every) - MOST_CASES
    return [*list(every)[:MOST_CASES], *([f"and {more} more"] if more > 0 else [])]

"""The quarantine list: failures that are known, each with an owner, a bug and a last day.

What a valid entry covers does not fail a run, and is shown as quarantined wherever it is shown. An
entry that has expired fails the run by itself: a list that nobody looks after is no list. Only
verdicts are covered: a try that left no attempt speaks of the lab, and not of the case.

The entries are kept in ``run.json``, and all of this is a function of that and the attempts. So a
reader of the folder judges as the run did, on whatever day it reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, ValidationError

from migrate.errors import visible
from migrate.input_file import parse_toml, read_input
from migrate.model import Attempt, QuarantineEntry, Run, Value, Verdict
from migrate.refusals import refuse_values
from migrate.source_location import Keys, Origin, lines_of

DEFAULT = Path("quarantine.toml")
"""In the working folder: the list goes with the cases, not with the lab."""


class _File(Value):
    quarantine: tuple[QuarantineEntry, ...] = Field(default=(), max_length=1000)


def load(path: Path | None) -> tuple[QuarantineEntry, ...]:
    """The entries of ``path``; None: of ``quarantine.toml`` here, if there is one.

    Raises ConfigurationError, which names the file, the entry and the key.
    """
    if path is None and not os.path.lexists(DEFAULT):
        return ()
    path = path or DEFAULT
    tried = f"read the quarantine list {path}"
    remedy = "name a readable TOML file of [[quarantine]] entries: docs/ci.md"
    text = read_input(path, tried, remedy)
    document = parse_toml(text, tried, remedy)
    entries = document.get("quarantine", [])
    if isinstance(entries, list):  # TOML has lists where the values have tuples
        document["quarantine"] = tuple(entries)
    origin = Origin(visible(str(path)), lines_of(text))
    try:
        return _File.model_validate(document, strict=True).quarantine
    except ValidationError as error:
        refuse_values(error, origin, _known)


def _known(keys: Keys) -> str:
    if len(keys) == 1:
        return "a file of [[quarantine]] entries: docs/ci.md"
    return f"keys of an entry: {', '.join(QuarantineEntry.model_fields)}"


# --- what an entry covers -------------------------------------------------------------------------


def run_day(run: Run) -> date:
    """The day by which the run's entries are judged."""
    return datetime.fromisoformat(run.began).date()


def expired(run: Run) -> tuple[QuarantineEntry, ...]:
    """Entries whose last day was over when the run began."""
    return tuple(entry for entry in run.quarantine if entry.expires < run_day(run))


def excuses(run: Run, attempt: Attempt) -> tuple[QuarantineEntry, ...]:
    """The valid entries by which an attempt that did not pass fails no run; empty: it does.

    Every verdict against it must be covered: a known bug hides no other one. An attempt without
    any verdict is covered only by an entry that names no check; a void one by none: it does not
    show the known failure.
    """
    if attempt.void:
        return ()
    valid = [
        entry
        for entry in run.quarantine
        if entry.expires >= run_day(run) and fnmatchcase(attempt.case.id, entry.case)
    ]
    if not attempt.verdicts:
        return tuple(entry for entry in valid if entry.check is None)
    wrong = attempt.failed_verdicts
    if not all(any(_covers(entry, verdict) for entry in valid) for verdict in wrong):
        return ()
    return tuple(e for e in valid if any(_covers(e, verdict) for verdict in wrong))


def _covers(entry: QuarantineEntry, verdict: Verdict) -> bool:
    return entry.check is None or fnmatchcase(verdict.check, entry.check)


def covered_cases(run: Run, case_ids: Iterable[str]) -> frozenset[str]:
    """Those of which a valid entry says that they may fail."""
    patterns = [entry.case for entry in run.quarantine if entry.expires >= run_day(run)]
    return frozenset(
        case for case in case_ids if any(fnmatchcase(case, pattern) for pattern in patterns)
    )


def fails(run: Run, attempts: Sequence[Attempt]) -> bool:
    """Whether an attempt that nothing covers, or an expired entry, fails the run."""
    return bool(expired(run)) or not all(
        attempt.passed or excuses(run, attempt) for attempt in attempts
    )


# --- in words -------------------------------------------------------------------------------------


def entry_name(entry: QuarantineEntry) -> str:
    """An entry's name: the cases and the check that it covers."""
    return f"{entry.case}, {entry.check}" if entry.check else entry.case


def expiry_message(entry: QuarantineEntry) -> str:
    """The message about an entry that has expired."""
    return (
        f"expired on {entry.expires}, so it fails the run: {entry.owner} must fix {entry.bug} "
        "or set a later date"
    )


def summary_lines(run: Run, attempts: Sequence[Attempt]) -> Iterator[str]:
    """What each entry of the list covers in this run, a line each."""
    for entry in run.quarantine:
        yield f"quarantine of {entry_name(entry)}: {_entry_summary(entry, run, attempts)}"


def _entry_summary(entry: QuarantineEntry, run: Run, attempts: Sequence[Attempt]) -> str:
    if entry.expires < run_day(run):
        return expiry_message(entry)
    until = f"{entry.bug}, {entry.owner}, until {entry.expires}: {entry.reason}"
    matching = [attempt for attempt in attempts if fnmatchcase(attempt.case.id, entry.case)]
    covered = [
        attempt
        for attempt in matching
        if any(_covers(entry, verdict) for verdict in attempt.failed_verdicts)
        or (not attempt.verdicts and entry.check is None)
    ]
    if covered:
        return f"it covers {len(covered)} of {len(matching)} attempts; {until}"
    if matching:
        return f"can be removed: not seen in {len(matching)} attempts ({until})"
    if any(fnmatchcase(case, entry.case) for case in _not_tried(run)):
        return f"no case that it covers was tried ({until})"
    return f"no case of this run matches: can be removed if no other run has one ({until})"


def _not_tried(run: Run) -> Iterator[str]:
    yield from (skip.case.id for skip in run.skips)
    yield from (mishap.case_id for mishap in run.mishaps)
    yield from (missed.case_id for missed in run.not_reached)

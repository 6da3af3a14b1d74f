"""Old attempts judged anew by today's code: which findings and verdicts are others now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from migrate.analysis.findings import analyse
from migrate.bug_report import program_errors
from migrate.checks.evaluate import evaluate
from migrate.errors import MeasurementError, ProgramError
from migrate.model import Attempt
from migrate.report.table_text import clean
from migrate.results.reader import AttemptRecord, UnreadableAttempt
from migrate.results.recording_file import RECORDING, read_recording

NO_RECORDING = f"no {RECORDING}: it was pruned, or written before attempts had one"
SHOWN = 120
"""Characters of a value in the text; the JSON has all of it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A field that is another now: its path in ``attempt.json``, verdicts by their check."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Reanalysis:
    """One attempt judged anew; ``reason``: why it could not be."""

    case_id: str
    number: int | None
    changes: tuple[Change, ...] = ()
    reason: str = ""
    damaged: bool = False
    """What is on record of it can't be read."""
    program_error: bool = False
    """Today's code can't judge it: an error of this program."""


def reanalyse(record: AttemptRecord) -> Reanalysis:
    """Judge an attempt of a run folder anew, and hold it against what is on record there."""
    before = record.attempt
    try:
        recording = read_recording(record.folder)
        if recording is None:
            return Reanalysis(before.case.id, before.number, reason=NO_RECORDING)
        with program_errors(f"judge {before.case.id}, attempt {before.number} anew"):
            after = evaluate(
                analyse(recording, before.case),
                before.case,
                before.number,
                (before.source, before.target),
                leftovers=before.leftovers,
                end_ns=before.end_ns,
            )
    except MeasurementError as error:
        return Reanalysis(before.case.id, before.number, reason=str(error))
    except ProgramError as error:
        return Reanalysis(before.case.id, before.number, reason=str(error), program_error=True)
    return Reanalysis(before.case.id, before.number, tuple(changes(before, after)))


def unreadable(attempt: UnreadableAttempt) -> Reanalysis:
    """Of an attempt that can't be read there is nothing to hold anything against."""
    return Reanalysis(attempt.case_id, attempt.number, reason=attempt.why, damaged=True)


def changes(before: Attempt, after: Attempt) -> Iterator[Change]:
    """Field by field, as deep as they go."""
    yield from _changes(_document(before), _document(after), "")


def _document(attempt: Attempt) -> dict[str, Any]:
    document: dict[str, Any] = attempt.model_dump(mode="json")
    document["verdicts"] = {verdict["check"]: verdict for verdict in document["verdicts"]}
    return document


def _changes(before: Any, after: Any, path: str) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            where = f"{path}.{name}" if path else name
            yield from _changes(before.get(name), after.get(name), where)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (change, other) in enumerate(zip(before, after, strict=True)):
            yield from _changes(change, other, f"{path}[{number}]")
    elif before != after:
        yield Change(path, before, after)


def exit_code(attempts: Sequence[Reanalysis]) -> int:
    """0: all that could be judged anew is the same; 1: something differs; 5: an attempt can't be
    read; 3: nothing could be judged; 70, before all others: an error of this program."""
    if any(attempt.program_error for attempt in attempts):
        return ProgramError.exit_code
    if any(attempt.changes for attempt in attempts):
        return 1
    if any(attempt.damaged for attempt in attempts):
        return MeasurementError.exit_code
    return 0 if any(not attempt.reason for attempt in attempts) else 3


def document(run: str, attempts: Sequence[Reanalysis]) -> dict[str, object]:
    """All of it, for JSON."""
    return {"run": run, "attempts": [asdict(attempt) for attempt in attempts]}


def plain(attempts: Sequence[Reanalysis]) -> str:
    """A line an attempt, and one for each field that is another now."""
    lines = []
    for attempt in attempts:
        count = len(attempt.changes)
        result = attempt.reason or (f"{count} fields differ" if count else "the same")
        lines.append(f"{attempt.case_id}, attempt {attempt.number or '?'}: {result}")
        lines += [
            f"  {change.field}: {_short(change.before)} -> {_short(change.after)}"
            for change in attempt.changes
        ]
    return "\n".join(map(clean, lines)) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

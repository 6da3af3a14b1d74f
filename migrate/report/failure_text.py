"""What a run printed as text begins with: its result, then what did not pass, and why."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.report.failures import Failure, failures
from migrate.report.summary import summary
from migrate.report.table_text import WIDTH, wrapped
from migrate.results.reader import RunRecord

INDENT = "    "
MOST_LETTERS = 600
"""Of a reason; ``attempt.json`` has all of it."""


def failure_text(record: RunRecord, width: int = WIDTH) -> list[str]:
    """The result of the run, and a block of lines for each failure: its first reason first."""
    lines = wrapped([summary(record).line], width)
    for failure in failures(record):
        lines += _block(failure, width)
    return lines


def _block(failure: Failure, width: int) -> Iterator[str]:
    first, *others = map(_cut, failure.reasons or ("no reason is on record",))
    yield from wrapped([f"{failure.kind} {_name(failure)}: {first}"], width, indent=INDENT)
    if failure.more_reasons:
        others.append(f"and {failure.more_reasons} more")
    inside = width - len(INDENT)
    yield from (INDENT + line for reason in others for line in wrapped([reason], inside))


def _name(failure: Failure) -> str:
    """``CASE/1, 3``."""
    numbers = ", ".join(map(str, failure.numbers))
    return f"{failure.case_id}/{numbers}" if numbers else failure.case_id


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"

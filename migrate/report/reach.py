"""What `doctor --reach` prints: what answered, place by place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.errors import visible
from migrate.model import Scan

SHOWN = 12
"""Answers of one station that are listed; the others are counted."""


def plain(scans: Sequence[Scan]) -> str:
    """The report as text."""
    return "\n".join(map(visible, _lines(scans)))


def _lines(scans: Sequence[Scan]) -> Iterator[str]:
    for scan in scans:
        found = "no answer"
        if scan.answers:
            found = f"{len(scan.answers)} answers"
            if scan.may_answer and not scan.wrong:
                found += ", as the guests' peer may; no TCP port is open"
        yield (f"from a guest's port on {scan.place}: {scan.station}: {scan.asked} frames, {found}")
        yield from (f"  {answer}" for answer in scan.wrong[:SHOWN])
        if len(scan.wrong) > SHOWN:
            yield f"  and {len(scan.wrong) - SHOWN} more"
    wrong = list(dict.fromkeys(scan.station for scan in scans if scan.wrong))
    verdict = "nothing but its peer can be reached from where a guest is"
    if wrong:
        verdict = f"REACHED from where a guest is: {', '.join(wrong)}"
    yield verdict

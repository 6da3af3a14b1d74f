"""``report.html``: one file that opens offline, made from a run folder alone.

A door of jinja2: here it writes HTML, escapes all that it is given and refuses unknown names.
Figures are pieces of HTML with their drawing, complete without a script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from migrate.analysis.figures import FigureValue, longest_outage
from migrate.checks import quarantine
from migrate.errors import MeasurementError
from migrate.model import DIRECTIONS, Attempt, Event, MachineRecording, Sample
from migrate.model.recording import Arrivals
from migrate.report.figure import HELP, figure, script, style
from migrate.report.figure_data import FigureData
from migrate.report.machines import describe, machine_sections
from migrate.report.move_details import sections
from migrate.report.table import PARTS_TITLE, run_table
from migrate.report.table_model import IN_FLOOR
from migrate.report.work import work_sections
from migrate.results.layout import PRUNED
from migrate.results.reader import AttemptRecord, RunRecord, read_run
from migrate.results.writer import RunWriter

Content = TypeVar("Content")

EVENTS = 500
"""Events listed for an attempt; ``events.jsonl`` has them all."""
GAPS = 300
"""Gaps listed for an attempt; ``attempt.json`` has them all."""
_NOT_MEASURED = "not measured"


def write_report(folder: Path) -> Path:
    """Read the run in ``folder``, write ``report.html`` there. Raises MeasurementError."""
    if (folder / PRUNED).exists():
        raise MeasurementError(
            f"make the report of {folder}",
            said="it was pruned: its packets and events are gone",
            remedy="`migrate-lab show` and `migrate-lab trend` read it still",
        )
    record = read_run(folder)
    return RunWriter(folder, record.run).write("report.html", render(record))


def render(record: RunRecord) -> str:
    """The whole page as HTML."""
    import jinja2  # noqa: PLC0415 - heavy

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("migrate.report").joinpath("report.html.j2").read_text("utf-8")
    attempts = [record_of_attempt.attempt for record_of_attempt in record.attempts]
    return environment.from_string(source).render(
        run=record.run,
        unfinished=record.unfinished,
        unreadable=record.unreadable,
        table=run_table(record.run, attempts, record.unreadable),
        parts_title=PARTS_TITLE,
        passed=sum(attempt.passed for attempt in attempts),
        void=sum(bool(attempt.void) for attempt in attempts),
        excused=sum(bool(quarantine.excuses(record.run, attempt)) for attempt in attempts),
        expired=len(quarantine.expired(record.run)),
        attempts=[_section(record_of_attempt) for record_of_attempt in record.attempts],
        figure_style=style(),
        figure_script=script(),
        figure_help=HELP,
        described=describe,
    )


def _section(record: AttemptRecord) -> dict[str, Any]:
    attempt = record.attempt
    damage: list[str] = []
    events: Sequence[Event] = _whole(record.events, damage) or ()
    arrivals: dict[str, Arrivals] = _whole(record.arrivals, damage) or {}
    samples: Sequence[Sample] = _whole(record.samples, damage) or ()
    machines: Sequence[MachineRecording] = _whole(record.machines, damage) or ()
    gaps = attempt.gaps or ()
    data = FigureData(attempt, arrivals, samples, events, machines)
    return {
        "damage": damage,
        "id": f"{attempt.case.id}/{attempt.number}",
        "attempt": attempt,
        "headline": headline(attempt),
        "figure": figure(data, headline(attempt)),
        "gaps": [{"ms": f"{data.ms(gap.begin_ns):+.1f}", "gap": gap} for gap in gaps[:GAPS]],
        "more_gaps": max(0, len(gaps) - GAPS),
        "unmeasured": [
            {"ms": f"{data.ms(blank.begin_ns):+.1f}", "blank": blank}
            for blank in attempt.unmeasured[:GAPS]
        ],
        "events": [
            {
                "ms": f"{data.ms(event.at_ns):+.3f}",
                "event": event,
                "data": json.dumps(event.data, default=repr) if event.data else "",
            }
            for event in events[:EVENTS]
        ],
        "more_events": max(0, len(events) - EVENTS),
        "machine": (*work_sections(attempt), *machine_sections(attempt)),
        "inside": sections(attempt),
        "files": [str(p.relative_to(record.folder)) for p in sorted(record.folder.rglob("*.*"))],
    }


def _whole(read: Callable[[], Content], damage: list[str]) -> Content | None:
    """A part of an attempt; None if it can't be read, and why goes to ``damage``."""
    try:
        return read()
    except MeasurementError as error:
        damage.append(str(error))
        return None


def headline(attempt: Attempt) -> str:
    """Outcome, holder and the two figures that matter, in a sentence."""
    holders = " and ".join(attempt.held_by) or "no host"
    parts = [f"{attempt.outcome}, the guest runs on {holders}"]
    if attempt.void:
        parts.insert(0, f"void, it tells nothing of what was to be tested: {attempt.void_reason}")
    for direction in DIRECTIONS:
        outage = longest_outage(attempt, direction)
        where = f" ({outage.part})" if outage and outage.part != "none" else ""
        length = _outage_text(outage) if outage else _NOT_MEASURED
        parts.append(f"outage {direction} {length}{where}")
    reported = attempt.reported.downtime_ms
    parts.append(
        f"downtime reported {f'{reported:.1f} ms' if reported is not None else _NOT_MEASURED}"
    )
    wrong = [verdict.check for verdict in attempt.failed_verdicts]
    if wrong:
        parts.append(f"not passed: {', '.join(wrong)}")
    return "; ".join(parts)


def _outage_text(outage: FigureValue) -> str:
    low, high = outage.bounds
    if outage.only_floor:
        return IN_FLOOR
    if outage.at_least or low == high:
        return f"{'at least ' if outage.at_least else ''}{outage.ms:.1f} ms"
    return f"{low:.1f} to {high:.1f} ms"
